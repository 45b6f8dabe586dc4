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
"""The evaluation sweep: which commands it gives, that they are the command line's, and that it goes on after a stop."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_commands import FakeCommands

from gad_verl.cli import build_parser

SWEEP = Path(__file__).resolve().parents[2] / "recipes" / "gad" / "evaluate_sweep.sh"

# Writes what the real commands leave behind; FAIL names an output folder whose evaluation fails, as often as it is run.
GAD_VERL = """
from pathlib import Path
arguments = sys.argv[1:]
output = Path(arguments[arguments.index("--output") + 1])
if arguments[0] == "evaluate" and os.environ.get("FAIL") == f"{output.parent.name}/{output.name}":
    sys.exit(2)
output.mkdir(parents=True, exist_ok=True)
if arguments[0] == "export":
    (output / "config.json").write_text("{}")
"""


@pytest.fixture
def fakes(tmp_path: Path) -> FakeCommands:
    commands = FakeCommands(tmp_path / "fakes")
    commands.add("gad-verl", GAD_VERL)
    return commands


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A base model, a run with three checkpoints and a fourth that is being written, and two test sets."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}", encoding="utf-8")
    for step in (5, 10, 20, 40):
        folder = tmp_path / "run" / f"global_step_{step}"
        (folder / "actor").mkdir(parents=True)
        if step < 40:
            (folder / "gad_complete").touch()
    for name in ("one", "two"):
        (tmp_path / f"{name}.parquet").touch()
    return tmp_path


@pytest.fixture
def sweep(fakes: FakeCommands, folders: Path) -> Callable[..., subprocess.CompletedProcess]:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        defaults = {
            "MODELS": f"base={folders / 'base'}",
            "RUNS": f"gad={folders / 'run'}",
            "TESTS": f"one={folders / 'one.parquet'} two={folders / 'two.parquet'}",
            "OUTPUT": str(folders / "out"),
        }
        return subprocess.run(
            ["bash", str(SWEEP), *arguments],
            env=fakes.environment(defaults | variables),
            cwd=folders,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def parsed(fakes: FakeCommands) -> list:
    """All calls, read by the real command line."""
    parser = build_parser()
    return [(call["arguments"][0], parser.parse_args(call["arguments"])) for call in fakes.calls()]


def evaluated(fakes: FakeCommands) -> list[str]:
    """Outputs of the evaluations, as test set / model."""
    return [f"{a.output.parent.name}/{a.output.name}" for command, a in parsed(fakes) if command == "evaluate"]


ALL = [f"{test}/{name}" for name in ("base", "gad-step_5", "gad-step_10", "gad-step_20") for test in ("one", "two")]


def test_every_complete_checkpoint_is_evaluated_on_every_test_set(sweep, fakes, folders):
    done = sweep()
    assert done.returncode == 0, done.stderr
    assert evaluated(fakes) == ALL
    calls = parsed(fakes)
    exports = [arguments for command, arguments in calls if command == "export"]
    assert [arguments.checkpoint.name for arguments in exports] == [f"global_step_{step}" for step in (5, 10, 20)]
    assert all(arguments.part == "student" and arguments.dtype == "bfloat16" for arguments in exports)
    for command, arguments in calls:
        if command == "evaluate":
            # The paper's protocol.
            assert (arguments.temperature, arguments.samples, arguments.max_response_length) == (0, 1, 1536)
            assert arguments.prompt_key == "content" and arguments.judge_base_url is None
            of_base = arguments.output.name == "base"
            assert arguments.model == (folders / "base" if of_base else folders / "out/exports" / arguments.output.name)
    compared = [arguments for command, arguments in calls if command == "compare"]
    assert [arguments.output for arguments in compared] == [
        folders / "out/comparison" / name for name in ("one", "two")
    ]
    # The order is that of the names: differences are to the baseline.
    assert [f"one/{folder.name}" for folder in compared[0].folders] == [name for name in ALL if name.startswith("one")]
    # Exports are the largest part of the disk, and made again in minutes.
    assert not list((folders / "out" / "exports").iterdir())


def test_what_is_done_is_not_done_again(sweep, fakes):
    assert sweep().returncode == 0
    before = len(fakes.calls())
    assert sweep().returncode == 0
    assert [call["arguments"][0] for call in fakes.calls()[before:]] == ["compare", "compare"]
    # Other options are another evaluation.
    assert sweep("--limit", "3").returncode == 0
    assert evaluated(fakes) == ALL + ALL


def test_a_checkpoint_that_was_trained_anew_is_evaluated_again(sweep, fakes, folders):
    import os

    assert sweep().returncode == 0
    os.utime(folders / "run" / "global_step_10", (1, 1))
    assert sweep().returncode == 0
    assert evaluated(fakes)[len(ALL) :] == ["one/gad-step_10", "two/gad-step_10"]


def test_one_failure_leaves_the_others_and_is_tried_again(sweep, fakes):
    done = sweep(FAIL="one/gad-step_10")
    assert done.returncode == 1 and "failed: gad-step_10 on one" in done.stderr
    assert evaluated(fakes) == ALL
    (_, first), _ = [(command, arguments) for command, arguments in parsed(fakes) if command == "compare"]
    assert [folder.name for folder in first.folders] == ["base", "gad-step_5", "gad-step_20"]
    assert sweep().returncode == 0
    assert evaluated(fakes)[len(ALL) :] == ["one/gad-step_10"]


def test_a_judge_has_one_store_for_each_test_set(sweep, fakes, folders):
    done = sweep(JUDGE_BASE_URL="http://127.0.0.1:1/v1", JUDGE_MODEL="judge", AGAINST="teacher base=x", STEPS="5 20")
    assert done.returncode == 0, done.stderr
    evaluations = [arguments for command, arguments in parsed(fakes) if command == "evaluate"]
    assert len(evaluations) == 6
    for arguments in evaluations:
        assert arguments.judge_store == arguments.output.parent / "judge.sqlite"
        assert (arguments.judge_model, arguments.against) == ("judge", ["teacher", "base=x"])


@pytest.mark.parametrize(
    ("variables", "steps"),
    [({"EVERY": "10"}, [10, 20]), ({"STEPS": "5"}, [5]), ({"EVERY": "20", "STEPS": "5 10 20"}, [20])],
)
def test_checkpoints_can_be_chosen(sweep, fakes, folders, variables, steps):
    # What somebody has set aside is no checkpoint of the run.
    (folders / "run" / "global_step_20_before").mkdir()
    assert sweep(**variables).returncode == 0
    found = [name.split("/")[1] for name in evaluated(fakes) if name.startswith("one")]
    assert found == ["base", *(f"gad-step_{step}" for step in steps)]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RUNS": "gad=nowhere"}, "nowhere: no such folder"),
        ({"MODELS": "/models/base"}, "/models/base: NAME=PATH is wanted"),
        ({"MODELS": "base=Qwen/Qwen2.5-7B"}, "Qwen/Qwen2.5-7B: no such folder (MODELS)"),
        ({"TESTS": "one=one.parquet two=nowhere.parquet"}, "nowhere.parquet: no such file (TESTS)"),
        ({"MODELS": "", "RUNS": ""}, "nothing to evaluate"),
    ],
)
def test_mistakes_are_named_before_anything_runs(sweep, fakes, variables, expected):
    done = sweep(**variables)
    assert done.returncode == 2 and expected in done.stderr and fakes.calls() == []
