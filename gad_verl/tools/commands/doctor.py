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
import sys
from typing import TYPE_CHECKING

from gad_verl.errors import GadConfigError
from gad_verl.tools.commands import add_run_arguments, file_path

if TYPE_CHECKING:
    from gad_verl.tools.doctor.finding import Finding

_ONE_STEP_S, _CLUSTER_S = 1800.0, 600.0


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = commands.add_parser(
        "doctor",
        help="check the installation, the machine and a run's configuration before it is started",
        description="Without a configuration: versions, what is used of verl, GPUs, limits. With the configuration and "
        "the overrides of a run, as for verl.trainer.main_ppo: its data, tokenizers, models, disk and memory too. Exit "
        "code: 0 without errors, 1 with one, 2 for what has to be mended first, such as a wrong command line.",
    )
    add_run_arguments(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="check the configuration and print what it would train")
    what.add_argument(
        "--one-step", action="store_true", help="check everything, then make one step in a process of its own (minutes)"
    )
    what.add_argument(
        "--cluster", metavar="HOST:PORT", help="wait until the Ray cluster with this head has what the run needs"
    )
    what.add_argument(
        "--tree", type=file_path, metavar="FOLDER", help="hold what is used of verl against the sources of another verl"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help=f"of --one-step (default: {_ONE_STEP_S:.0f}) and --cluster (default: {_CLUSTER_S:.0f})",
    )
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _findings(arguments: argparse.Namespace, run: tuple[str | None, list[str], str | None]) -> "list[Finding]":
    """What the chosen check finds.

    Args:
        arguments: The command line.
        run: Name, overrides and folder of the configuration.
    """
    if arguments.tree is not None:
        from gad_verl.compat.tree import tree_findings
        from gad_verl.tools.doctor.finding import error, ok

        wrong = [error("verl", line, "") for line in tree_findings(arguments.tree)]
        return wrong or [ok("verl", f"{arguments.tree} has everything that is used of verl")]
    if arguments.cluster is not None:
        from gad_verl.preflight.composing import compose_config
        from gad_verl.tools.doctor.cluster import check_cluster

        return check_cluster(compose_config(*run), arguments.cluster, arguments.timeout or _CLUSTER_S)
    from gad_verl.preflight.composing import DEFAULT_NAME
    from gad_verl.tools.doctor.examination import Doctor, examine

    name, overrides, folder = run
    if overrides or folder or arguments.one_step:
        name = name or DEFAULT_NAME
    timeout_s = (arguments.timeout or _ONE_STEP_S) if arguments.one_step else None
    return examine(Doctor(name, folder, overrides, timeout_s))


def _run(arguments: argparse.Namespace) -> int:
    from gad_verl.record.files import to_json

    run = (arguments.config_name, arguments.overrides, arguments.config_path)
    if arguments.timeout is not None and not (arguments.timeout > 0 and (arguments.one_step or arguments.cluster)):
        raise GadConfigError(f"--timeout {arguments.timeout:g}: seconds above 0, with --one-step or --cluster")
    if arguments.tree is not None and any(run):
        raise GadConfigError("--tree reads the sources of a verl alone: leave the configuration out")
    if arguments.plan:
        from gad_verl.preflight.composing import compose_config
        from gad_verl.tools.doctor.run_plan import describe, plan

        lines = plan(compose_config(*run))
        sys.stdout.write(to_json({"plan": lines}) if arguments.json else describe(lines))
        return 0
    from gad_verl.tools.doctor.finding import exit_code, render

    findings = _findings(arguments, run)
    code = exit_code(findings, arguments.strict)
    if arguments.json:
        sys.stdout.write(to_json({"exit_code": code, "findings": findings}))
    else:
        sys.stdout.write(render(findings))
    return code
