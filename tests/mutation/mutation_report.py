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
"""Results of mutants: kept in a file as they come, counted, and the survivors written for a reader."""

import difflib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mutation_kinds import Mutant

CAUGHT, TIMEOUT, SURVIVED, UNREACHED = "caught", "timeout", "survived", "unreached"


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        id: The mutant's.
        tests: Hash of the tests: with other tests a mutant may fare otherwise.
        status: ``caught`` by a failed test; ``timeout``: the tests did not end, which is noticed too; ``survived``;
            ``unreached``: no test runs the line, so it survives without being tried.
        test: Which test noticed it.
        why: What that test said.
        seconds: How long it took.
    """

    id: str
    tests: str
    status: str
    test: str = ""
    why: str = ""
    seconds: float = 0.0

    @property
    def is_caught(self) -> bool:
        """Whether the tests noticed it."""
        return self.status in (CAUGHT, TIMEOUT)


class Results:
    """Results in a file of JSON lines: a run that was interrupted goes on from it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._results: dict[str, Result] = {}
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    result = Result(**json.loads(line))
                except (json.JSONDecodeError, TypeError):
                    # The last line of a run that was killed while it wrote.
                    continue
                self._results[result.id] = result

    def get(self, mutant: Mutant, tests: str | None) -> Result | None:
        """The stored result of a mutant with these tests; with any tests for None."""
        result = self._results.get(mutant.id)
        return result if result is not None and tests in (None, result.tests) else None

    def add(self, result: Result) -> None:
        """Store a result at once."""
        self._results[result.id] = result
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")


def table(results: dict[Mutant, Result]) -> list[list[str]]:
    """For each file and in all: mutants, caught, of these by time-out, survived, of these unreached, share caught."""
    rows = [["file", "mutants", "caught", "by time-out", "survived", "in no test", "caught %"]]
    files = sorted({mutant.file for mutant in results})
    for file in [*files, "all"]:
        of_file = [result for mutant, result in results.items() if file in ("all", mutant.file)]
        statuses = [result.status for result in of_file]
        caught = sum(result.is_caught for result in of_file)
        percent = f"{100 * caught / len(of_file):.0f}" if of_file else "-"
        numbers = [len(of_file), caught, statuses.count(TIMEOUT), len(of_file) - caught, statuses.count(UNREACHED)]
        rows.append([file, *(str(number) for number in numbers), percent])
    return rows


def as_text(rows: list[list[str]]) -> str:
    """A table for the terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _as_markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---|" + "---:|" * (len(rows[0]) - 1))
    return "\n".join(lines)


def difference(before: str, after: str) -> str:
    """A change as a unified difference with one line around it."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm="")
    return "\n".join(list(lines)[2:])


def survivors_page(results: dict[Mutant, Result], texts: dict[str, str], what: str) -> str:
    """Markdown that lists the mutants that no test noticed.

    Args:
        results: All results of a run.
        texts: Content of each file.
        what: What was run.
    """
    parts = [
        "# Mutants that no test noticed",
        f"Written by `make mutants` ({what}). What is changed and what is not: `mutation_kinds.py`.",
        _as_markdown(table(results)),
    ]
    survivors = sorted(
        (mutant for mutant, result in results.items() if not result.is_caught),
        key=lambda mutant: (mutant.file, mutant.start, mutant.end, mutant.new),
    )
    file = None
    for mutant in survivors:
        if mutant.file != file:
            file = mutant.file
            parts.append(f"## {file}")
        unreached = ", in no test" if results[mutant].status == UNREACHED else ""
        changed = difference(texts[file], mutant.apply(texts[file]))
        parts.append(f"Line {mutant.line}, {mutant.place}: {mutant.kind}{unreached}\n\n```diff\n{changed}\n```")
    return "\n\n".join(parts) + "\n"
