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
"""``gad-verl guardian``: what the guardian says to the metrics of a run."""

import argparse
import json
import logging
import sys
from typing import Any

from gad_verl.errors import GadConfigError
from gad_verl.tools.commands import file_path


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = commands.add_parser(
        "guardian",
        help="judge the metrics of a run, finished or running",
        description="Replays the metrics of a run through the guardian and prints what it says. Given the folder of a "
        "run, it takes the settings of its record.",
    )
    parser.add_argument(
        "run_path",
        type=file_path,
        metavar="RUN",
        help="folder of a run (trainer.default_local_dir), or a file of metrics (verl's file logger)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of gad.guardian, such as saturated.accuracy=0.95; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON an event")
    parser.set_defaults(run=_run)


def _setting(text: str) -> Any:
    """A setting of the command line, with the whole key, too, as a run's command line has it."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        return OmegaConf.from_dotlist([text.removeprefix("gad.guardian.")])
    except YAMLError:
        raise GadConfigError(f"--set {text}: no KEY=VALUE that can be read") from None


def _run(arguments: argparse.Namespace) -> None:
    from omegaconf import OmegaConf

    from gad_verl.tools.report.replay import load_settings, recorded_settings, replay
    from gad_verl.tools.report.runs import read_run

    run = read_run(arguments.run_path)
    recorded, about = recorded_settings(run)
    settings = [_setting(text) for text in arguments.set]
    config = load_settings(OmegaConf.merge(recorded, *settings))
    # The events are printed below.
    logging.getLogger("gad_verl.guardian").setLevel(logging.ERROR)
    guardian, events = replay(config, run)
    if arguments.json:
        for event in events:
            sys.stdout.write(json.dumps(event.as_dict(), ensure_ascii=False) + "\n")
        return
    for event in events:
        sys.stdout.write(f"step {event.step}  {event.action}  {event.text}\n")
    stands = ", ".join(guardian.tripped) or "nothing"
    steps = list(run.rows())
    span = f"steps {steps[0]} to {steps[-1]}" if steps else "no metrics"
    sys.stdout.write(f"{span}: {len(events)} events; standing at the end: {stands}\n")
    if run.info is not None:
        sys.stdout.write(f"{about}\n")
    if run.why_no_metrics:
        sys.stdout.write(f"{run.why_no_metrics}\n")
    for name, count in run.unread.items():
        sys.stdout.write(f"{count} lines of {name} could not be read and are left out\n")
