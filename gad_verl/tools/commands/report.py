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
"""``gad-verl report``: one HTML page that shows how a run went, also while it trains."""

import argparse
import logging
import os
import sys
from pathlib import Path

from gad_verl.tools.commands import file_path


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = commands.add_parser(
        "report",
        help="one HTML page with curves, texts and a verdict",
        description="Writes one page that shows how a run went: a verdict in words, curves, scores, sample texts, "
        "events, configuration. It may still be training. Several runs are drawn over each other.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="[NAME=]PATH: folder of a run (trainer.default_local_dir), or a JSONL file of metrics",
    )
    parser.add_argument("--output", type=file_path, default=Path("report.html"), help="default: %(default)s")
    parser.add_argument(
        "--evaluations",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folders of gad-verl evaluate: their figures and answers, side by side; differences are to the first",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is no page of this command")
    parser.set_defaults(run=_run)


def _is_page(path: Path) -> bool:
    """Whether a file was written by this command: by its title, which stands in the head."""
    try:
        with path.open("rb") as file:
            return b" - gad-verl report</title>" in file.read(1 << 16)
    except OSError:
        return False


def _run(arguments: argparse.Namespace) -> None:
    from gad_verl.errors import GadConfigError
    from gad_verl.tools.report.runs import read_runs

    output = arguments.output
    # Not the methods of Path, which mind a name that is too long.
    if os.path.isdir(output):
        raise GadConfigError(f"--output {output} is a folder: name a file, such as {output / 'report.html'}")
    if os.path.exists(output) and not arguments.overwrite and not _is_page(output):
        raise FileExistsError(
            f"{output} exists and is no page of gad-verl report: choose another name or add --overwrite"
        )
    runs = read_runs(arguments.runs)
    try:
        from gad_verl.tools.report.page import write_page
    except ModuleNotFoundError as error:
        if error.name not in ("bokeh", "jinja2", "markupsafe"):
            raise
        raise GadConfigError(f"{error.name} is missing: pip install 'gad-verl[report]'") from None
    answers = None
    if arguments.evaluations:
        from gad_verl.tools.evaluation.side_by_side import side_by_side

        try:
            answers = side_by_side(arguments.evaluations)
        except OSError as error:
            raise GadConfigError(
                f"--evaluations: {error.filename} cannot be read ({error.strerror}); name folders of gad-verl evaluate"
            ) from None
    # What the guardian says stands on the page.
    logging.getLogger("gad_verl.guardian").setLevel(logging.ERROR)
    try:
        verdicts = write_page(runs, output, answers)
    except OSError as error:
        raise GadConfigError(f"--output {output} cannot be written ({error.strerror}): name another file") from None
    for run, verdict in zip(runs, verdicts, strict=True):
        sys.stdout.write(f"{run.name}: {run.state}. {verdict.headline}\n")
        if run.why_no_metrics:
            sys.stdout.write(f"{run.name} has no curves: {run.why_no_metrics}\n")
    sys.stdout.write(f"wrote {output}\n")
