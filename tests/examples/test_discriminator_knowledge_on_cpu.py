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
"""The study of what a discriminator knows: its measures, and that every run ends."""

import dataclasses
import math
from pathlib import Path

import discriminator_knowledge as study
import objective_language
import objective_training
import pytest
import torch
from discriminator_knowledge import Setting, all_runs, gained, know, seqkd_by_seed, settings, valid_above_invalid
from fast_language import Oracle, Texts
from objective_language import CASES, NEW
from objective_training import draw, start, warm_opponent
from oracle_language import LANGUAGE, RecurrentStudent, make_corpus
from study_common import Rows, run_all

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps, few texts, two settings of each kind."""
    small = {"seqkd_steps": 20, "seqkd_every": 5, "warmup": 4, "adversarial": 6, "discriminator_width": 16}
    cases = {
        name: dataclasses.replace(CASES[name], regime=dataclasses.replace(CASES[name].regime, **small), equal_time=9)
        for name in study.STUDENTS
    }
    for module in (study, objective_language):
        monkeypatch.setattr(module, "CASES", cases)
    for name, value in {"CHECKPOINTS": 3, "TEST_PROMPTS": 20, "VALIDATION_TEXTS": 20}.items():
        monkeypatch.setattr(objective_training, name, value)
    for name, value in {"TEXTS": (100, 150), "TAUGHT": (10,), "PASSES": (1, 3)}.items():
        monkeypatch.setattr(study, name, value)
    yield
    start.cache_clear()
    warm_opponent.cache_clear()


def test_the_order_of_valid_and_invalid_is_that_of_the_pairs():
    generator = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 4, (30, 6), generator=generator).float()  # with ties
    valid = torch.rand(30, 6, generator=generator) < 0.4
    credits = [
        1.0 if scores[group, a] > scores[group, b] else 0.5 if scores[group, a] == scores[group, b] else 0.0
        for group in range(30)
        for a in range(6)
        for b in range(6)
        if valid[group, a] and not valid[group, b]
    ]
    assert valid_above_invalid(scores, valid) == pytest.approx(sum(credits) / len(credits))
    assert valid_above_invalid(scores, torch.ones(30, 6, dtype=torch.bool)) is None


def test_answers_are_judged_as_the_oracle_judges_them():
    corpus = make_corpus(4, 8, 8, 16, 1, LANGUAGE)
    limit = LANGUAGE.longest_answer(4)
    oracle = Oracle(LANGUAGE, corpus.test, Texts.of(corpus.validation, limit, LANGUAGE.end))
    torch.manual_seed(1)
    student = RecurrentStudent(8, 4)
    case = dataclasses.replace(CASES["small student"], regime=dataclasses.replace(CASES["weak D"].regime, length=4))
    answers = draw(case, student, oracle.prompts, torch.Generator().manual_seed(1))
    # Some that are valid, for a student that knows nothing has none.
    answers.answers[::4] = oracle.valid[:, 1]
    found = study.answers_valid(oracle, answers)
    for place, answer in enumerate(answers.answers.tolist()):
        prompt = corpus.test[place // objective_training.N]
        known = [text + [LANGUAGE.end] * (limit - len(text)) for text in LANGUAGE.valid_answers(prompt)]
        assert found.flatten()[place].item() == (answer in known)
    assert found[:, 0].all()


def test_held_out_texts_never_train_d(tiny, monkeypatch):
    """Nonsense in their place changes what D says of them, and not what it says of its own."""
    setting, seed = Setting("small student", texts=150), 7
    before = know(setting, seed)
    begun = start(setting.case(), seed)
    begun.texts.answers[begun.held_out] = begun.texts.answers[begun.held_out].flip(1)
    after = know(setting, seed)
    assert [point["own"] for point in after["curve"]] == [point["own"] for point in before["curve"]]
    assert [point["held_out"] for point in after["curve"]] != [point["held_out"] for point in before["curve"]]


def test_settings_vary_one_thing_and_share_students():
    all_settings = settings()
    assert len(set(all_settings)) == len(all_settings)
    for setting in all_settings:
        usual = vars(Setting(setting.student))
        assert sum(value != usual[name] for name, value in vars(setting).items()) <= 1
    cases = [setting.case() for setting in all_settings]
    # Once left, a student does not come back: it would be taught again.
    blocks = [case for number, case in enumerate(cases) if number == 0 or cases[number - 1] != case]
    assert len(blocks) == len(set(blocks))


def test_every_run_ends_and_the_page_takes_any_part_of_the_rows(tiny, tmp_path: Path, monkeypatch):
    few = [Setting(student, texts=texts, width=8) for student in study.STUDENTS for texts in study.TEXTS]
    few += [Setting("good student", texts=100, fresh=True), Setting("good student", texts=100, taught=10)]
    monkeypatch.setattr(study, "settings", lambda: few)
    runs = list(all_runs([5, 6]))
    assert len({run.key for run in runs}) == len(runs)
    path = tmp_path / "rows.jsonl"
    assert run_all(Rows(path), runs)
    rows = Rows(path).all()
    for part in (rows, rows[:3], [row for row in rows if row["kind"] == "know"]):
        assert len(study.tables(part)) == 3 and len(study.figure(part).axes) == 3
    known = [row for row in rows if row["kind"] == "know"]
    assert all(0 <= point["held_out"] <= 1 for row in known for point in row["curve"])
    assert [point["passes"] for point in known[0]["curve"]] == list(study.PASSES)
    new = {row["seed"]: row["valid"] for row in rows if (row.get("arm"), row["texts"]) == (NEW, 150)}
    rival = seqkd_by_seed(rows, 150, False)
    assert gained(rows, 150, NEW, False) == [pytest.approx(100 * (new[seed] - rival[seed])) for seed in (5, 6)]


def test_the_rival_is_the_rate_of_the_best_mean(tiny):
    """Of two seeds, not of each."""
    case = study.CASES["small student"]
    last, curves = (
        case.regime.adversarial,
        {case.rates[0]: (0.9, 0.1), case.rates[1]: (0.6, 0.6), case.rates[2]: (0, 0)},
    )
    rows = [
        {
            "kind": "gain",
            "texts": 100,
            "arm": objective_language.seqkd_at(rate),
            "seed": seed,
            "curve": [[last, math.nan, valid[seed], math.nan]],
        }
        for rate, valid in curves.items()
        for seed in (0, 1)
    ]
    assert seqkd_by_seed(rows, 100, False) == {0: 0.6, 1: 0.6}
