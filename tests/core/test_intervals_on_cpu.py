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
"""Intervals: closed forms, and how often they cover the truth in simulation, down to 32 prompts."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gad_verl.core import intervals
from gad_verl.core.intervals import Estimate

Draw = Callable[[np.random.Generator, int], np.ndarray]


@pytest.mark.parametrize(("degrees", "error"), [(1, 1e-9), (2, 1e-9), (3, 0.01), (6, 1e-3), (31, 1e-5), (800, 1e-7)])
def test_limits_are_those_of_students_t(degrees: int, error: float) -> None:
    assert intervals.quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=error)


def test_of_many_prompts_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(3).exponential(2.0, size=20_000)
    estimate = intervals.mean(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


@given(st.integers(0, 32))
def test_of_wins_and_losses_the_interval_is_wilsons(wins: int) -> None:
    from scipy.stats import binomtest

    estimate = intervals.bounded_mean([1.0] * wins + [0.0] * (32 - wins))
    confidence = 2 * stats.norm.cdf(intervals.quantile(31)) - 1
    expected = binomtest(wins, 32).proportion_ci(confidence, method="wilson")
    # The spread is that of a sample: 32/31 of the binomial one; where nothing varies it is the binomial one itself.
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    if wins in (0, 32):
        assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_the_interval_of_a_ratio_has_the_closed_form() -> None:
    rng = np.random.default_rng(4)
    below = rng.normal(10.0, 1.0, size=500)
    above = 2 * below + rng.normal(0.0, 1.0, size=500)
    estimate = intervals.ratio(above, below)
    ratio = above.mean() / below.mean()
    half = 1.96 * (above - ratio * below).std() / np.sqrt(500) / below.mean()  # delta method
    assert estimate.value == pytest.approx(ratio)
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.02)
    mirrored = intervals.ratio(below, above)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 / estimate.high, 1 / estimate.low))


def test_pairing_makes_a_difference_narrow() -> None:
    rng = np.random.default_rng(6)
    prompt = rng.normal(0, 5, size=200)
    first, second = prompt + rng.normal(0, 0.1, size=200), prompt + 0.2 + rng.normal(0, 0.1, size=200)
    paired = intervals.difference(first, second)
    assert paired.covers(0.2) and not paired.covers(0)
    assert paired.high - paired.low < 0.1 * (intervals.mean(first).high - intervals.mean(first).low)
    back = intervals.difference(second, first)
    assert (back.value, back.low, back.high) == pytest.approx((-paired.value, -paired.high, -paired.low))


def test_without_spread_an_interval_collapses_where_nothing_else_was_possible() -> None:
    assert intervals.mean([7.0] * 10) == Estimate(7.0, 7.0, 7.0)
    assert intervals.bounded_mean([0.5] * 10) == Estimate(0.5, 0.5, 0.5)
    never = intervals.bounded_mean([0.0] * 32)
    assert never.low == 0 and 0.08 < never.high < 0.12
    none = intervals.difference(np.zeros(32), np.zeros(32), unit=1)
    assert none.low == pytest.approx(-none.high) and 0.05 < none.high < 0.12
    assert intervals.difference(np.ones(32), np.ones(32)) == Estimate(0, 0, 0)
    assert intervals.difference(np.zeros(32), np.ones(32)) == Estimate(1, 1, 1)


def test_one_prompt_tells_nothing_of_the_spread() -> None:
    for estimate in (intervals.mean([3.0]), intervals.ratio([3.0], [2.0]), intervals.difference([1.0], [4.0])):
        assert np.isnan([estimate.low, estimate.high]).all()
        assert estimate.covers(0)
        # Limits of what a figure can be make no interval.
        assert np.isnan([estimate.widened(2, -1, 9).low, estimate.widened(2, -1, 9).high]).all()
    assert intervals.bounded_mean([1.0]) == Estimate(1.0, 0.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_bounded_intervals_hold_their_figure_and_stay_within_bounds(values: list[float]) -> None:
    estimate = intervals.bounded_mean(values)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    mirrored = intervals.bounded_mean([1 - value for value in values])
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - estimate.high, 1 - estimate.low), abs=1e-6)


@pytest.mark.parametrize("columns", [np.zeros(0), np.zeros((3, 1)), np.array([np.nan])])
def test_figures_that_are_none_are_refused(columns: np.ndarray) -> None:
    with pytest.raises(ValueError, match="prompt|finite"):
        intervals.mean(columns)


# ------------------------------------------------------------------------------------------------- coverage, simulated


def coverage(interval: Callable[..., Estimate], draw: Callable[[], tuple[np.ndarray, ...]], truth: float) -> float:
    """Share of 1,500 samples whose interval holds the truth; its standard error at 95 % is 0.6 points."""
    return float(np.mean([interval(*draw()).covers(truth) for _ in range(1500)]))


# 95 % is meant. Below 92.5 % an interval is called too narrow; where an event is rare, no formula can be exact, and a
# wide one is the honest side.
NARROWEST = 0.925


@pytest.mark.parametrize("count", [32, 64])
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng, n: rng.normal(0, 1, n), 0.0),
        (lambda rng, n: rng.exponential(1, n), 1.0),
        (lambda rng, n: np.minimum(rng.lognormal(4, 0.8, n), 512), None),
    ],
    ids=["normal", "exponential", "lengths with a limit"],
)
def test_means_cover(draw: Draw, truth: float | None, count: int) -> None:
    rng = np.random.default_rng(count)
    if truth is None:
        truth = float(draw(rng, 2_000_000).mean())
    assert coverage(intervals.mean, lambda: (draw(rng, count),), truth) >= NARROWEST


@pytest.mark.parametrize("count", [32, 64])
@pytest.mark.parametrize(
    "chances", [(0.01, 0.0), (0.03, 0.0), (0.1, 0.0), (0.5, 0.0), (0.95, 0.0), (0.02, 0.1), (0.05, 0.3), (0.2, 0.6)]
)
def test_rare_wins_cover(chances: tuple[float, float], count: int) -> None:
    """Wins and ties of the given chances."""
    win, tie = chances
    rng = np.random.default_rng(count)
    share = coverage(
        intervals.bounded_mean,
        lambda: (rng.choice([1, 0.5, 0], count, p=[win, tie, 1 - win - tie]),),
        win + tie / 2,
    )
    assert share >= NARROWEST


@pytest.mark.parametrize("count", [32, 64])
def test_overlaps_cover(count: int) -> None:
    rng = np.random.default_rng(count)
    assert coverage(intervals.bounded_mean, lambda: (rng.beta(2, 5, count),), 2 / 7) >= NARROWEST
    sparse = coverage(intervals.bounded_mean, lambda: ((rng.random(count) < 0.2) * rng.beta(2, 3, count),), 0.08)
    assert sparse >= NARROWEST


@pytest.mark.parametrize("count", [32, 64])
def test_ratios_of_lengths_cover(count: int) -> None:
    rng = np.random.default_rng(count)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        common = rng.normal(size=count)
        return tuple(np.exp(0.6 * (0.7 * common + 0.714 * rng.normal(size=count))) for _ in range(2))

    assert coverage(intervals.ratio, draw, 1.0) >= NARROWEST


@pytest.mark.parametrize("count", [32, 64])
@pytest.mark.parametrize("chances", [(0.02, 0.0), (0.05, 0.03), (0.2, 0.1)])
def test_differences_of_events_cover(chances: tuple[float, float], count: int) -> None:
    more, less = chances
    rng = np.random.default_rng(count)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(count), rng.choice([1.0, -1.0, 0.0], count, p=[more, less, 1 - more - less])

    assert coverage(lambda *both: intervals.difference(*both, unit=1), draw, more - less) >= NARROWEST


@pytest.mark.parametrize("count", [32, 64])
def test_differences_where_few_prompts_differ_cover(count: int) -> None:
    """Two greedy students mostly say the same."""
    rng = np.random.default_rng(count)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(count), (rng.random(count) < 0.15) * rng.normal(0.02, 0.1, count)

    assert coverage(intervals.difference, draw, 0.003) >= NARROWEST
