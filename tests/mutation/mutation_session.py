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
"""pytest in a forked process: once to see which test runs which line, then with one file changed."""

import builtins
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mutation_loader import Replaced, being_loaded, with_hits

# Lines that run while modules are imported, or in fixtures that several tests share.
SHARED = ""


@dataclass(frozen=True)
class Suite:
    """The tests that there are.

    Attributes:
        files: Test files, from the root.
        marker: pytest's ``-m``.
        root: Folder that holds package and tests.
    """

    files: tuple[str, ...]
    marker: str
    root: Path


@dataclass
class Selection:
    """Suite that can notice a change.

    Attributes:
        tests: Their ids, and the seconds each took unchanged.
        known: The ids of all tests there are: others appear where a change renames parameters, and are run too.
    """

    tests: dict[str, float] = field(default_factory=dict)
    known: frozenset[str] = frozenset()

    @property
    def seconds(self) -> float:
        """How long all of them took."""
        return sum(self.tests.values())

    @property
    def files(self) -> list[str]:
        """The files they stand in."""
        return sorted({test.partition("::")[0] for test in self.tests})

    def order(self) -> dict[str, int]:
        """Place of each test: quick ones first; variants of one function last, for they mostly notice the same."""
        by_seconds = sorted(self.tests, key=lambda test: (self.tests[test], test))
        functions: set[str] = set()
        first, more = [], []
        for test in by_seconds:
            function = test.partition("[")[0]
            (more if function in functions else first).append(test)
            functions.add(function)
        return {test: place for place, test in enumerate([*first, *more])}


def _pytest(suite: Suite, folder: Path, files: list[str], plugin: Any, *more: str) -> int:
    # What is compiled here (test files above all) is compiled once for all processes, and leaves nothing in the tree.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(suite.root / "build" / "mutation" / "pycache")
    arguments = ["-q", "--tb=native", "-p", "no:cacheprovider", "-p", "no:faulthandler", f"--basetemp={folder / 'tmp'}"]
    if suite.marker:
        arguments += ["-m", suite.marker]
    return int(pytest.main([*arguments, *more, *files], plugins=[plugin]))


class _Plugin:
    """What both runs have in common."""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """Hypothesis draws the same examples each time, writes none to disk and does not look for small ones."""
        if "hypothesis" in sys.modules:
            from hypothesis import Phase, settings

            phases = (Phase.explicit, Phase.generate)
            settings.register_profile("mutation", derandomize=True, database=None, deadline=None, phases=phases)
            settings.load_profile("mutation")


class _Recording(_Plugin):
    """Notes for each test the lines it runs, how long it takes and whether it passes."""

    def __init__(self) -> None:
        self.lines: dict[str, set[tuple[str, int]]] = {SHARED: set()}
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self._context = SHARED

    def hit(self, file: str) -> Callable[[int], None]:
        """What a line of a file calls."""
        return lambda line: self.lines[self._context].add((file, line))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._context = item.nodeid
        self.lines.setdefault(item.nodeid, set())
        begin = time.monotonic()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.monotonic() - begin
            self._context = SHARED

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        before = self._context
        if fixturedef.scope != "function":
            self._context = SHARED
        try:
            return (yield)
        finally:
            self._context = before

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def record(suite: Suite, targets: dict[str, Path], only_collect: bool, folder: Path) -> dict[str, Any]:
    """Run tests on the unchanged files.

    Args:
        suite: The tests.
        targets: Module names and files whose lines are watched.
        only_collect: Import the test files and run nothing.
        folder: Empty folder for the tests' files.

    Returns:
        ``lines``: for each test ``[file, line]`` of the statements it runs; ``seconds`` of each test; ``failed`` ones;
        ``modules`` that were loaded, in order; ``imports``: pairs of modules of which
        the first loads the second.
    """
    recording = _Recording()
    replaced = Replaced()
    for name, file in targets.items():
        relative = file.relative_to(suite.root).as_posix()
        replaced.add(name, file, *with_hits(file.read_text(encoding="utf-8"), file, recording.hit(relative)))
    replaced.install()
    imports = _watch_imports(set(targets))
    more = ["--collect-only"] if only_collect else []
    _pytest(suite, folder, list(suite.files), recording, *more)
    return {
        "lines": {test: sorted(lines) for test, lines in recording.lines.items()},
        "seconds": recording.seconds,
        "failed": recording.failed,
        "modules": [name for name, module in list(sys.modules.items()) if _is_library(module, suite)],
        "imports": sorted(imports | replaced.wanted_by),
    }


def _is_library(module: Any, suite: Suite) -> bool:
    """Whether a module is none of the tests' own: pytest rewrites those when it imports them."""
    file = getattr(module, "__file__", None)
    folders = [suite.root / Path(name).parts[0] for name in suite.files]
    return file is not None and not any(Path(file).is_relative_to(folder) for folder in folders)


def _watch_imports(targets: set[str]) -> set[tuple[str, str]]:
    """Note which module imports which while it is loaded; what its functions import later does not count.

    A target may be imported by a function that an import hook calls: it counts for all that is being loaded.
    """
    pairs: set[tuple[str, str]] = set()
    original = builtins.__import__

    def watched(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        found = original(name, globals, locals, fromlist, level)
        # Without names to take, import gives the topmost package.
        imported = getattr(found, "__name__", name) if fromlist else name
        if imported in targets:
            pairs.update((module, imported) for module in being_loaded())
        if globals and sys._getframe(1).f_code.co_name == "<module>":
            importer = globals.get("__name__", "")
            pairs.add((importer, imported))
            pairs.update((importer, f"{imported}.{part}") for part in fromlist or ())
        return found

    builtins.__import__ = watched
    return pairs


class _Selecting(_Plugin):
    """Runs the chosen tests, quick ones first, and notes the first failure."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self.failure: dict[str, str] | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        order = self._selection.order()
        kept, others = [], []
        for item in items:
            wanted = item.nodeid in order or item.nodeid not in self._selection.known
            (kept if wanted else others).append(item)
        kept.sort(key=lambda item: order.get(item.nodeid, -1))
        config.hook.pytest_deselected(items=others)
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: Any) -> None:
        if report.failed and self.failure is None:
            crash = getattr(report.longrepr, "reprcrash", None)
            words = crash.message if crash is not None else str(report.longrepr)
            self.failure = {"test": report.nodeid, "why": words.strip().splitlines()[0][:300] if words else ""}


def run_changed(
    suite: Suite,
    changed: tuple[str, Path, str],
    selection: Selection,
    first: list[str],
    folder: Path,
) -> dict[str, Any]:
    """Run the chosen tests with one file changed, up to the first failure.

    Args:
        suite: The tests.
        changed: Module name, file and new text of the changed file.
        selection: Which tests to run.
        first: Modules that a plugin would have loaded by now, had they not been kept out.
        folder: Empty folder for the tests' files.

    Returns:
        ``caught``: whether a test failed; ``test`` and ``why``: the first that did.
    """
    name, file, text = changed
    replaced = Replaced()
    replaced.add(name, file, compile(text, str(file), "exec", dont_inherit=True))
    replaced.install()
    for module in first:
        try:
            importlib.import_module(module)
        except Exception:  # the tests that need it will say so
            continue
    selecting = _Selecting(selection)
    try:
        code = _pytest(suite, folder, selection.files, selecting, "-x")
    except BaseException as error:  # SystemExit and KeyboardInterrupt of a mutant too
        return {"caught": True, "test": "pytest", "why": repr(error)[:300]}
    if selecting.failure is not None:
        return {"caught": True, **selecting.failure}
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return {"caught": True, "test": "pytest", "why": f"pytest ended with {pytest.ExitCode(code).name}"}
    return {"caught": False}
