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
"""``gad-verl estimate``: memory and time of a run before it is started."""

import argparse
import math
import sys
from dataclasses import replace
from typing import Any

from gad_verl.errors import GadConfigError
from gad_verl.tools.commands import add_run_arguments, positive

DOES_NOT_FIT = 1
_LENGTHS = {"prompt": "prompts", "response": "the student's responses", "teacher": "teacher's texts"}


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = commands.add_parser(
        "estimate",
        help="memory per GPU and time of a run, from its configuration alone",
        description="Reads the configuration that verl.trainer.main_ppo would read and the models' config.json "
        "(nothing is downloaded). Prints memory by phase, time by stage and of the whole run, as ranges, and what was "
        "assumed.",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--gpu",
        default="h100-80g",
        help="%(default)s (default), h200, b200, a100-80g, a100-40g, l40s, rtx4090, or figures of another one: memory "
        "in GB, dense bfloat16 TFLOPS, GB/s of its memory, such as 80,989,3350",
    )
    known = parser.add_argument_group("what you know better")
    known.add_argument("--mfu", metavar="X or LOW,HIGH", help="share of the peak in training (default: 0.25,0.45)")
    for name, what in _LENGTHS.items():
        known.add_argument(f"--{name}-tokens", metavar="N or LOW,HIGH", help=f"mean tokens of {what}")
    known.add_argument("--rows", type=positive, help="training rows (default: counted, if data.train_files is here)")
    parser.add_argument("--json", action="store_true", help="print JSON; ranges have a low and a high end")
    parser.add_argument("--strict", action="store_true", help="exit with code 1 if there is a warning")
    parser.set_defaults(run=_run)


def _range(text: str, flag: str) -> Any:
    """A figure or two as a range."""
    from gad_verl.tools.estimate.ranges import Range

    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    is_range = len(values) in (1, 2) and all(value > 0 and math.isfinite(value) for value in values)
    if not is_range or values != sorted(values):
        raise GadConfigError(f"{flag} {text}: expected a figure above 0, or two as LOW,HIGH")
    return Range(values[0], values[-1])


def _given_lengths(arguments: argparse.Namespace, settings: Any) -> dict[str, Any]:
    """Mean lengths of the command line, by name."""
    given = {}
    for name in _LENGTHS:
        text, flag = getattr(arguments, f"{name}_tokens"), f"--{name}-tokens"
        if text is None:
            continue
        given[name] = _range(text, flag)
        is_prompt = name == "prompt"
        limit = settings.max_prompt if is_prompt else settings.max_response
        if given[name].high > limit:
            key = f"data.max_{'prompt' if is_prompt else 'response'}_length"
            raise GadConfigError(
                f"{flag} {text} is above {key}={limit}, which cuts longer ones: lower it, or raise the key"
            )
    return given


def _lengths(arguments: argparse.Namespace, config: Any, settings: Any) -> Any:
    """Given lengths over measured over assumed ones."""
    from gad_verl.tools.estimate.measured_data import measured_lengths
    from gad_verl.tools.estimate.timing import assumed_lengths

    given = _given_lengths(arguments, settings)
    whole = len(given) == len(_LENGTHS)
    found = None if whole else measured_lengths(config, settings.gad.teacher_key)
    found = found or assumed_lengths(settings.max_prompt, settings.max_response)
    if not given:
        return found
    source = f"given: {', '.join(given)}"
    if "response" in given and "teacher" not in given and not found.is_measured:
        given["teacher"] = given["response"]
        source += "; the teacher's texts are taken to be as long as the responses"
    return replace(
        found, **given, source=source + ("" if len(given) == len(_LENGTHS) else f"; the rest {found.source}")
    )


def _run(arguments: argparse.Namespace) -> int:
    from gad_verl.preflight.composing import compose_config
    from gad_verl.tools.estimate.gpus import choose_gpu
    from gad_verl.tools.estimate.measured_data import count_rows
    from gad_verl.tools.estimate.run_estimate import estimate
    from gad_verl.tools.estimate.run_settings import read_settings
    from gad_verl.tools.estimate.text import as_json, render
    from gad_verl.tools.estimate.timing import Assumptions

    gpu = choose_gpu(arguments.gpu)
    assume = Assumptions()
    if arguments.mfu is not None:
        mfu = _range(arguments.mfu, "--mfu")
        if mfu.high > 1:
            raise GadConfigError(f"--mfu {arguments.mfu}: a share lies between 0 and 1")
        assume = replace(assume, mfu=mfu, mfu_experts=mfu)
    config = compose_config(arguments.config_name, arguments.overrides, arguments.config_path)
    settings = read_settings(config)
    rows = count_rows(config) if arguments.rows is None else arguments.rows
    found = estimate(settings, gpu, assume, _lengths(arguments, config, settings), rows)
    sys.stdout.write(as_json(found) if arguments.json else render(found))
    return DOES_NOT_FIT if arguments.strict and found.warnings else 0
