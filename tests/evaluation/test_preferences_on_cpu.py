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
from sklearn.linear_model import LogisticRegression

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


def test_equal_lengths_give_the_plain_win_rate() -> None:
    outcome = np.array([1, 1, 0.5, 0, 1, 0.5, 1.0])
    lengths = np.arange(7) + 10.0
    controlled = preferences.length_controlled_win_rate(outcome, lengths, lengths)
    plain = preferences.win_rate(outcome)
    assert controlled.value == pytest.approx(plain.value)
    assert (controlled.low, controlled.high) == pytest.approx((plain.low, plain.high))


@given(st.integers(0, 10_000))
def test_swapping_the_sides_mirrors_the_controlled_rate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outcome = rng.choice([0, 0.5, 1], size=25)
    mine, theirs = rng.integers(5, 200, size=(2, 25))
    one = preferences.length_controlled_win_rate(outcome, mine, theirs, resamples=50)
    other = preferences.length_controlled_win_rate(1 - outcome, theirs, mine, resamples=50)
    assert other.value == pytest.approx(100 - one.value, abs=1e-5)
    assert other.low == pytest.approx(100 - one.high, abs=1e-4)


def test_the_controlled_rate_is_that_of_a_logistic_regression() -> None:
    rng = np.random.default_rng(1)
    outcome = rng.choice([0.0, 1.0], size=200, p=[0.3, 0.7])
    mine, theirs = rng.integers(5, 300, size=(2, 200))
    difference = (mine - theirs) / (mine - theirs).std()
    # C=1 is the same standard normal prior on the coefficient, none on the constant.
    model = LogisticRegression(C=1.0, tol=1e-10).fit(np.tanh(difference)[:, None], outcome)
    expected = 100 / (1 + np.exp(-model.intercept_[0]))
    controlled = preferences.length_controlled_win_rate(outcome, mine, theirs)
    assert controlled.value == pytest.approx(expected, abs=1e-3)
    assert controlled.covers(expected)


def test_a_judge_of_lengths_is_seen_through() -> None:
    """The longer text mostly wins, and ours is mostly longer: the plain rate is high, the controlled one is not."""
    rng = np.random.default_rng(2)
    mine, theirs = rng.normal(130, 40, size=2000), rng.normal(100, 40, size=2000)
    outcome = (rng.random(2000) < 1 / (1 + np.exp(-4 * np.tanh((mine - theirs) / (mine - theirs).std())))).astype(float)
    assert preferences.win_rate(outcome).value > 65
    assert preferences.length_controlled_win_rate(outcome, mine, theirs).covers(50)


def test_a_student_that_always_wins_stays_within_bounds() -> None:
    controlled = preferences.length_controlled_win_rate(np.ones(20), np.arange(20.0), np.full(20, 10.0))
    assert controlled.value > 99 and controlled.high <= 100
