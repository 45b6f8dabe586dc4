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
"""The study of the field: its loop is GAD where nothing is asked for, its options do what they say, its tables hold."""

import dataclasses
from pathlib import Path

import field_language
import field_training
import objective_training
import pytest
import torch
from fast_language import sample
from field_language import ARMS, CASES, GAD, METHODS, all_runs, tables, texts_case
from field_training import Memory, Method, Truth, auc_within_groups, joined, train_method, truths
from objective_training import Objective, adversarial, start, warm_opponent
from study_common import Rows, run_all

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"texts": 160, "seqkd_steps": 12, "seqkd_every": 4, "warmup": 4, "adversarial": 6, "discriminator_width": 16}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, objective_training.Case]:
    cases = {
        name: dataclasses.replace(CASES[name], regime=dataclasses.replace(CASES[name].regime, **SMALL)) for name in ARMS
    }
    monkeypatch.setattr(field_language, "CASES", cases)
    for name, value in (("CHECKPOINTS", 3), ("TEST_PROMPTS", 20), ("VALIDATION_TEXTS", 20)):
        monkeypatch.setattr(objective_training, name, value)
    yield cases
    for cached in (start, warm_opponent, truths):
        cached.cache_clear()


def test_without_options_it_is_gad_as_published(tiny) -> None:
    case = tiny["small student"]
    one, other = train_method(case, Method(), 5), adversarial(case, Objective(), 5)
    for key in ("validation_loss", "valid", "greedy", "accuracy"):
        assert one[key] == pytest.approx(other[key], abs=1e-6), key


@pytest.mark.parametrize("arm", [name for name in METHODS if name != GAD])
def test_every_method_ends(tiny, arm: str) -> None:
    row = train_method(tiny["small student"], METHODS[arm], 5)
    assert 0 <= row["valid"] <= 1 and 0 <= row["hacks"] <= row["passes"] <= 1
    pairs = {"replace": 1, "add": 2, "two": 2}.get(arm.split()[0].strip(","), 1)
    if "pairs" in row and "D on what passes" not in arm:
        steps, whole = SMALL["adversarial"], 32 * 4
        # Nothing is remembered in the first step.
        expected = steps * whole if pairs == 1 else (2 * steps - (arm != "two updates of D")) * whole
        assert row["pairs"] == expected


def test_a_hack_passes_and_is_not_valid() -> None:
    case = CASES["small student"]
    prompts = torch.tensor([[1, 2, 3, 4, 5, case.language.begin]])
    truth = Truth(case, prompts)
    reverse, hack, short = [8, 5, 4, 3, 2, 1], [8, 5, 5, 5, 5, 5], [8, 5, 4]
    end = case.language.end
    rows = [answer + [end] * (truth.limit - len(answer)) for answer in (reverse, hack, short)]
    texts = field_training.Texts(prompts.repeat(3, 1), torch.tensor(rows), torch.tensor([7, 7, 4]))
    valid, passes = truth.judge(torch.tensor([0]), texts)
    assert valid.tolist() == [[True, False, False]] and passes.tolist() == [[True, True, False]]


def test_area_under_the_curve_is_within_groups() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [9.0, 9.0, 0.0]])
    positive = torch.tensor([[True, False, False], [False, True, False]])
    assert auc_within_groups(scores, positive) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert auc_within_groups(scores, torch.zeros(2, 3, dtype=torch.bool)) is None


def test_a_memory_that_replaces_names_the_places(tiny) -> None:
    case = tiny["small student"]
    begun = start(case, 5)
    teacher = begun.texts[torch.arange(8)]
    rollouts = sample(begun.student, teacher.prompts, 4, truths(case, 5)[0].limit, case.language.end, None)
    memory = Memory(Method(memory=2, mode="replace", fraction=0.25), 0)
    assert memory.mix(1, 0, 8) == ([], [])
    memory.add(1, teacher, rollouts)
    past, replaced = memory.mix(2, 0, 8)
    assert len(past) == len(set(replaced)) == 2
    again = joined([one for one, _ in past])
    assert all(any(torch.equal(row, known) for known in teacher.prompts) for row in again.prompts)


def test_more_texts_of_as_many_prompts_or_of_as_many_queries(tiny) -> None:
    rows = start(texts_case(field_language.EQUAL_ROWS, 4), 5).texts
    assert len(rows) == 640 and len({tuple(one) for one in rows.prompts.tolist()}) == 160
    queries = start(texts_case(field_language.EQUAL_QUERIES, 4), 5).texts
    assert len(queries) == 160 and len({tuple(one) for one in queries.prompts.tolist()}) == 40
    assert all(len({tuple(one) for one in rows.prompts[n : n + 4].tolist()}) == 1 for n in range(0, 640, 4))


def test_the_study_goes_on_and_has_its_tables(tiny, tmp_path: Path) -> None:
    runs = all_runs([5])
    assert len({run.key for run in runs}) == len(runs)
    some = [run for run in runs if run.key.split("/")[1] in ("SeqKD", "SeqKD goes on", GAD, "SODA", "gate")]
    some = [run for run in some if "8 texts" not in run.key and "4 texts" not in run.key]
    assert run_all(Rows(tmp_path / "rows.jsonl"), some)
    rows = Rows(tmp_path / "rows.jsonl").all()
    assert all(len(tables(part)) == 4 and all(tables(part)) for part in (rows, rows[:2], []))
