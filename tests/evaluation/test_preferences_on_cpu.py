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
"""Win rates and scores against closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gad_verl.tools.evaluation import preferences

MARKS = hnp.arrays(float, st.tuples(st.integers(2, 30), st.just(4)), elements=st.integers(1, 10).map(float))


def swapped(marks: np.ndarray) -> np.ndarray:
    """The same judgements with the two texts in each other's role: what came first stays first."""
    return marks[:, [3, 2, 1, 0]]


@given(MARKS)
def test_swapping_the_sides_mirrors_everything(marks: np.ndarray) -> None:
    one, other = preferences.relative_score(marks), preferences.relative_score(swapped(marks))
    assert other.value == pytest.approx(100 - one.value)
    assert (other.low, other.high) == pytest.approx((100 - one.high, 100 - one.low))
    assert preferences.outcomes(swapped(marks)) == pytest.approx(1 - preferences.outcomes(marks))
    assert preferences.position_bias(swapped(marks)) == pytest.approx(preferences.position_bias(marks))
    assert preferences.inconsistent(swapped(marks)) == preferences.inconsistent(marks)


def test_score_in_closed_form() -> None:
    assert preferences.relative_score(np.array([[9, 8, 7, 8], [9, 8, 7, 8]])).value == pytest.approx(50)
    assert preferences.relative_score(np.array([[9, 3, 9, 3]] * 5)).value == pytest.approx(75)
    assert np.isnan(preferences.relative_score(np.zeros((3, 4))).value)


def test_outcomes_need_both_orders() -> None:
    marks = np.array([[9, 8, 7, 6], [8, 9, 6, 7], [9, 8, 6, 7], [9, 8, 7, 7], [7, 7, 7, 7], [8, 8, 5, 9]])
    assert preferences.outcomes(marks).tolist() == [1, 0, 0.5, 0.5, 0.5, 0.5]
    assert preferences.inconsistent(marks) == pytest.approx(1 / 6)


@pytest.mark.parametrize(("wins", "losses"), [(0.03, 0.0), (0.05, 0.0), (0.05, 0.01), (0.1, 0.1), (0.5, 0.5)])
@pytest.mark.parametrize("prompts", [16, 32, 64])
def test_the_interval_of_a_win_rate_holds_the_truth(wins: float, losses: float, prompts: int) -> None:
    """Where nearly all are ties, most samples have nothing else: an interval without width missed the truth."""
    rng = np.random.default_rng(prompts)
    draws = rng.choice([1.0, 0.0, 0.5], size=(1000, prompts), p=[wins, losses, 1 - wins - losses])
    truth = 50 * (1 + wins - losses)
    covered = np.mean([preferences.win_rate(draw).covers(truth) for draw in draws])
    assert covered > 0.93, covered


def test_a_judge_of_places_decides_nothing() -> None:
    always_first = np.array([[9, 6, 6, 9]] * 12)
    assert preferences.win_rate(preferences.outcomes(always_first)).value == 50
    assert preferences.relative_score(always_first).value == 50
    assert preferences.position_bias(always_first) == 3
    assert preferences.inconsistent(always_first) == 1


def test_a_paired_difference_is_the_difference_and_zero_with_itself() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(1, 11, size=(2, 40, 4))
    difference = preferences.relative_score_difference(first, second)
    assert difference.value == pytest.approx(
        preferences.relative_score(second).value - preferences.relative_score(first).value
    )
    same = preferences.relative_score_difference(first, first)
    assert (same.value, same.low, same.high) == (0, 0, 0)
