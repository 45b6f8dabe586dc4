# Copyright 2026 The gad_verl Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""``gad-verl doctor``: what would go wrong with a run, before it is started."""

import argparse
import json
import sys

from gad_verl.errors import GadConfigError


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = commands.add_parser(
        "doctor",
        help="check the machine and a run's configuration, data and models before it is started",
        description="Without a configuration: versions, verl's internals, GPUs, limits. With the configuration and the "
        "overrides of a run, as for verl.trainer.main_ppo: its data, tokenizers, models, disk and memory too, and with "
        "--dry-run one real step. Exit code: 0 without errors, 1 with one, 2 for a wrong command line.",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for verl.trainer.main_ppo")
    parser.add_argument("--config-name", help="such as gad_trainer (default where there are overrides)")
    parser.add_argument("--config-path", metavar="FOLDER", help="folder of the configuration, as for main_ppo")
    parser.add_argument("--dry-run", action="store_true", help="make one step in a process of its own (minutes)")
    parser.add_argument(
        "--dry-run-timeout", type=float, default=1800.0, metavar="SECONDS", help="time limit of it (default: 1800)"
    )
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from gad_verl.preflight.composing import DEFAULT_NAME
    from gad_verl.tools.doctor.checks import Request, examine
    from gad_verl.tools.doctor.finding import exit_code, render

    name = arguments.config_name
    if name is None and (arguments.overrides or arguments.config_path or arguments.dry_run):
        name = DEFAULT_NAME
    if arguments.dry_run_timeout <= 0:
        raise GadConfigError(f"--dry-run-timeout {arguments.dry_run_timeout:g} must be above 0")
    findings = examine(
        Request(name, arguments.config_path, tuple(arguments.overrides), arguments.dry_run, arguments.dry_run_timeout)
    )
    code = exit_code(findings, arguments.strict)
    if arguments.json:
        document = {"exit_code": code, "findings": [finding.as_dict() for finding in findings]}
        sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(render(findings))
    return code
