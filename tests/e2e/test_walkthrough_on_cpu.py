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
"""docs/walkthrough.md: its commands, run as they stand, lead from a list of prompts to a proposal."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from doc_blocks import bash_blocks, run_bash
from fault_server import FaultServer, Received
from scripted_judge import by_length, rating_of, scripted
from tiny_model import WORDS, build_model

from gad_verl.tools.evaluation.responses import read_responses
from gad_verl.tools.evaluation.results import read_evaluation
from gad_verl.tools.evaluation.selection import LENGTH_BAND

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "walkthrough.md"
KEY = "key-of-the-walkthrough"
QUESTIONS, VAL, WARMUP, STEPS = 64, 32, 2, 3
SIZES = {
    "ANSWER_TOKENS": 16,
    "PROMPT_TOKENS": 96,
    "RESPONSE_TOKENS": 16,
    "VAL": VAL,
    "BATCH": 8,
    "WARMUP": WARMUP,
    "STEPS": STEPS,
    "SAVE_EVERY": 2,
    "DISCRIMINATOR_ONLY": 1,
    # The tiny student learns nothing at the page's rates.
    "STUDENT_LR": 1e-3,
    "TEXTS_LR": 2e-3,
    "DISCRIMINATOR_LR": 1e-3,
}


def _questions() -> list[str]:
    """Short ones: the tiny student reads byte by byte."""
    rng = random.Random(7)
    return [" ".join(rng.sample(WORDS, 4)) + "?" for _ in range(QUESTIONS)]


def _teacher(body: dict[str, Any]) -> tuple[str, str]:
    """Two or three words that follow from the question; one in four answers is thought about first."""
    question = body["messages"][-1]["content"].lower()
    rng = random.Random(hashlib.sha256(question.encode()).hexdigest())
    thought = "<think>Let me see.</think>\n" if rng.random() < 0.25 else ""
    return thought + " ".join(rng.sample(WORDS, rng.choice([2, 3]))), "stop"


def _mark(text: str) -> int:
    """What ``by_length`` gives a text."""
    return max(1, min(10, len(text.strip())))


@dataclass(frozen=True)
class Walk:
    """What is left of the walk: the folder, each block's output, and what the servers were asked."""

    folder: Path
    outputs: dict[str, str]
    teacher: list[Received]
    judge: list[Received]

    def output_of(self, command: str) -> str:
        """Of the first block that has the command."""
        return next(output for block, output in self.outputs.items() if command in block)

    def rows(self, name: str) -> list[dict[str, Any]]:
        return parquet.read_table(self.folder / name).to_pylist()

    def prompts(self, name: str) -> list[str]:
        return [row["prompt"][-1]["content"] for row in self.rows(name)]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    folder = tmp_path_factory.mktemp("walkthrough")
    questions = _questions()
    # One question twice, one once more in capitals.
    lines = [*questions, questions[0], questions[1].upper()]
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": line}) + "\n" for line in lines)
    build_model(folder / "student")
    settings, *blocks = bash_blocks(PAGE)
    outputs = {}
    with (
        FaultServer(_teacher, key=KEY, model="teacher") as teacher,
        FaultServer(scripted(by_length), key=KEY, model="judge") as judge,
    ):
        env = {"BASE_URL": teacher.base_url, "MODEL": teacher.model, "OPENAI_API_KEY": KEY, "ENGINE": "hf"}
        env |= {"JUDGE_URL": judge.base_url, "JUDGE_MODEL": judge.model}
        env |= {name: str(value) for name, value in SIZES.items()}
        for block in blocks:
            # As in one shell: every block comes after the settings.
            outputs[block] = run_bash(f"{settings}\n{block}", folder, env, timeout_s=540)
        yield Walk(folder, outputs, teacher.received, judge.received)


def test_every_question_is_asked_once_and_answered(walk: Walk) -> None:
    asked = Counter(request.prompt for request in walk.teacher)
    assert set(asked.values()) == {1} and len(asked) == QUESTIONS + 1
    answers = {row["prompt"][-1]["content"]: row["teacher_response"] for row in walk.rows("answers.parquet")}
    assert answers == {request.prompt: _teacher(request.body)[0] for request in walk.teacher}
    assert f"{QUESTIONS + 1} answers of {QUESTIONS + 1}" in walk.output_of("teacher collect")


def test_thoughts_go_and_rows_stay(walk: Walk) -> None:
    before, after = walk.rows("answers.parquet"), walk.rows("clean.parquet")
    assert any("<think>" in row["teacher_response"] for row in before)
    assert [row["prompt"] for row in before] == [row["prompt"] for row in after]
    assert [row["teacher_response"].rpartition("</think>\n")[2] for row in before] == [
        row["teacher_response"] for row in after
    ]


def test_the_split_loses_nothing_and_leaks_nothing(walk: Walk) -> None:
    train, val = walk.prompts("data/train.parquet"), walk.prompts("data/val.parquet")
    assert sorted(train + val) == sorted(walk.prompts("clean.parquet")) and len(val) == VAL
    assert not {prompt.lower() for prompt in train} & {prompt.lower() for prompt in val}


def test_leaks_pairs_the_students_answers_with_the_teachers(walk: Walk) -> None:
    for name in ("evaluations/base/responses", "evaluations/step_$WARMUP/responses"):
        output = walk.output_of(
            f"leaks data/val.parquet --student {name}".replace(" evaluations/step", ' "evaluations/step')
        )
        assert f"paired by prompt: {VAL} prompts" in output
        assert "held-out accuracy" in output


def test_the_training_went_through_both_stages(walk: Walk) -> None:
    lines = (walk.folder / "checkpoints" / "gad_verl" / "gad.jsonl").read_text(encoding="utf-8").splitlines()
    stages = {
        record["step"]: record["data"]["gad/stage"]
        for record in map(json.loads, lines)
        if "gad/stage" in record["data"]
    }
    assert stages == {1: 0, 2: 1, 3: 2}


@pytest.mark.parametrize("name", ["base", f"step_{WARMUP}", f"step_{STEPS}"])
def test_evaluations_hold_figures_and_scores(walk: Walk, name: str) -> None:
    folder = walk.folder / "evaluations" / name
    evaluation, responses = read_evaluation(folder), read_responses(folder / "responses.jsonl")
    assert len(evaluation.prompt_ids) == len(responses) == VAL
    assert {"rouge_l", "length_ratio", "finished", "two_sample_words"} <= set(evaluation.figures)
    # The paper's score, from the lengths of the texts. Both orders give the same marks.
    questions = walk.prompts("data/val.parquet")
    student = sum(_mark(response.text) for response in responses)
    reference = sum(_mark(f"reference to {question}") for question in questions)
    assert evaluation.judge["score"]["value"] == pytest.approx(100 * student / (student + reference))
    assert evaluation.judge["counts"]["unparsed"] == 0 and set(evaluation.judge["win_rates"]) == {"teacher"}


def test_references_are_asked_for_once(walk: Walk) -> None:
    references = Counter(request.prompt for request in walk.judge if rating_of(request.body) is None)
    assert set(references) == set(walk.prompts("data/val.parquet")) and set(references.values()) == {1}


def test_compare_proposes_one_and_writes_why(walk: Walk) -> None:
    folder = walk.folder / "evaluations" / "comparison"
    printed, table = walk.output_of("gad-verl compare"), (folder / "comparison.md").read_text(encoding="utf-8")
    assert table in printed
    content = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    figures, proposal = content["figures"], content["proposal"]
    assert list(figures) == ["base", f"step_{WARMUP}", f"step_{STEPS}"] and proposal["reason"] in table
    # The paper's rule, applied by hand.
    low, high = LENGTH_BAND
    scores = {name: of["score"]["value"] for name, of in figures.items() if low <= of["length_ratio"]["value"] <= high}
    assert proposal["name"] in scores if scores else proposal["name"] is None
    assert scores.get(proposal["name"]) == max(scores.values(), default=None)


def test_the_student_can_be_taken_along(walk: Walk) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoTokenizer.from_pretrained(walk.folder / "trained_student").chat_template
    before, after = (
        AutoModelForCausalLM.from_pretrained(walk.folder / name).state_dict() for name in ("student", "trained_student")
    )
    assert before.keys() == after.keys() and any(not before[name].equal(after[name]) for name in before)


def test_the_key_is_in_no_file(walk: Walk) -> None:
    files = [path for path in walk.folder.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert not [block for block, output in walk.outputs.items() if KEY in output]
