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
"""The length-controlled win rate: closed forms, an independent regression, coverage, and where it is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from gad_verl.tools.evaluation import preferences
from gad_verl.tools.evaluation.length_control import length_controlled_win_rate, refusal


def sigmoid(value: np.ndarray | float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(value)))


def gap(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.tanh((mine - theirs) / (mine - theirs).std(ddof=1))


def test_equal_lengths_give_the_plain_win_rate() -> None:
    outcome = np.array([1, 1, 0.5, 0, 1, 0.5, 1.0])
    lengths = np.arange(7) + 10.0
    controlled = length_controlled_win_rate(outcome, lengths, lengths)
    plain = preferences.win_rate(outcome)
    assert (controlled.value, controlled.low, controlled.high) == pytest.approx((plain.value, plain.low, plain.high))


@given(st.integers(0, 10_000))
def test_swapping_the_sides_mirrors_the_controlled_rate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outcome = rng.choice([0, 0.5, 1], size=25)
    mine, theirs = rng.integers(5, 200, size=(2, 25))
    one = length_controlled_win_rate(outcome, mine, theirs)
    other = length_controlled_win_rate(1 - outcome, theirs, mine)
    assert (other.value, other.low, other.high) == pytest.approx((100 - one.value, 100 - one.high, 100 - one.low))


def test_the_controlled_rate_is_that_of_the_penalised_regression() -> None:
    rng = np.random.default_rng(1)
    outcome = rng.random(200)
    mine, theirs = rng.integers(5, 300, size=(2, 200)).astype(float)
    feature = gap(mine, theirs)

    def loss(values: np.ndarray) -> float:
        logits = values[0] + values[1] * feature
        return float((np.logaddexp(0, logits) - outcome * logits).sum() + 0.02 * 200 * (values[1] - 1) ** 2 / 2)

    best = minimize(loss, [0.0, 0.0], tol=1e-12)
    controlled = length_controlled_win_rate(outcome, mine, theirs)
    assert controlled.value == pytest.approx(100 * sigmoid(best.x[0]), abs=1e-3)
    # In units of their spread: tokens, characters or bytes say the same.
    scaled = length_controlled_win_rate(outcome, 7 * mine, 7 * theirs)
    assert scaled.value == pytest.approx(controlled.value)


def test_a_judge_of_lengths_is_seen_through() -> None:
    """The longer text mostly wins, and ours is mostly longer: the plain rate is high, the controlled one is not."""
    rng = np.random.default_rng(2)
    mine, theirs = rng.normal(130, 40, size=2000), rng.normal(100, 40, size=2000)
    outcome = (rng.random(2000) < sigmoid(2 * gap(mine, theirs))).astype(float)
    assert preferences.win_rate(outcome).value > 58
    assert length_controlled_win_rate(outcome, mine, theirs).covers(50)


def test_a_student_that_always_wins_stays_within_bounds() -> None:
    controlled = length_controlled_win_rate(np.ones(20), np.arange(20.0), np.full(20, 10.0))
    assert controlled.value > 99 and controlled.high <= 100
    assert 70 < controlled.low < 95


@pytest.mark.parametrize("liking", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(("count", "samples"), [(32, 600), (256, 300)])
def test_intervals_cover_whatever_the_judge_likes(liking: float, count: int, samples: int) -> None:
    """phi of the judge is 0, that of the prior, or twice that; lengths at both ends of the band."""
    rng = np.random.default_rng(count)
    for ratio in (0.72, 1.45):
        for theta in (-2.0, 0.0):
            covered = 0
            for _ in range(samples):
                theirs, mine = 200 * np.exp(0.7 * rng.normal(size=(2, count)))
                mine *= ratio
                outcome = (rng.random(count) < sigmoid(theta + liking * gap(mine, theirs))).astype(float)
                covered += length_controlled_win_rate(outcome, mine, theirs).covers(float(100 * sigmoid(theta)))
            assert covered / samples >= 0.91, (ratio, theta)


def test_lengths_that_nothing_was_seen_of_are_refused_in_words() -> None:
    theirs = np.array([100.0, 200, 300, 90])
    assert refusal(theirs * 0.75, theirs) is None and refusal(theirs * 1.45, theirs) is None
    assert refusal(theirs, theirs) is None
    assert "shorter" in (refusal(theirs * 0.6, theirs) or "") and "0.60" in (refusal(theirs * 0.6, theirs) or "")
    assert "longer" in (refusal(theirs * 1.6, theirs) or "")
    assert "same length" in (refusal(theirs + 3, theirs) or "")
    assert "empty" in (refusal(theirs, theirs * 0) or "")
