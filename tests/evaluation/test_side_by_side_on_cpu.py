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
"""Figures and answers of several evaluations on the page of a run."""

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from tiny_model import build_model, build_rows

from gad_verl import cli
from gad_verl.tools.evaluation.responses import read_responses
from gad_verl.tools.evaluation.rows import load_rows
from gad_verl.tools.evaluation.side_by_side import side_by_side

STUDENTS, PROMPTS = ("before", "after"), 5


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluations")
    pd.DataFrame(build_rows(PROMPTS, seed=3)).to_parquet(folder / "val.parquet")
    for seed, name in enumerate(STUDENTS):
        model = build_model(folder / f"model_{name}", seed=seed, hidden=32, layers=1)
        paths = ["--model", str(model), "--data", str(folder / "val.parquet"), "--output", str(folder / name)]
        sampled = ["--engine", "hf", "--max-response-length", "8", "--temperature", "1", "--two-sample-splits", "1"]
        assert cli.main(["evaluate", *paths, *sampled]) == 0
    return folder


def test_answers_are_those_of_the_prompt_and_the_writer(evaluations: Path) -> None:
    answers = side_by_side([evaluations / name for name in STUDENTS], prompts=3)
    rows = {row.question: row for row in load_rows(evaluations / "val.parquet")}
    responses = {
        name: {r.prompt_id: r for r in read_responses(evaluations / name / "responses.jsonl")} for name in STUDENTS
    }
    assert len(answers.asked) == 3 and len({asked.prompt for asked in answers.asked}) == 3
    for asked in answers.asked:
        row = rows[asked.prompt]
        assert [(answer.writer, answer.text) for answer in asked.answers] == [
            ("teacher", row.teacher),
            *((name, responses[name][row.prompt_id].text) for name in STUDENTS),
        ]
        assert [answer.cut for answer in asked.answers[1:]] == [
            not responses[name][row.prompt_id].finished for name in STUDENTS
        ]
    figures, paired = answers.tables
    assert [name for name, _ in figures.rows] == list(STUDENTS) and [name for name, _ in paired.rows] == ["after"]
    assert all(len(cells) == len(table.columns) for table in answers.tables for _, cells in table.rows)


def test_the_page_shows_them(evaluations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps({"step": n, "data": {"disc/accuracy": 0.7}}) + "\n" for n in range(1, 4)))
    folders = [str(evaluations / name) for name in STUDENTS]
    page = tmp_path / "page.html"
    assert cli.main(["report", str(metrics), "--output", str(page), "--evaluations", *folders]) == 0
    section = re.search(r'<section id="answers".*?</section>', page.read_text(encoding="utf-8"), re.DOTALL)[0]
    # What a model wrote stays text.
    shown = [unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", section, re.DOTALL)]
    for asked in side_by_side(folders).asked:
        assert asked.prompt in shown
        for answer in asked.answers:
            assert any(text.startswith(answer.text) for text in shown), answer
    assert "length ratio" in section and "Paired differences to before" in section


def test_the_teachers_texts_are_those_of_the_first_folder(evaluations: Path, copied: Callable[[str], Path]) -> None:
    first, other = evaluations / "before", copied("after")
    lines = [json.loads(line) for line in (other / "prompts.jsonl").read_text().splitlines()]
    for line in lines:
        line["teacher"] = f"another {line['prompt']}"
    (other / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = {row.question: row.teacher for row in load_rows(evaluations / "val.parquet")}
    for folders, expected in (([first, other], own), ([other, first], None)):
        answers = side_by_side(folders)
        for asked in answers.asked:
            text = asked.answers[0].text
            assert text == expected[asked.prompt] if expected else text.startswith("another ")
        assert f"The teacher's texts differ in {PROMPTS} of {PROMPTS} prompts" in " ".join(answers.notes)


def test_folders_of_an_older_package_show_figures_alone(evaluations: Path, copied: Callable[[str], Path]) -> None:
    folders = [copied(name) for name in STUDENTS]
    for folder in folders:
        lines = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
        for line in lines:
            del line["question"], line["teacher"]
        (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    answers = side_by_side(folders)
    assert answers.asked == [] and answers.tables == side_by_side([evaluations / name for name in STUDENTS]).tables


@pytest.fixture
def copied(evaluations: Path, tmp_path: Path) -> Callable[[str], Path]:
    import shutil

    return lambda name: shutil.copytree(evaluations / name, tmp_path / name)
