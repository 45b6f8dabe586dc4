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
"""Which tests run which line: recorded once for each test file, kept for as long as nothing changes."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mutation_preload import modules_to_preload, preload
from mutation_process import Task, run_tasks
from mutation_session import SHARED, Selection, Suite, record

# A test file may take this long; one that hangs without any change is a fault of its own.
_LIMIT_S = 1800.0


def digest_of(files: Iterable[Path]) -> str:
    """Hash of the names and contents of files."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file} ".encode() + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:16]


@dataclass
class Coverage:
    """What was seen when the tests ran unchanged.

    Attributes:
        records: For each test file what ``mutation_session.record`` returned.
        failed: Tests that fail without any change: no mutant is tried with them.
        first: Targets that the forked processes have to load before the tests.
    """

    records: dict[str, dict[str, Any]]
    failed: list[str]
    first: list[str]

    def __post_init__(self) -> None:
        self._of_line: dict[tuple[str, int], set[str]] = {}
        self._seconds: dict[str, float] = {}
        broken = set(self.failed)
        for found in self.records.values():
            sound = {test: seconds for test, seconds in found["seconds"].items() if test not in broken}
            self._seconds.update(sound)
            for test, lines in found["lines"].items():
                # What runs while a file's modules are imported may matter to each of its tests.
                tests = set(sound) if test == SHARED else {test} & set(sound)
                for file, line in lines:
                    self._of_line.setdefault((file, line), set()).update(tests)
        self._known = frozenset(test for found in self.records.values() for test in found["seconds"])

    @property
    def tests(self) -> dict[str, float]:
        """All tests that pass unchanged, and the seconds they take."""
        return self._seconds

    def selection(self, file: str, lines: Iterable[int]) -> Selection:
        """The tests that run one of these statements."""
        tests: set[str] = set()
        for line in lines:
            tests |= self._of_line.get((file, line), set())
        return Selection({test: self._seconds[test] for test in sorted(tests)}, self._known)


def prepare(
    suite: Suite, targets: dict[str, Path], shared: list[Path], folder: Path, jobs: int, say: Callable[[str], None]
) -> Coverage:
    """Load the libraries into this process and record the lines of all test files.

    Args:
        suite: The tests.
        targets: Modules that will be changed, and their files.
        shared: Files that every record depends on: the package, and what all tests share.
        folder: Where records are kept.
        jobs: Processes at a time.
        say: Gets a line of progress.
    """
    folder.mkdir(parents=True, exist_ok=True)
    of_targets = hashlib.sha256(" ".join(sorted(targets)).encode()).hexdigest()[:8]
    base = f"{digest_of([*shared, *targets.values()])}-{of_targets}"
    kept = {name: folder / f"{digest_of([suite.root / name])}-{base}.json" for name in suite.files}
    records = {name: _read(file) for name, file in kept.items() if file.exists()}
    missing = [name for name in suite.files if name not in records]

    list_file = folder / f"preload-{of_targets}.json"
    modules: list[str] = _read(list_file) if list_file.exists() else []
    if not modules:
        say("looking for what the tests import ...")
        found = _what_is_imported(suite, targets)
        modules = modules_to_preload(found["modules"], [tuple(pair) for pair in found["imports"]], set(targets))
        list_file.write_text(json.dumps(modules), encoding="utf-8")
    modules_of_others = [name for found in records.values() for name in found["modules"]]
    first = preload(list(dict.fromkeys([*modules, *modules_of_others])), set(targets), folder / "preload.log")

    say(f"{len(missing)} of {len(suite.files)} test files have to be run without a change ...")
    tasks = [Task(name, partial(record, replace(suite, files=(name,)), targets, False), _LIMIT_S) for name in missing]
    more: set[str] = set()
    for task, outcome in run_tasks(tasks, jobs):
        if outcome.value is None:
            reason = "took too long" if outcome.timed_out else f"ended its process ({outcome.error or 'by itself'})"
            raise RuntimeError(f"{task.key} {reason} without any change; run it with pytest")
        pairs = [tuple(pair) for pair in outcome.value.pop("imports")]
        outcome.value["modules"] = modules_to_preload(outcome.value["modules"], pairs, set(targets))
        more.update(outcome.value["modules"])
        records[task.key] = outcome.value
        kept[task.key].write_text(json.dumps(outcome.value), encoding="utf-8")
    if more:
        # What tests import while they run is known only now.
        names = list(dict.fromkeys(name for found in records.values() for name in found["modules"]))
        first += [name for name in preload(names, set(targets), folder / "preload.log") if name not in first]
        list_file.write_text(json.dumps(names), encoding="utf-8")
    failed = sorted(test for found in records.values() for test in found["failed"])
    return Coverage(records, failed, first)


def _what_is_imported(suite: Suite, targets: dict[str, Path]) -> dict[str, Any]:
    for _, outcome in run_tasks([Task("all", partial(record, suite, targets, True), _LIMIT_S)], jobs=1):
        if outcome.value is not None:
            return outcome.value
    raise RuntimeError(f"pytest could not read {', '.join(suite.files)}; run `pytest --collect-only` on them")


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
