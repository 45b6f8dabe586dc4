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
"""The command that tries mutants, on a package of one file: what is made, what is caught, and that nothing is left."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from mutation_faults import Fault, read_faults, statements_between
from mutation_kinds import is_python, make_mutants
from mutation_session import Selection
from mutation_texts import Signatures, python_files

ROOT = Path(__file__).parents[2]

MODULE = '''\
"""A module."""

import logging
import math

logger = logging.getLogger(__name__)

__all__ = ["larger", "seldom"]
LIMIT = 3


def larger(left: int, right: int) -> int:
    """The larger of two numbers."""
    logger.info("%d and %d", left, right)
    if left > right:
        return left
    return right


def seldom(x: int) -> int:
    return x + LIMIT


def ended(n: int) -> int:
    while n < LIMIT:
        n = LIMIT
    return n


def never(x: int) -> int:
    return x
'''

TESTS = """\
import pytest
from tiny.numbers import ended, larger, seldom


@pytest.mark.parametrize("left, right", [(1, 2), (2, 1), (5, 5)])
def test_larger(left, right):
    assert larger(left, right) == max(left, right)


def test_seldom_is_tested_badly():
    assert seldom(0) is not None


def test_ended():
    assert ended(0) == 3


def test_fails_anyway():
    assert larger(1, 2) == 1
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A package with one module and its tests."""
    for name, text in {"tiny/__init__.py": "", "tiny/numbers.py": MODULE, "tests/test_numbers.py": TESTS}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command on the package in a folder."""
    command = [sys.executable, str(ROOT / "tests" / "mutation" / "run.py"), "--root", str(root), "--tests", "tests"]
    command += ["--output", str(root / "survivors.md"), *arguments]
    # The tests of the package need no plugin, and start faster without.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def results_of(root: Path) -> dict[str, str]:
    """Status of each mutant, by what its change looks like: line and new text."""
    mutants = make_mutants("tiny/numbers.py", MODULE, Signatures([root / "tiny" / "numbers.py"]))
    looks = {mutant.id: f"{mutant.line}: {mutant.new}" for mutant in mutants}
    lines = (root / "build" / "mutation" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return {looks[found["id"]]: found["status"] for found in map(json.loads, lines)}


def changes(text: str) -> set[tuple[str, str]]:
    """Kind and new line of each mutant of a text; each is Python."""
    text = textwrap.dedent(text)
    found = set()
    for mutant in make_mutants("m.py", text, Signatures([])):
        changed = mutant.apply(text)
        assert is_python(changed), changed
        assert changed != text
        assert len(mutant.id) == 16
        found.add((mutant.kind, changed.splitlines()[mutant.line - 1].strip()))
    return found


def test_the_command(tiny: Path) -> None:
    """Caught, survived, timed out and unreached mutants are told apart; a second run has nothing to try."""
    before = {file: file.read_bytes() for file in python_files(tiny, [Path(".")])}
    first = run(tiny, "tiny", "--timeout", "8")
    assert first.returncode == 0, first.stderr
    assert "left out, for it fails without any change: tests/test_numbers.py::test_fails_anyway" in first.stdout
    statuses = results_of(tiny)
    assert statuses["15: <="] == "caught"
    assert statuses["15: >="] == "survived"
    assert statuses["15: True"] == "caught"
    assert statuses["15: False"] == "caught"
    assert statuses["21: -"] == "survived"
    assert statuses["21: None"] == "caught"
    assert statuses["26: pass"] == "timeout"
    assert statuses["9: 4"] == "caught"
    assert statuses["31: None"] == "unreached"
    page = (tiny / "survivors.md").read_text(encoding="utf-8")
    assert "-    return x + LIMIT\n+    return x - LIMIT\n" in page
    assert str(tiny) not in page
    assert page.count("```diff") == sum(status in ("survived", "unreached") for status in statuses.values())
    assert {file: file.read_bytes() for file in python_files(tiny, [Path(".")])} == before
    second = run(tiny, "tiny")
    assert f"to try: 0, stored: {len(statuses)}" in second.stdout
    assert (tiny / "survivors.md").read_text(encoding="utf-8") == page
    # With another test the survivor is caught.
    test = tiny / "tests" / "test_numbers.py"
    test.write_text(TESTS.replace("seldom(0) is not None", "seldom(0) == 3"), encoding="utf-8")
    assert run(tiny, "--survivors", "tiny", "--files", "numb*.py").returncode == 0
    assert results_of(tiny)["21: -"] == "caught"


def test_faults(tiny: Path) -> None:
    """A list of faults: exit code 1 if one makes no test fail, 2 if it does not fit the file."""
    file = tiny / "faults.json"
    fault = {
        "name": "smaller",
        "file": "tiny/numbers.py",
        "old": "    if left > right:",
        "new": "    if left < right:",
        "meaning": "the smaller number is the larger one",
    }
    file.write_text(json.dumps([fault]), encoding="utf-8")
    found = run(tiny, "--faults", str(file))
    assert found.returncode == 0, found.stdout + found.stderr
    assert "1 of 1 faults make a test fail" in found.stdout
    assert "by tests/test_numbers.py::test_larger[" in found.stdout
    unnoticed = fault | {"name": "difference", "old": "x + LIMIT", "new": "x - LIMIT"}
    file.write_text(json.dumps([fault, unnoticed]), encoding="utf-8")
    found = run(tiny, "--faults", str(file))
    assert found.returncode == 1
    assert "1 of 2 faults make a test fail" in found.stdout
    file.write_text(json.dumps([fault | {"old": "return", "new": "yield"}]), encoding="utf-8")
    found = run(tiny, "--faults", str(file))
    assert found.returncode == 2
    assert "'smaller'" in found.stderr and "5 times in tiny/numbers.py" in found.stderr


def test_nothing_is_left_of_a_hanging_test(tiny: Path) -> None:
    """A test that starts a program in a session of its own and then hangs is ended with its program."""
    mark = f"mutation-test-{tiny.name}"
    test = f"""
        import subprocess, sys, time
        from tiny.numbers import seldom

        def test_hangs_when_wrong():
            if seldom(1) != 4:
                command = [sys.executable, "-c", "import time; time.sleep(600)", {mark!r}]
                subprocess.Popen(command, start_new_session=True)
                time.sleep(600)
    """
    (tiny / "tests" / "test_numbers.py").write_text(textwrap.dedent(test), encoding="utf-8")
    faults = [{"name": "f", "file": "tiny/numbers.py", "old": "x + LIMIT", "new": "x - LIMIT", "meaning": ""}]
    (tiny / "faults.json").write_text(json.dumps(faults), encoding="utf-8")
    found = run(tiny, "--faults", str(tiny / "faults.json"), "--timeout", "8")
    assert found.returncode == 1
    assert found.stdout.count("timeout ") == 1, found.stdout
    left = [
        process.info["pid"] for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or [])
    ]
    assert left == []


def test_files_that_change_meanwhile_end_the_run(tiny: Path) -> None:
    """Whoever edits during a run gets no results that mean nothing: here a test itself edits the package."""
    test = f"""
        from pathlib import Path
        from tiny.numbers import seldom

        def test_edits_when_wrong():
            if seldom(1) != 4:
                Path({str(tiny / "tiny" / "__init__.py")!r}).write_text("X = 1")
            assert seldom(1) == 4
    """
    (tiny / "tests" / "test_numbers.py").write_text(textwrap.dedent(test), encoding="utf-8")
    found = run(tiny, "tiny", "--files", "numbers.py", "--jobs", "1")
    assert found.returncode == 2
    assert "were changed while they were tried" in found.stderr
    statuses = results_of(tiny)
    assert "caught" not in statuses.values()


def test_what_is_changed() -> None:
    """One change of each kind."""
    found = changes(
        """
        def f(a, b=2, *, c=True):
            a = a + 1
            if a <= b and not c:
                self.x = max(a, b)
            elif a is not None:
                raise ValueError("no")
            else:
                g(a, b, key="k")
            for i in a:
                i.step()
                i.stop()
            return [x for x in sorted(a) if x % 2] if c else -a
        """
    )
    assert found >= {
        ("number", "def f(a, b=3, *, c=True):"),
        ("truth", "def f(a, b=2, *, c=False):"),
        ("statement", "pass"),
        ("arithmetic", "a = a - 1"),
        ("comparison", "if a < b and not c:"),
        ("comparison", "if a > b and not c:"),
        ("boolean", "if a <= b or not c:"),
        ("boolean", "if a <= b and (c):"),
        ("boolean", "if ((a <= b)):"),
        ("condition", "if True:"),
        ("branches", "if (not (a <= b and not c)):"),
        ("function", "self.x = min(a, b)"),
        ("comparison", "elif a is None:"),
        ("arguments", 'g(b, a, key="k")'),
        ("arguments", "g(a, b)"),
        ("string", "g(a, b, key='k_mutant')"),
        ("loop", "for i in ():"),
        ("return", "return None"),
        ("function", "return [x for x in list(a) if x % 2] if c else -a"),
        ("condition", "return [x for x in sorted(a) if True] if c else -a"),
        ("condition", "return [x for x in sorted(a) if x % 2] if False else -a"),
        ("arithmetic", "return [x for x in sorted(a) if x % 2] if c else (a)"),
    }


@pytest.mark.parametrize(
    "text",
    [
        '"""A docstring."""',
        '__all__ = ["a", "b"]',
        'def f(a: "int | None", b: Literal["x"]) -> "str": ...',
        "x: dict[str, Literal[1]]",
        'logger.info("%d rows", 1)',
        'self.log.warning(f"{1 + 1} rows", extra=True)',
        'x = logging.getLogger("name")',
        'x = "a sentence for people"',
        'x = f"a sentence for {people} who read"',
        'x = ValueError("no", 1)',
        'if TYPE_CHECKING:\n    x = cast("int", y)',
        'if __name__ == "__main__":\n    main(1)',
        "class A:\n    @abstractmethod\n    def f(self):\n        return 1",
        'T = TypeVar("T")',
        "y = z",
        "x = zip(a, strict=True)",
    ],
)
def test_what_is_not_changed(text: str) -> None:
    """Words for people, types and what never runs here have no mutants."""
    assert changes(text) == set()


@pytest.mark.parametrize("text", ['raise ValueError("no", x > 1)', 'assert x > 1, "no"', 'print("no", x > 1)'])
def test_only_as_a_whole(text: str) -> None:
    """What a failure says is not changed; whether it fails is."""
    assert changes(text) == {("statement", "pass")}


def test_arguments_that_have_defaults(tmp_path: Path) -> None:
    """Of the package's own functions and dataclasses, only what may be left out is left out."""
    file = tmp_path / "m.py"
    text = "def f(a, b=None, *, c, d=None):\n    pass\nclass D:\n    a: str\n    b: str = x\n"
    text += "y = f(p, q, c=r, d=s)\nz = D(a=t, b=u)\n"
    file.write_text(text, encoding="utf-8")
    mutants = make_mutants("m.py", text, Signatures([file]))
    left_out = {mutant.apply(text).splitlines()[mutant.line - 1] for mutant in mutants if mutant.new == ""}
    assert left_out == {"y = f(p, c=r, d=s)", "y = f(p, q, c=r)", "z = D(a=t)"}


def test_every_mutant_of_the_trainer_is_python() -> None:
    """Pieces are put in at the right places, whatever the formatting; an edit gives a file other mutants."""
    files = list(python_files(ROOT, [Path("gad_verl/trainer")]))
    signatures = Signatures(files)
    for file in files:
        text = file.read_text(encoding="utf-8")
        mutants = make_mutants("m.py", text, signatures)
        assert len({mutant.id for mutant in mutants}) == len(mutants)
        # Every seventh: enough of each kind, and a second's work.
        for mutant in mutants[::7]:
            assert is_python(mutant.apply(text)), mutant
        others = {mutant.id for mutant in make_mutants("m.py", text + "\n", signatures)}
        assert others.isdisjoint(mutant.id for mutant in mutants)


def test_the_statement_around_a_change() -> None:
    """A fault is tried with the tests that run the innermost statements around what differs."""
    text = "def f(x):\n    if x:\n        y = (\n            1\n        )\n    return y\n"
    assert statements_between(text, 4, 4) == (3,)
    assert statements_between(text, 2, 6) == (2, 3, 6)
    assert Fault("f", "m.py", "        )\n    return y", "        )\n    return 2", "").statements(text) == (6,)
    assert Fault("f", "m.py", "def f(x):\n    if x:", "def g(x):\n    if x:", "").statements(text) == (1,)


def test_the_faults_of_the_repository_fit_its_files() -> None:
    """Whoever changes a line that a fault replaces changes the fault: a list that fits nothing tests nothing."""
    assert len(read_faults(ROOT, ROOT / "tests" / "mutation" / "faults.json")) >= 9


def test_quick_tests_come_first_and_variants_last() -> None:
    """Whatever file they stand in: the first failure ends the run of a mutant."""
    seconds = {"a.py::slow": 3.0, "a.py::many[1]": 0.2, "b.py::quick": 0.5, "a.py::many[2]": 0.1}
    order = Selection(seconds).order()
    assert sorted(order, key=order.get) == ["a.py::many[2]", "b.py::quick", "a.py::slow", "a.py::many[1]"]
