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
"""Figures with 95 % intervals over the prompts, which cover what they say from 32 prompts on.

A bootstrap's percentiles are too narrow for few prompts, and have no width at all where a rare event was not seen. The
formulas here were chosen by simulation (docs/evaluation.md has the figures; a test simulates again): a skewed mean by
Hall's transformation, a mean between two limits by Wilson's score interval, a ratio on its logarithm, a paired
difference with one pseudo-prompt each way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval (95 %); limits are NaN where one prompt alone tells nothing of the spread."""

    value: float
    low: float
    high: float

    def show(self, digits: int = 2) -> str:
        """The figure and its interval as text; the figure alone where there is none."""
        interval = "" if math.isnan(self.low) else f" [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{self.value:.{digits}f}{interval}"

    def covers(self, value: float) -> bool:
        """Whether the interval holds a value, or does not leave it out because there is no interval."""
        return not (value < self.low or value > self.high)

    def widened(self, factor: float, low: float = -np.inf, high: float = np.inf) -> "Estimate":
        """The same figure with an interval wider by a factor, inside of given limits; without one it has none."""
        # Of a limit that is NaN, max() and min() would return the other one.
        if math.isnan(self.low):
            return self
        return Estimate(
            self.value,
            max(low, self.value - factor * (self.value - self.low)),
            min(high, self.value + factor * (self.high - self.value)),
        )


def quantile(degrees: int, level: float = LEVEL) -> float:
    """Student's t: the two-sided limit that holds a share ``level``, in standard errors.

    Fisher's expansion in the normal quantile (Abramowitz and Stegun 26.7.5): exact for 1 and 2 degrees of freedom, to
    1 % for 3, to 1e-3 from 6 on. scipy has it to the last digit, and is no requirement of this room.

    Args:
        degrees: Of freedom, at least 1.
        level: Share that the interval is to cover.
    """
    if degrees == 1:
        return math.tan(math.pi * level / 2)
    if degrees == 2:
        return level * math.sqrt(2 / (1 - level**2))
    z = NormalDist().inv_cdf((1 + level) / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))


def _checked(*columns: Values) -> list[np.ndarray]:
    """The same prompts in several columns.

    Raises:
        ValueError: If there is no prompt, the columns differ in length, or a number is not finite.
    """
    arrays = [np.asarray(column, dtype=float) for column in columns]
    if any(array.ndim != 1 or not len(array) or len(array) != len(arrays[0]) for array in arrays):
        raise ValueError(
            f"expected one number of each of at least one prompt; got shapes {[array.shape for array in arrays]}"
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a number is not finite: leave out prompts without a figure first")
    return arrays


def student(value: float, deviations: Values) -> Estimate:
    """Student's interval of a figure.

    Args:
        value: The figure.
        deviations: Shape (prompts,): what each prompt adds to its deviation, of mean 0. For a smooth function of means
            these are the terms of its first order.
    """
    (deviations,) = _checked(deviations)
    count = len(deviations)
    if count < 2:
        return Estimate(value, float("nan"), float("nan"))
    half = quantile(count - 1) * float(deviations.std(ddof=1)) / math.sqrt(count)
    return Estimate(value, value - half, value + half)


def skewed(value: float, deviations: Values) -> Estimate:
    """Hall's interval (1992, "On the removal of skewness by transformation") of a figure that is a mean.

    Args:
        value: The figure.
        deviations: As for :func:`student`.
    """
    (deviations,) = _checked(deviations)
    count = len(deviations)
    # Of numbers that are all the same, what differs is rounding.
    spread = float(deviations.std(ddof=1)) if count > 1 else 0.0
    if count < 3 or spread <= 1e-12 * max(1.0, abs(value)):
        return student(value, deviations)
    skew = float(((deviations / spread) ** 3).mean())
    if abs(skew) < 1e-6:
        return student(value, deviations)
    limit = quantile(count - 1) / math.sqrt(count)

    def standard(bound: float) -> float:
        return 3 / skew * (float(np.cbrt(1 + skew * (bound - skew / (6 * count)))) - 1)

    return Estimate(value, value - standard(limit) * spread, value - standard(-limit) * spread)


def mean(values: Values) -> Estimate:
    """Mean of numbers without limits."""
    (values,) = _checked(values)
    value = float(values.mean())
    return skewed(value, values - value)


def score(value: float, dispersion: float, count: int, low: float = 0.0, high: float = 1.0) -> Estimate:
    """Wilson's score interval (1927) of a figure between two limits.

    Args:
        value: The figure.
        dispersion: Its variance times the prompts, in that of an event of the same chance: 1 for wins and losses, less
            where ties or shades bring the prompts nearer to each other.
        count: Prompts.
        low, high: What the figure can be.
    """
    if count < 2:
        return Estimate(value, low, high)
    share = (value - low) / (high - low)
    k = quantile(count - 1) ** 2 * dispersion / count
    middle = (share + k / 2) / (1 + k)
    half = math.sqrt(k * (share * (1 - share) + k / 4)) / (1 + k)
    # The ends are reached exactly where nothing, or everything, was seen.
    bounds = (min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))
    return Estimate(value, *(low + (high - low) * bound for bound in bounds))


def dispersion_with_ties(outcomes: Values) -> float:
    """Variance of wins (1), ties (1/2) and losses (0) in that of an event of the same chance.

    Ties alone do not show that there is nothing else: not below that with one more win and one more loss.
    """
    (outcomes,) = _checked(outcomes)

    def dispersion(values: np.ndarray) -> float:
        event = float(values.mean() * (1 - values.mean()))
        return float(values.var(ddof=1)) / event if event > 1e-12 and len(values) > 1 else 1.0

    return max(dispersion(outcomes), dispersion(np.append(outcomes, [0.0, 1.0])))


def bounded(value: float, deviations: Values, low: float = 0.0, high: float = 1.0) -> Estimate:
    """Interval of a figure between two limits, from each prompt's share in its deviation (of mean 0)."""
    (deviations,) = _checked(deviations)
    count, share = len(deviations), (value - low) / (high - low)
    event = share * (1 - share)
    # At a limit nothing is known of the spread: that of an event, the largest that there can be.
    dispersion = 1.0
    if event > 1e-12 and count > 1:
        dispersion = float((deviations / (high - low)).var(ddof=1)) / event
    return score(min(high, max(low, value)), dispersion, count, low, high)


def bounded_mean(values: Values, low: float = 0.0, high: float = 1.0) -> Estimate:
    """Mean of numbers between two limits, such as wins and losses, or an overlap."""
    (values,) = _checked(values)
    value = float(values.mean())
    return bounded(value, values - value, low, high)


def ratio(numerator: Values, denominator: Values) -> Estimate:
    """Ratio of the means of two positive columns over the same prompts."""
    above, below = _checked(numerator, denominator)
    value = float(above.mean() / below.mean())
    if value <= 0:
        return student(value, (above - value * below) / below.mean())
    logarithm = student(math.log(value), above / above.mean() - below / below.mean())
    return Estimate(value, math.exp(logarithm.low), math.exp(logarithm.high))


def difference(first: Values, second: Values, unit: float = 0.0) -> Estimate:
    """Mean of second minus first over the same prompts: a paired interval.

    Where few prompts differ, one more that does would move the mean. So the spread is that with two pseudo-prompts, one
    each way (Bonett and Price 2012, for events), of the size of the differences that there are, less where most
    prompts differ anyway.

    Args:
        first, second: One number per prompt.
        unit: Least size of a pseudo-prompt's difference; that of an event, such as a win.
    """
    first, second = _checked(first, second)
    differences = second - first
    value = float(differences.mean())
    if len(differences) < 2:
        return student(value, differences)
    seen = differences[differences != 0]
    alike = 1 - len(seen) / len(differences)
    size = max(unit, alike * float(np.sqrt((seen**2).mean())) if len(seen) else 0.0)
    if size == 0:
        return student(value, differences - value)
    # Of events the pseudo-prompts are events as well, and draw the middle to none.
    middle = 0.0 if unit else value
    more = np.append(differences, [middle + size, middle - size])
    interval = student(float(more.mean()), more - more.mean())
    return Estimate(value, min(value, interval.low), max(value, interval.high))
