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
import json
import sys
from collections.abc import Mapping
from typing import Any

from gad_verl.errors import GadConfigError
from gad_verl.tools.commands import add_run_arguments

DOES_NOT_FIT = 1
_TEXT_FIGURES = ("model_type",)


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
    gpu = parser.add_argument_group("the GPU")
    gpu.add_argument("--gpu", help="h100-80g (default), h200, b200, a100-80g, a100-40g, l40s or rtx4090")
    gpu.add_argument("--gpu-memory-gb", type=float, metavar="GB", help="memory in 10^9 bytes")
    gpu.add_argument("--tflops", type=float, metavar="X", help="peak in bfloat16, dense")
    gpu.add_argument("--bandwidth-gbs", type=float, metavar="X", help="of its memory, GB/s")
    known = parser.add_argument_group("what you know better")
    known.add_argument("--mfu", metavar="X or LOW,HIGH", help="share of the peak in training (default: 0.25,0.45)")
    for name, what in (("prompt", "prompts"), ("response", "the student's responses"), ("teacher", "teacher's texts")):
        known.add_argument(f"--{name}-tokens", metavar="N or LOW,HIGH", help=f"mean tokens of {what}")
    known.add_argument("--rows", type=int, help="training rows (default: counted, if data.train_files is here)")
    for name in ("student", "discriminator"):
        known.add_argument(
            f"--{name}-shape",
            metavar="KEY=N,...",
            help="figures of config.json of a model that is not here, such as model_type=qwen2,hidden_size=2048,...",
        )
    parser.add_argument("--json", action="store_true", help="print JSON; ranges are [low, high]")
    parser.add_argument("--strict", action="store_true", help="exit with code 1 if there is a warning")
    parser.set_defaults(run=_run)


def _range(text: str | None, flag: str) -> Any:
    """A figure or two as a range; None for None."""
    from gad_verl.tools.estimate.ranges import Range

    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or min(values, default=0) <= 0 or values != sorted(values):
        raise GadConfigError(f"{flag} {text}: expected a figure above 0, or two as LOW,HIGH")
    return Range(values[0], values[-1])


def _shape(text: str | None, flag: str) -> Any:
    """The shape that a flag gives; None for None."""
    from gad_verl.tools.estimate.shape import shape_of_config

    if text is None:
        return None
    figures: dict[str, Any] = {"model_type": "qwen2"}
    for part in text.split(","):
        key, separator, value = part.partition("=")
        key, value = key.strip(), value.strip()
        try:
            if not separator:
                raise ValueError
            is_flag = value.lower() in ("true", "false")
            figures[key] = value if key in _TEXT_FIGURES else value.lower() == "true" if is_flag else int(value)
        except ValueError:
            raise GadConfigError(f"{flag}: {part!r} is not KEY=N, as in hidden_size=2048") from None
    return shape_of_config(figures, flag)


def _lengths(arguments: argparse.Namespace, config: Any, settings: Any) -> Any:
    """Given lengths over measured over assumed ones."""
    from gad_verl.tools.estimate.measured_data import measured_lengths
    from gad_verl.tools.estimate.timing import Lengths, assumed_lengths

    given: Mapping[str, Any] = {
        name: _range(getattr(arguments, f"{name}_tokens"), f"--{name}-tokens")
        for name in ("prompt", "response", "teacher")
    }
    found = None
    if given["prompt"] is None or given["response"] is None:
        found = measured_lengths(config, settings.gad.teacher_key)
    found = found or assumed_lengths(settings.max_prompt, settings.max_response)
    if given["prompt"] is None and given["response"] is None and given["teacher"] is None:
        return found
    response = given["response"] or found.response
    teacher = given["teacher"] or (found.teacher if given["response"] is None else response)
    names = ", ".join(name for name, value in given.items() if value is not None)
    whole = given["prompt"] is not None and given["response"] is not None
    source = f"given: {names}" + ("" if whole else f"; the rest {found.source}")
    return Lengths(given["prompt"] or found.prompt, response, teacher, source)


def _run(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from gad_verl.preflight.composing import compose_config
    from gad_verl.tools.estimate.gpus import choose_gpu
    from gad_verl.tools.estimate.measured_data import count_rows
    from gad_verl.tools.estimate.run_estimate import estimate
    from gad_verl.tools.estimate.run_settings import read_settings
    from gad_verl.tools.estimate.text import as_json, render
    from gad_verl.tools.estimate.timing import Assumptions

    gpu = choose_gpu(arguments.gpu, arguments.gpu_memory_gb, arguments.tflops, arguments.bandwidth_gbs)
    mfu = _range(arguments.mfu, "--mfu")
    if mfu is not None and mfu.high > 1:
        raise GadConfigError(f"--mfu {arguments.mfu}: a share lies between 0 and 1")
    if arguments.rows is not None and arguments.rows < 1:
        raise GadConfigError(f"--rows {arguments.rows}: at least one row is needed")
    student = _shape(arguments.student_shape, "--student-shape")
    discriminator = _shape(arguments.discriminator_shape, "--discriminator-shape")
    config = compose_config(arguments.config_name, arguments.overrides, arguments.config_path)
    settings = read_settings(config, student, discriminator)
    assume = Assumptions() if mfu is None else replace(Assumptions(), mfu=mfu, mfu_experts=mfu)
    rows = count_rows(config) if arguments.rows is None else arguments.rows
    found = estimate(settings, gpu, assume, _lengths(arguments, config, settings), rows)
    if arguments.json:
        sys.stdout.write(json.dumps(as_json(found), indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(render(found))
    return DOES_NOT_FIT if arguments.strict and found.warnings else 0
