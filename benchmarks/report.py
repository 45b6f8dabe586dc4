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
"""Writes the measured tables of docs/performance.md and docs/estimate.md from benchmarks/results, none by hand.

python benchmarks/report.py                        # rewrites the tables
python benchmarks/report.py --check                # fails if the page is out of date
"""

import argparse
import importlib
import json
import re
import sys
from pathlib import Path

import client
import discriminator
import driver
import estimate
import growth
import profile_update
import prompt_sharing
import sizes
import step
from common import RESULTS, table

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "performance.md"
COLUMNS = {
    "discriminator": discriminator.COLUMNS,
    "profile_update": profile_update.COLUMNS,
    "prompt_sharing": prompt_sharing.COLUMNS,
    "growth": growth.COLUMNS,
    "step": step.COLUMNS,
    "client": client.COLUMNS,
    "driver": driver.COLUMNS,
    # Its name is a word of Python.
    "async": importlib.import_module("async").COLUMNS,
    "estimate": estimate.COLUMNS,
}
ELSEWHERE = {"estimate": DOCS / "estimate.md", "gpu": DOCS / "gpu.md"}
# Of each file gpu_*.json: what it was measured by, up to the size of a model.
ON_A_GPU = {**COLUMNS, **sizes.COLUMNS}
NOTHING = "No results of a GPU are in the repository yet.\n"
PAGES = sorted({PAGE, *ELSEWHERE.values()})


def rendered(name: str) -> str:
    """Table and settings of one benchmark; of a GPU, those of all that were run there."""
    if name == "gpu":
        files = sorted(RESULTS.glob("gpu_*.json"))
        return "\n".join(of_file(file, ON_A_GPU[kind_of(file)]) for file in files) or NOTHING
    return of_file(RESULTS / f"{name}.json", COLUMNS[name])


def kind_of(file: Path) -> str:
    """The benchmark whose columns a file of a GPU has."""
    return max((kind for kind in ON_A_GPU if file.stem.startswith(f"gpu_{kind}")), key=len)


def of_file(file: Path, columns: dict[str, str]) -> str:
    """Table and settings of one file."""
    document = json.loads(file.read_text(encoding="utf-8"))
    settings = ", ".join(said(key, value) for key, value in document["settings"].items())
    return f"{table(document['rows'], columns)}\n`benchmarks/{script_of(file)}.py`: {settings}.\n"


def said(key: str, value: object) -> str:
    """A setting in words."""
    if not isinstance(value, dict):
        return f"{key} {value}"
    parts = [said(name, part).replace("_s ", " (s) ") for name, part in value.items()]
    return f"{key} ({', '.join(parts)})"


def script_of(file: Path) -> str:
    """What wrote a file."""
    if not file.stem.startswith("gpu_"):
        return file.stem
    return "sizes" if kind_of(file) in sizes.COLUMNS else kind_of(file)


def page(text: str, path: Path = PAGE) -> str:
    """A page with every table between its marks made anew.

    Raises:
        ValueError: If a mark is missing.
    """
    for name in (*COLUMNS, "gpu"):
        if ELSEWHERE.get(name, PAGE) != path:
            continue
        begin, end = f"<!-- BEGIN {name} -->\n", f"<!-- END {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{path} lacks the marks of {name}")
        text = re.sub(
            f"{re.escape(begin)}.*?{re.escape(end)}",
            lambda _, begin=begin, end=end, name=name: begin + rendered(name) + end,
            text,
            flags=re.DOTALL,
        )
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if a page is out of date")
    options = parser.parse_args()
    outdated = 0
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        wanted = page(text, path)
        if not options.check:
            path.write_text(wanted, encoding="utf-8")
        elif wanted != text:
            sys.stderr.write(f"{path} is out of date: python benchmarks/report.py\n")
            outdated = 1
    return outdated


if __name__ == "__main__":
    sys.exit(main())
