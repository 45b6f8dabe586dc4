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
"""evaluate with tools: verl's agent loop on the engines of the evaluation, trajectories side by side."""

import json
from pathlib import Path

import pandas as pd
import pytest
from tool_language import TOOLS_FILE, build_tool_folder, build_tool_rows, teach_calls

from gad_verl import cli
from gad_verl.tools.evaluation.responses import read_responses
from gad_verl.tools.evaluation.results import read_evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that has learned a few trajectories by heart, and these."""
    path = build_tool_folder(tmp_path_factory.mktemp("tools"))
    rows = build_tool_rows(4, seed=3, highest=3)
    teach_calls(path / "model", rows, steps=250, lr=5e-3, batch=8)
    pd.DataFrame(rows).to_parquet(path / "known.parquet")
    return path


def evaluate(folder: Path, output: Path, *more: str) -> int:
    paths = ["--model", str(folder / "model"), "--data", str(folder / "known.parquet"), "--output", str(output)]
    sizes = ["--engine", "hf", "--max-response-length", "200", "--two-sample-splits", "2"]
    tools = ["--tools", str(TOOLS_FILE), "--teacher-key", "teacher_messages"]
    return cli.main(["evaluate", *paths, *sizes, *tools, *more])


def test_trajectories_are_rolled_out_and_held_against_the_teachers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(folder, tmp_path / "out") == 0
    responses = read_responses(tmp_path / "out" / "responses.jsonl")
    assert len(responses) == 4
    right = [one for one in responses if one.turns == 2 and one.calls == 1 and one.invalid_calls == 0 and one.finished]
    # It knows them by heart: most are the teacher's, with the result of the tool that was really run.
    assert len(right) >= 2
    teachers = [json.loads(line)["teacher"] for line in (tmp_path / "out" / "prompts.jsonl").read_text().splitlines()]
    for one in right:
        assert "<tool_call>" in one.text and "<r>" in one.text
    assert any(one.text == teachers[one.prompt] for one in right)
    evaluation = read_evaluation(tmp_path / "out")
    assert evaluation.plain["turns"] > 1 and evaluation.plain["calls"] > 0.4
    report = capsys.readouterr().out
    assert "turns of a trajectory" in report and "tools=" not in report
    # The same command asks for nothing anew, and one with other limits is another evaluation.
    before = (tmp_path / "out" / "responses.jsonl").read_bytes()
    assert evaluate(folder, tmp_path / "out") == 0
    assert (tmp_path / "out" / "responses.jsonl").read_bytes() == before
    assert evaluate(folder, tmp_path / "out", "--max-turns", "1") == 2
    said = capsys.readouterr().err
    assert "holds responses of other settings" in said and "tools: {'format': 'hermes'" in said


def test_limits_of_turns_hold_on_both_sides(folder: Path, tmp_path: Path) -> None:
    assert evaluate(folder, tmp_path / "out", "--max-turns", "1") == 0
    responses = read_responses(tmp_path / "out" / "responses.jsonl")
    assert {one.turns for one in responses} == {1}
    assert not any(one.finished for one in responses if one.calls)
    teachers = [json.loads(line)["teacher"] for line in (tmp_path / "out" / "prompts.jsonl").read_text().splitlines()]
    assert not any("it is" in text for text in teachers)


def test_an_open_teacher_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder, tmp_path / "out", "--teacher-model", str(folder / "model")) == 2
    assert "--tools with --teacher-model" in capsys.readouterr().err
