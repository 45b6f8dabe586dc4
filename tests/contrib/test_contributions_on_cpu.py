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
"""Each change of contrib/verl applies to the release, and its test fails without and passes with it.

A checkout of verl is simulated: a copy of the installed package with the tests beside it. The installed package is read
only.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest
import verl

ROOT = Path(__file__).resolve().parents[2]
CONTRIBUTIONS = sorted(path for path in (ROOT / "contrib" / "verl").iterdir() if path.is_dir())
INSTALLED = Path(verl.__file__).parent
# What upstream's check of titles takes (tests/special_sanity/check_pr_title.py of verl).
MODULES = set(
    "fsdp megatron veomni sglang vllm trtllm rollout trainer tests training_utils recipe hardware deployment ray "
    "worker single_controller misc docker ci perf model algo env tool ckpt doc data cfg reward fully_async "
    "one_step_off".split()
)
SECTIONS = (
    "What does this PR do?",
    "Checklist Before Starting",
    "Test",
    "API and Usage Example",
    "Design & Code Changes",
    "Checklist Before Submitting",
)
by_name = pytest.mark.parametrize("folder", CONTRIBUTIONS, ids=lambda folder: folder.name)


def files_of(diff: str) -> set[str]:
    return set(re.findall(r"^diff --git a/\S+ b/(\S+)$", diff, flags=re.MULTILINE))


def apply(diff: Path, checkout: Path) -> None:
    """Strictly: no fuzz, no offset of a hunk that is not the release's."""
    done = subprocess.run(["git", "apply", str(diff)], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def make_checkout(folder: Path) -> Path:
    # Modification times are kept, so that compiled files stay valid: importing verl is what these tests cost.
    shutil.copytree(INSTALLED, folder / "verl")
    return folder


def run_tests(checkout: Path, tests: list[Path]) -> dict[str, list[str]]:
    """Outcomes of the tests of each file, with the package of the checkout and no plugin."""
    report = checkout / "report.xml"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VERL_", "PYTEST_"))}
    environment |= {"PYTHONPATH": str(checkout), "VERL_USE_EXTERNAL_PLUGINS": "none", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["-o", "junit_family=xunit1", *map(str, tests)]
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    outcomes = defaultdict(list)
    for case in ElementTree.parse(report).iter("testcase"):
        bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        outcomes[Path(case.attrib["file"]).name].append(bad[0] if bad else "passed")
    return outcomes


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Outcomes of all tests on the release as it is, in one process."""
    checkout = make_checkout(tmp_path_factory.mktemp("without"))
    tests = [test for folder in CONTRIBUTIONS for test in copy_tests(folder, checkout)]
    return run_tests(checkout, tests)


def copy_tests(folder: Path, checkout: Path) -> list[Path]:
    shutil.copytree(folder / "tests", checkout / "tests", dirs_exist_ok=True)
    return [checkout / path.relative_to(folder) for path in sorted((folder / "tests").rglob("test_*.py"))]


@pytest.fixture(scope="module")
def with_all(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Outcomes of all tests with all changes, in one process: importing verl is what a test costs."""
    checkout = make_checkout(tmp_path_factory.mktemp("with"))
    for folder in CONTRIBUTIONS:
        apply(folder / "change.diff", checkout)
    return run_tests(checkout, [test for folder in CONTRIBUTIONS for test in copy_tests(folder, checkout)])


def test_there_is_what_was_promised() -> None:
    names = {folder.name for folder in CONTRIBUTIONS}
    assert names >= {"logger_flush", "lora_fsdp1", "value_head", "poll_interval", "plugin_failures", "cpu_platform"}
    assert "vl_visual_output" in names
    # The release that the diffs are of.
    assert version("verl") == "0.9.1"


@by_name
def test_fails_without_and_passes_with_the_changes(
    folder: Path, without: dict[str, list[str]], with_all: dict[str, list[str]]
) -> None:
    tests = sorted((folder / "tests").rglob("test_*.py"))
    assert tests
    for test in tests:
        assert set(with_all[test.name]) == {"passed"}, f"{test.name}: {with_all[test.name]}"
        assert {"failure", "error"} & set(without[test.name]), f"{test.name} passes on the release"


@pytest.mark.slow
@by_name
def test_passes_with_its_own_change_alone(folder: Path, tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path)
    apply(folder / "change.diff", checkout)
    tests = copy_tests(folder, checkout)
    outcomes = run_tests(checkout, tests)
    assert outcomes.keys() == {test.name for test in tests}
    assert all(set(found) == {"passed"} for found in outcomes.values()), outcomes


@by_name
def test_diff_applies_to_the_release_alone(folder: Path, tmp_path: Path) -> None:
    diff = folder / "change.diff"
    for name in files_of(diff.read_text(encoding="utf-8")):
        source = INSTALLED.parent / name
        if source.exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tmp_path / name)
    apply(diff, tmp_path)


@by_name
def test_diff_holds_the_package_alone_and_little_context(folder: Path) -> None:
    diff = (folder / "change.diff").read_text(encoding="utf-8")
    names = files_of(diff)
    assert names and all(name.startswith("verl/") for name in names)
    for hunk in re.split(r"^@@ .*$", diff, flags=re.MULTILINE)[1:]:
        lines = hunk.split("\ndiff --git ")[0].splitlines()[1:]
        # No more of verl than a diff needs: three lines before and after, six between two changes.
        for context in re.findall(r"(?:^ .*\n?)+", "\n".join(lines), flags=re.MULTILINE):
            assert context.count("\n") + (not context.endswith("\n")) <= 6


@by_name
def test_new_files_have_the_licence_that_upstream_checks(folder: Path) -> None:
    owner = "Copyright 2025 Individual Contributor: The gad_verl Authors"
    for test in (folder / "tests").rglob("*.py"):
        assert test.name.startswith("test_") and test.name.endswith("_on_cpu.py")
        assert owner in test.read_text(encoding="utf-8")
    diff = (folder / "change.diff").read_text(encoding="utf-8")
    for part in diff.split("diff --git ")[1:]:
        if "new file mode" in part and ".py" in part.splitlines()[0]:
            assert owner in part


@by_name
def test_request_has_the_form_of_upstream(folder: Path) -> None:
    title, *body = (folder / "request.md").read_text(encoding="utf-8").splitlines()
    match = re.fullmatch(r"# (?:\[BREAKING\])?\[([a-z_, ]+)\] (feat|fix|refactor|chore|test): (.+)", title)
    assert match is not None, title
    assert {module.strip() for module in match[1].split(",")} <= MODULES
    headings = [line.removeprefix("### ") for line in body if line.startswith("### ")]
    assert headings == list(SECTIONS)
    text = "\n".join(body)
    assert "AI assistance was used" in text
    # Every test file is named with how it is run, and what it said is told.
    for test in (folder / "tests").rglob("test_*.py"):
        assert f"pytest {test.relative_to(folder)}" in text
    assert re.search(r"^\d+ passed\. Without the change: \d+ failed", text, flags=re.MULTILINE)
    assert "{" not in re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL), "a place that was not filled in"


def told(outcomes: list[str]) -> str:
    """As pytest's last line has it."""
    names = {"failure": "failed", "passed": "passed", "error": "error"}
    counts = [(outcomes.count(outcome), name) for outcome, name in names.items() if outcome in outcomes]
    return ", ".join(f"{count} {name}{'s' if name == 'error' and count > 1 else ''}" for count, name in counts)


@by_name
def test_request_tells_what_the_runs_said(
    folder: Path, without: dict[str, list[str]], with_all: dict[str, list[str]]
) -> None:
    text = (folder / "request.md").read_text(encoding="utf-8")
    (test,) = (folder / "tests").rglob("test_*.py")
    assert f"\n{told(with_all[test.name])}. Without the change: {told(without[test.name])}.\n" in text
