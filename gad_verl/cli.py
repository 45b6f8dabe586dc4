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
"""The command ``gad-verl``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from gad_verl.errors import GadCheckpointError, GadCompatError


def _export(arguments: argparse.Namespace) -> None:
    import torch

    from gad_verl.export import PARTS, export_part

    dtype = None if arguments.dtype == "keep" else getattr(torch, arguments.dtype)
    parts = PARTS if arguments.part == "both" else (arguments.part,)
    for part in parts:
        target = arguments.output / part if arguments.part == "both" else arguments.output
        export_part(arguments.checkpoint, part, target, dtype)
        sys.stdout.write(f"{target}\n")


def _check(_: argparse.Namespace) -> None:
    import verl
    from verl.plugin.platform import get_platform

    from gad_verl import __version__, compat

    compat.check()
    sys.stdout.write(
        f"gad_verl {__version__} with verl {verl.__version__} on {get_platform().device_name}: everything that is "
        "used of verl is there\n"
    )


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog="gad-verl", description="Tools around GAD training with verl.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    export = commands.add_parser(
        "export", help="write student and discriminator of a checkpoint as Hugging Face folders"
    )
    export.add_argument("checkpoint", type=Path, help="a folder global_step_N")
    export.add_argument("--output", type=Path, required=True, help="folder to write")
    export.add_argument(
        "--part",
        choices=("student", "discriminator", "both"),
        default="student",
        help="which model; both writes OUTPUT/student and OUTPUT/discriminator (default: student)",
    )
    export.add_argument(
        "--dtype",
        choices=("keep", "float32", "bfloat16", "float16"),
        default="keep",
        help="precision to write (default: as in the checkpoint)",
    )
    export.set_defaults(run=_export)
    check = commands.add_parser("check", help="check the installed verl against what gad_verl uses of it")
    check.set_defaults(run=_check)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = build_parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (GadCheckpointError, GadCompatError, FileExistsError) as error:
        sys.stderr.write(f"gad-verl: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
