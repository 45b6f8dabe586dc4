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
"""``gad-verl export``: models of a checkpoint as Hugging Face folders."""

import argparse
import sys
from pathlib import Path


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = commands.add_parser(
        "export", help="write student and discriminator of a checkpoint as Hugging Face folders"
    )
    parser.add_argument("checkpoint", type=Path, help="a folder global_step_N")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--part",
        choices=("student", "discriminator", "both"),
        default="student",
        help="which model; both writes OUTPUT/student and OUTPUT/discriminator (default: student)",
    )
    parser.add_argument(
        "--dtype",
        choices=("keep", "float32", "bfloat16", "float16"),
        default="keep",
        help="precision to write (default: as in the checkpoint)",
    )
    parser.add_argument(
        "--adapter",
        action="store_true",
        help="write the adapter of LoRA alone, in the format of PEFT (default: merged into its base)",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    import torch

    from gad_verl.export import PARTS, export_part

    dtype = None if arguments.dtype == "keep" else getattr(torch, arguments.dtype)
    parts = PARTS if arguments.part == "both" else (arguments.part,)
    for part in parts:
        target = arguments.output / part if arguments.part == "both" else arguments.output
        export_part(arguments.checkpoint, part, target, dtype, adapter_only=arguments.adapter)
        sys.stdout.write(f"{target}\n")
