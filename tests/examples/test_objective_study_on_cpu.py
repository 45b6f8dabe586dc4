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
"""Study 2 with the new objective: the arms, SeqKD as a rival, interruptions, tables and figure."""

import dataclasses
import itertools
from pathlib import Path

import objective_language
import objective_training
import pytest
import torch
from objective_language import (
    ARMS,
    CASES,
    GAD,
    HOLD,
    NEW,
    PARTS,
    SEQKD,
    TUNED,
    all_runs,
    best_rates,
    rival_rows,
    seqkd_at,
)
from objective_training import Objective, adversarial, seqkd_goes_on, start, warm_opponent
from study_common import Rows, run_all
from torch import nn

from gad_verl.core.trust import DiscriminatorTrust, TrustOptions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, objective_training.Case]:
    """A recurrent student, and a transformer in another language; a few steps."""
    small = {
        "texts": 200,
        "seqkd_steps": 20,
        "seqkd_every": 5,
        "warmup": 6,
        "adversarial": 15,
        "discriminator_width": 16,
    }
    cases = {
        name: dataclasses.replace(CASES[name], regime=dataclasses.replace(CASES[name].regime, **small), equal_time=18)
        for name in ("small student", "five templates")
    }
    monkeypatch.setattr(objective_language, "CASES", cases)
    monkeypatch.setattr(objective_training, "CHECKPOINTS", 3)
    monkeypatch.setattr(objective_training, "TEST_PROMPTS", 20)
    monkeypatch.setattr(objective_training, "VALIDATION_TEXTS", 20)
    yield cases
    start.cache_clear()
    warm_opponent.cache_clear()


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def last_student(case: objective_training.Case, objective: Objective) -> torch.Tensor:
    """The weights after the stage."""
    kept: list[torch.Tensor] = []
    adversarial(case, objective, 5, lambda step, student: kept.append(weights(student)))
    return kept[-1]


# ---- runs


def test_every_arm_ends_and_the_study_goes_on_where_it_stopped(tiny, tmp_path: Path, monkeypatch):
    path, runs = tmp_path / "rows.jsonl", all_runs([5])
    # Its rows are those of the whole study.
    monkeypatch.setattr(objective_language, "CHOICE_ROWS", tmp_path / "none.jsonl")
    assert len({run.key for run in runs}) == len(runs) == 2 * (1 + 3 + len(ARMS) + len(PARTS))

    def interrupted(number: int):
        if number == 6:
            raise KeyboardInterrupt
        return runs[number].work()

    with pytest.raises(KeyboardInterrupt):
        run_all(
            Rows(path),
            [
                dataclasses.replace(run, work=lambda number=number: interrupted(number))
                for number, run in enumerate(runs)
            ],
        )
    assert len(Rows(path)) == 6
    # A new process has nothing of what the runs of a seed share.
    start.cache_clear()
    warm_opponent.cache_clear()
    assert run_all(Rows(path), runs)
    rows = Rows(path).all()
    assert [row["key"] for row in rows] == [run.key for run in runs]
    assert all(0 <= row["valid"] <= 1 and row["validation_loss"] > 0 and row["cpu_s"] >= 0 for row in rows)
    assert all("last two" in row for row in rows if row["regime"] == "five templates")
    # What was shared before the interruption is what was made anew after it.
    again = {run.key: run.work() for run in runs[4:8]}
    for row in rows:
        if row["key"] in again:
            assert again[row["key"]]["valid"] == pytest.approx(row["valid"], abs=1e-5)
    assert all(len(objective_language.tables(part)) == 5 for part in (rows, rows[:3]))


def test_where_d_knows_nothing_the_new_objective_is_seqkd_and_hold_stands_still(tiny, monkeypatch):
    """With so few steps there are never enough held-out prompts."""
    monkeypatch.setattr(objective_training, "TRUST", TrustOptions(window=300, least_prompts=300))
    case = tiny["small student"]
    begun = weights(start(case, 5).student)
    seqkd = seqkd_goes_on(case, case.rate, 5)
    row = adversarial(case, ARMS[NEW], 5)
    assert row["factor"] == 0.0
    for name in ("valid", "greedy", "validation_loss"):
        assert row[name] == pytest.approx(seqkd[name], abs=1e-6)
    assert torch.equal(last_student(case, ARMS[HOLD]), begun)
    assert not torch.equal(last_student(case, ARMS[GAD]), begun)


def test_where_d_knows_all_the_new_objective_is_gad_in_nats(tiny, monkeypatch):
    """Without held-out prompts, so that D learns the same."""
    case = tiny["small student"]
    monkeypatch.setattr(objective_training, "HELD_OUT", 0.0)

    class Sure(DiscriminatorTrust):
        def update(self, *arguments):
            return dataclasses.replace(super().update(*arguments), factor=1.0)

    monkeypatch.setattr(objective_training, "DiscriminatorTrust", Sure)
    new, nats = last_student(case, ARMS[NEW]), last_student(case, Objective(nats=True))
    torch.testing.assert_close(new, nats)
    assert not torch.allclose(new, last_student(case, Objective()))


def test_the_length_regression_takes_out_what_length_explains(tiny, monkeypatch):
    """Of a D that reads the length alone nothing is left."""
    case = tiny["small student"]
    stock = objective_training.pair_loss

    def by_length(model, teacher, rollouts, trains):
        loss, scores = stock(model, teacher, rollouts, trains)
        lengths = rollouts.lengths.view(len(scores), -1).to(scores.dtype)
        return loss, torch.cat([scores[:, :1], -0.3 * lengths], dim=1)

    monkeypatch.setattr(objective_training, "pair_loss", by_length)
    policy, largest = objective_training.policy_loss, []

    def seen(student, reference, rollouts, advantages):
        largest.append(advantages.abs().max().item())
        return policy(student, reference, rollouts, advantages)

    monkeypatch.setattr(objective_training, "policy_loss", seen)
    adversarial(case, Objective(nats=True), 5)
    assert min(largest) > 0.1
    largest.clear()
    adversarial(case, Objective(nats=True, length_regression=True), 5)
    assert max(largest) < 1e-5


def test_weights_and_rates_of_the_arms():
    expected = {
        GAD: (1.0, 0.0, 1e-3),
        HOLD: (1.0, 0.0, 0.25e-3),
        NEW: (0.25, 0.75, 1e-3**0.25 * 1e-2**0.75),
        "new, divided by the spread": (0.25, 0.75, 1e-3**0.25 * 1e-2**0.75),
        "new, without the texts": (1.0, 0.0, 0.25e-3),
        "new, one rate": (0.25, 0.75, 1e-3),
    }
    for arm, objective in (ARMS | PARTS).items():
        assert objective.weights_and_rate(0.25, 1e-3, 1e-2) == pytest.approx(expected[arm]), arm


def test_held_out_texts_reach_the_student_and_never_d(tiny, monkeypatch):
    """Other teacher texts on the held-out prompts leave D as it was; the student of SeqKD learns from them."""
    case = tiny["small student"]
    begun = start(case, 5)
    plain = {trusted: weights(warm_opponent(case, trusted, 5).model) for trusted in (True, False)}
    student = last_student(case, ARMS[NEW])
    answers = torch.where(begun.held_out.unsqueeze(1), begun.texts.answers.flip(0), begun.texts.answers)
    changed = dataclasses.replace(begun, texts=dataclasses.replace(begun.texts, answers=answers))
    monkeypatch.setattr(objective_training, "start", lambda case, seed: changed)
    warm_opponent.cache_clear()
    assert torch.equal(weights(warm_opponent(case, True, 5).model), plain[True])
    assert not torch.equal(weights(warm_opponent(case, False, 5).model), plain[False])
    assert not torch.equal(last_student(case, ARMS[NEW]), student)


def test_batches_are_epochs_without_repetition():
    found = list(itertools.islice(objective_training.batches(10, 3, seed=1), 6))
    for epoch in (found[:3], found[3:]):
        assert len(set(torch.cat(epoch).tolist())) == 9
    assert not torch.equal(torch.cat(found[:3]), torch.cat(found[3:]))


# ---- SeqKD as a rival, tables, figure


def fake_rows(case_name: str, seed: int, new: float) -> list[dict]:
    case, common = CASES[case_name], {"regime": case_name, "seed": seed, "cpu_s": 10.0, "train_s": 8.0, "covered": 1.0}
    points = {
        case.rates[0]: [[0, 0.6, 0.3, 0.3], [case.regime.adversarial, 0.7, 0.5, 0.4], [case.equal_time, 0.9, 0.2, 0.2]],
        case.rates[1]: [[0, 0.6, 0.3, 0.3], [case.regime.adversarial, 0.5, 0.4, 0.4], [case.equal_time, 0.4, 0.7, 0.8]],
        case.rates[2]: [[0, 0.6, 0.3, 0.3], [case.regime.adversarial, 0.6, 0.3, 0.3], [case.equal_time, 0.6, 0.6, 0.6]],
    }
    rows = [{**common, "arm": SEQKD, "valid": 0.3, "greedy": 0.3, "validation_loss": 0.6}]
    for rate, curve in points.items():
        rows.append(
            {
                **common,
                "arm": seqkd_at(rate),
                "curve": curve,
                **dict(zip(("validation_loss", "valid", "greedy"), curve[1][1:], strict=True)),
            }
        )
    for arm in (*ARMS, *PARTS):
        figures = {"valid": new, "greedy": new, "validation_loss": 0.8, "factor": 0.5, "accuracy": 0.7}
        rows.append({**common, "arm": arm, "held_out_accuracy": 0.6, **figures, "train_s": 24.0})
    return rows


def test_seqkd_is_tuned_by_what_each_rule_may_see(monkeypatch):
    rates = CASES["weak D"].rates
    monkeypatch.setitem(CASES, "weak D", dataclasses.replace(CASES["weak D"], rate=rates[1], rate_equal_time=rates[0]))
    found = {row["arm"]: row["valid"] for row in rival_rows(fake_rows("weak D", 1, 0.6))}
    assert found == {
        TUNED: 0.4,
        "the same, equal time": 0.2,
        "SeqKD, stopped by likelihood": 0.4,
        "stopped by likelihood, equal time": 0.7,
        "SeqKD, stopped by the oracle": 0.5,
        "stopped by the oracle, equal time": 0.7,
    }
    # A seed without all of its rates has no tuned SeqKD.
    assert rival_rows(fake_rows("weak D", 1, 0.6)[:3]) == []


def test_tables_and_figure_from_rows(monkeypatch):
    monkeypatch.setitem(CASES, "weak D", dataclasses.replace(CASES["weak D"], rate=CASES["weak D"].rates[1]))
    rows = fake_rows("weak D", 700, 0.6) + fake_rows("weak D", 701, 0.5)
    valid, greedy, rivals, details, _ = objective_language.tables(rows)
    number = 1 + list(CASES).index("weak D")
    cells = {line.split(" | ")[0].removeprefix("| "): line.strip("| ").split(" | ") for line in valid.splitlines()[2:9]}
    assert cells[NEW][number] == "+15.0 ± 63.5 [+10]" and cells[f"{TUNED}, %"][number] == "40.0 ± 0.0"
    assert "Seeds 700 to 701, 20 runs" in valid and "| new objective | – |" in valid
    assert "| SeqKD, stopped by the oracle | " in rivals and "-15.0 ± 63.5 [-20]" in rivals
    assert "3.00 ± 0.00" in details and "+0.3 ± 0.0" in details and "+15.0" in greedy
    assert len(objective_language.figure(rows).axes) == 1


def test_the_rates_are_those_that_were_best_on_other_seeds():
    assert not set(objective_language.CHOICE_SEEDS) & set(range(objective_language.FIRST_SEED, 720))
    rows = Rows(objective_language.CHOICE_ROWS).all()
    assert {row["seed"] for row in rows} == set(objective_language.CHOICE_SEEDS)
    for name, case in CASES.items():
        assert best_rates(rows, name) == (case.rate, case.rate_equal_time), name


def test_too_few_rows_for_a_batch_are_an_error_and_no_endless_loop():
    with pytest.raises(ValueError, match="3 rows do not fill a batch of 4"):
        next(objective_training.batches(3, 4, 1))
