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
"""Figures with bootstrap intervals over the prompts (Efron 1979; percentile intervals)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval (95 % unless said otherwise)."""

    value: float
    low: float
    high: float

    def show(self, digits: int = 2) -> str:
        """The figure and its interval as text."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def covers(self, value: float) -> bool:
        """Whether the interval holds a value."""
        return self.low <= value <= self.high

    def widened(self, factor: float, low: float = -np.inf, high: float = np.inf) -> "Estimate":
        """The same figure with an interval wider by a factor, inside of given limits."""
        return Estimate(
            self.value,
            max(low, self.value - factor * (self.value - self.low)),
            min(high, self.value + factor * (self.high - self.value)),
        )


def draws(count: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """How often each of ``count`` prompts is drawn, shape (resamples, count).

    The same count and seed give the same draws, so that figures of two checkpoints over the same prompts are paired.
    """
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)


def bootstrap(
    columns: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int = RESAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Estimate:
    """Percentile bootstrap over the rows (the prompts).

    Args:
        columns: Shape ``(prompts, k)``: k numbers per prompt, which are drawn together.
        statistic: Maps the means of the columns, shape ``(..., k)``, to the figure, shape ``(...)``.
        resamples: Number of draws.
        seed: Seed of the draws.
        level: Share of cases in which the interval is to cover the truth.

    Raises:
        ValueError: If there is no row, or a number is not finite.
    """
    columns = np.asarray(columns, dtype=float)
    if columns.ndim != 2 or len(columns) == 0:
        raise ValueError(f"expected numbers of at least one prompt, shape (prompts, k); got shape {columns.shape}")
    if not np.isfinite(columns).all():
        raise ValueError("a number is not finite: leave out prompts without a figure first")
    # How often each prompt is drawn: the same as gathering rows, in one product of matrices.
    drawn = draws(len(columns), resamples, seed) @ columns / len(columns)
    return from_draws(float(statistic(columns.mean(axis=0))), statistic(drawn), level)


def from_draws(value: float, drawn: np.ndarray, level: float = LEVEL) -> Estimate:
    """Estimate from a figure and its bootstrap draws; draws in which it is not defined do not count."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high))


def bootstrap_mean(values: Sequence[float] | np.ndarray, seed: int = SEED) -> Estimate:
    """Mean with its interval."""
    return bootstrap(np.asarray(values, dtype=float)[:, None], lambda means: means[..., 0], seed=seed)


def bootstrap_ratio(
    numerator: Sequence[float] | np.ndarray, denominator: Sequence[float] | np.ndarray, seed: int = SEED
) -> Estimate:
    """Ratio of two means over the same prompts, with its interval."""
    columns = np.stack([np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)], axis=1)
    return bootstrap(columns, lambda means: means[..., 0] / means[..., 1], seed=seed)


def bootstrap_difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, seed: int = SEED
) -> Estimate:
    """Mean of second minus first over the same prompts: a paired interval."""
    return bootstrap_mean(np.asarray(second, dtype=float) - np.asarray(first, dtype=float), seed=seed)
