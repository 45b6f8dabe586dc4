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
"""Writes the tables and figures of docs/studies.md from the rows in results/: no figure is typed by hand.

    python examples/studies/make_docs.py            # rewrites tables and figures
    python examples/studies/make_docs.py --check    # fails if the page is out of date

A study takes part by itself: a module NAME.py beside this file with rows in results/NAME.jsonl and
``tables(rows) -> list of Markdown texts``. The i-th of them stands on the page between ``<!-- BEGIN NAME i -->`` and
``<!-- END NAME i -->``. With ``figure(rows) -> matplotlib figure`` there is docs/figures/NAME.svg too.
"""

import argparse
import importlib
import logging
import re
import sys
from pathlib import Path
from types import ModuleType

from study_common import RESULTS, STUDIES, Row, Rows, rows_digest, save_figure

PAGE = STUDIES.parents[1] / "docs" / "studies.md"
FIGURES = PAGE.parent / "figures"


def studies() -> dict[str, tuple[ModuleType, list[Row]]]:
    """Module and rows of every study that has rows."""
    found = {}
    for path in sorted(RESULTS.glob("*.jsonl")):
        if (STUDIES / f"{path.stem}.py").is_file():
            found[path.stem] = (importlib.import_module(path.stem), Rows(path).all())
    return found


def page(text: str) -> str:
    """The page with every table between its marks made anew.

    Raises:
        ValueError: If a mark is missing, or stands for no table.
    """
    made = {
        f"{name} {number}": block
        for name, (module, rows) in studies().items()
        for number, block in enumerate(module.tables(rows), start=1)
    }
    marked = re.findall(r"<!-- BEGIN (\S+ \d+) -->", text)
    # A study that has no row yet keeps what stands between its marks.
    marked = [mark for mark in marked if (RESULTS / f"{mark.split()[0]}.jsonl").is_file() or mark in made]
    if sorted(marked) != sorted(made):
        missing, unknown = sorted(set(made) - set(marked)), sorted(set(marked) - set(made))
        raise ValueError(f"{PAGE}: tables without marks: {missing}; marks without a table, or twice: {unknown}")
    for name, block in made.items():
        begin, end = f"<!-- BEGIN {name} -->\n", f"<!-- END {name} -->"
        if end not in text:
            raise ValueError(f"{PAGE} lacks {end}")
        text = re.sub(
            f"{re.escape(begin)}.*?{re.escape(end)}",
            lambda _, begin=begin, end=end, block=block: f"{begin}\n{block}\n{end}",
            text,
            flags=re.DOTALL,
        )
    return text


def stale_figures() -> list[str]:
    """Studies whose figure was not made from their rows."""
    stale = []
    for name, (module, rows) in studies().items():
        path = FIGURES / f"{name}.svg"
        if hasattr(module, "figure") and not (path.is_file() and rows_digest(rows) in path.read_text(encoding="utf-8")):
            stale.append(name)
    return stale


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if the page is out of date")
    options = parser.parse_args()
    # The guardian is asked about every recorded run, and would log each of its events.
    logging.disable(logging.WARNING)
    text = PAGE.read_text(encoding="utf-8")
    wanted = page(text)
    if options.check:
        stale = stale_figures()
        if wanted != text or stale:
            what = ", ".join([*(["tables"] if wanted != text else []), *(f"figure of {name}" for name in stale)])
            sys.stderr.write(f"{PAGE} is out of date ({what}): python {Path(__file__).name}\n")
            return 1
        return 0
    PAGE.write_text(wanted, encoding="utf-8")
    for name in stale_figures():
        module, rows = studies()[name]
        save_figure(module.figure(rows), FIGURES / f"{name}.svg", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
