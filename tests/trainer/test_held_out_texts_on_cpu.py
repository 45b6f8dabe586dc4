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
"""The loss on the validation's texts, and whether it fell surely: against numpy, and how often chance says so."""

import json
import random

import numpy as np
import pytest

from gad_verl.trainer.held_out_texts import HeldOutTexts
from gad_verl.trainer.supervised import SupervisedRow


def rows_of(lengths: list[int]) -> list[SupervisedRow]:
    return [SupervisedRow([number, 1], list(range(2, 2 + length))) for number, length in enumerate(lengths)]


def validations(
    texts: HeldOutTexts, rows: list[SupervisedRow], *losses: np.ndarray, seed: int = 0, first_step: int = 0
) -> None:
    """Each in batches and in an order of its own, as rollouts come back."""
    rng = random.Random(seed)
    for step, loss in enumerate(losses, first_step):
        order = rng.sample(range(len(rows)), len(rows))
        texts.begin(step)
        for part in (order[:2], order[2:]):
            texts.add([rows[number] for number in part], [float(loss[number]) for number in part])


@pytest.mark.parametrize("seed", range(10))
def test_loss_change_and_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, 12)
    first, second = rng.uniform(1, 60, (2, 12))
    texts = HeldOutTexts()
    validations(texts, rows_of(lengths.tolist()), first, second, seed=seed)
    changes = second - first
    assert texts.metrics() == pytest.approx(
        {
            "val-gad/text_loss": second.sum() / lengths.sum(),
            "val-gad/text_loss_change": changes.sum() / lengths.sum(),
            "val-gad/text_loss_change_error": changes.std(ddof=1) / 12**0.5 / lengths.mean(),
        }
    )


def test_what_a_resumed_run_validates_again_is_not_compared_with_itself() -> None:
    rows = rows_of([3, 5, 2])
    texts = HeldOutTexts()
    validations(texts, rows, np.array([9.0, 8.0, 7.0]), np.array([6.0, 5.0, 4.0]))
    resumed = HeldOutTexts()
    resumed.load_state_dict(texts.state_dict())
    assert resumed.metrics() == texts.metrics() and resumed.still_teach() == texts.still_teach() is not None
    resumed.begin(1)
    resumed.add(rows, [6.0, 5.0, 4.0])
    assert resumed.metrics() == texts.metrics() and resumed.still_teach() == texts.still_teach()
    resumed.begin(2)
    resumed.add(rows, [6.0, 5.0, 4.0])
    assert resumed.change == (0.0, 0.0)


def test_rows_without_loss_count_for_nothing() -> None:
    texts = HeldOutTexts()
    texts.begin(0)
    assert texts.metrics() == {} and texts.change is None
    texts.add([SupervisedRow([1], [2], [0])], [0.0])
    assert texts.metrics() == {}
    texts.add([SupervisedRow([1], [3, 4, 5], [1, 1, 0])], [6.0])
    assert texts.metrics() == {"val-gad/text_loss": 3.0}


def test_other_texts_are_not_compared() -> None:
    texts = HeldOutTexts()
    validations(texts, rows_of([3, 4, 5]), np.ones(3))
    validations(texts, rows_of([3, 4, 6]), np.ones(3))
    assert texts.change is None and texts.still_teach() is None


def test_a_fall_is_named_and_a_rise_is_not() -> None:
    rows, noise = rows_of([10] * 40), np.random.default_rng(1).normal(0, 1, 40)
    falls, rises = HeldOutTexts(), HeldOutTexts()
    validations(falls, rows, np.full(40, 30.0), 28.0 + noise)
    validations(rises, rows, np.full(40, 30.0), 32.0 + noise)
    assert "fell by 0.2" in falls.still_teach() and "gad.warmup_steps" in falls.still_teach()
    assert rises.still_teach() is None


def test_chance_says_so_seldom() -> None:
    rng, said = np.random.default_rng(3), 0
    for _ in range(400):
        texts = HeldOutTexts()
        validations(texts, rows_of([10] * 32), *rng.normal(30, 5, (2, 32)))
        said += texts.still_teach() is not None
    # One side of two standard errors: 2.3 %, with Student's 31 degrees of freedom 2.7 %.
    assert said <= 25


def test_a_resumed_run_compares_as_if_it_had_gone_on() -> None:
    rows, (first, second) = rows_of([3, 8, 5]), np.random.default_rng(2).uniform(1, 9, (2, 3))
    whole, before, resumed = HeldOutTexts(), HeldOutTexts(), HeldOutTexts()
    validations(whole, rows, first, second)
    validations(before, rows, first)
    resumed.load_state_dict(json.loads(json.dumps(before.state_dict())))
    validations(resumed, rows, second, first_step=1)
    assert resumed.metrics() == whole.metrics()
