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
"""``gad-verl compare``: evaluated checkpoints side by side, and which one to take."""

import argparse
import sys

from gad_verl.errors import GadConfigError
from gad_verl.tools.commands import file_path


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = commands.add_parser(
        "compare",
        help="set evaluated checkpoints side by side and propose one",
        description="Reads folders of gad-verl evaluate, compares the checkpoints over the same prompts, and proposes "
        "the one with the best judge score whose length is acceptable.",
    )
    parser.add_argument(
        "folders", type=file_path, nargs="*", metavar="EVAL_FOLDER", help="differences are to the first"
    )
    parser.add_argument(
        "--method",
        action="append",
        nargs="+",
        default=[],
        metavar=("NAME", "EVAL_FOLDER"),
        help="instead of folders, several times: the folders of a method, one a seed, in the same order of the seeds; "
        "the intervals are over the seeds",
    )
    parser.add_argument(
        "--length-band",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="acceptable mean length over the teacher's (default: 0.7 1.5)",
    )
    parser.add_argument(
        "--output", type=file_path, metavar="FOLDER", help="also write comparison.json and comparison.md"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from gad_verl.record.files import to_json, write_atomically
    from gad_verl.tools.evaluation.comparison import compare, render
    from gad_verl.tools.evaluation.selection import LENGTH_BAND

    if bool(arguments.folders) == bool(arguments.method):
        raise GadConfigError("name folders of gad-verl evaluate, or methods with --method NAME FOLDER ..., not both")
    if arguments.method and arguments.length_band is not None:
        raise GadConfigError("--length-band is of the proposal among folders; a comparison of methods proposes none")
    if arguments.method:
        from gad_verl.tools.evaluation.seeds import compare_seeds, render_seeds

        names = [name for name, *_ in arguments.method]
        if len(set(names)) < len(names):
            raise GadConfigError(f"--method names two methods the same: {', '.join(names)}")
        over_seeds = compare_seeds({name: folders for name, *folders in arguments.method})
        table, as_json = render_seeds(over_seeds), to_json(over_seeds)
    else:
        comparison = compare(arguments.folders, tuple(arguments.length_band or LENGTH_BAND))
        table, as_json = render(comparison), to_json(comparison)
    if arguments.output is not None:
        folder = arguments.output
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GadConfigError(f"--output {folder} cannot be made a folder: {error.strerror}") from None
        write_atomically(folder / "comparison.json", as_json)
        write_atomically(folder / "comparison.md", table)
    sys.stdout.write(as_json if arguments.json else table)
