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
"""Scores and win rates out of a judge's marks: plain functions on numbers.

A pair of texts is shown to the judge twice, in both orders. ``marks`` of a pair are therefore four numbers, shape
``(4,)``: the first text's and the second text's mark where the first text came first, then both again where the second
text came first.
"""

import numpy as np

from gad_verl.core import intervals
from gad_verl.core.intervals import Estimate

WIN, TIE, LOSE = 1.0, 0.5, 0.0


def _share(marks: np.ndarray) -> tuple[float, np.ndarray]:
    """The share of the first text's marks in all, and what each prompt adds to its deviation, shape (prompts,)."""
    marks = np.asarray(marks, dtype=float)
    mine = marks[:, 0] + marks[:, 2]
    both = marks.sum(axis=1)
    if not both.any():
        return float("nan"), np.zeros(len(marks))
    share = float(mine.sum() / both.sum())
    return share, (mine - share * both) / both.mean()


def relative_score(marks: np.ndarray) -> Estimate:
    """Score of the paper: 100 * student / (student + reference); 50 is parity.

    Student and reference stand for the sums of their marks over all prompts and both orders.

    Args:
        marks: Shape (prompts, 4), the student's text is the first.

    Returns:
        With an interval over the prompts. NaN if every mark is 0.
    """
    share, deviations = _share(marks)
    if np.isnan(share):
        return Estimate(share, share, share)
    # Marks are skewed, where most texts get the lowest one; only without any mark of one side there is no spread.
    if share in (0, 1):
        return intervals.bounded(100 * share, 100 * deviations, 0, 100)
    estimate = intervals.skewed(100 * share, 100 * deviations)
    return estimate.widened(1, 0, 100)


def relative_score_difference(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Score of ``second`` minus score of ``first`` over the same prompts, with a paired interval.

    Args:
        first, second: Marks of two students, shape (prompts, 4) each, row by row the same prompts.
    """
    (one, deviations), (other, more) = _share(first), _share(second)
    if np.isnan(one) or np.isnan(other):
        return Estimate(float("nan"), float("nan"), float("nan"))
    return intervals.student(100 * (other - one), 100 * (more - deviations)).widened(1, -100, 100)


def outcomes(marks: np.ndarray) -> np.ndarray:
    """Win (1), tie (0.5) or loss (0) of the first text per pair.

    A win needs a higher mark in both orders. Equal marks in one order, or orders that disagree, are a tie: a judge that
    always prefers the place and not the text decides nothing.

    Args:
        marks: Shape (pairs, 4).

    Returns:
        Shape (pairs,).
    """
    marks = np.asarray(marks, dtype=float)
    in_order, swapped = np.sign(marks[:, 0] - marks[:, 1]), np.sign(marks[:, 2] - marks[:, 3])
    return np.where(in_order == swapped, (in_order + 1) / 2, TIE)


def position_bias(marks: np.ndarray) -> float:
    """Mean mark of what came first minus mean mark of what came second, over both orders; 0 without bias."""
    marks = np.asarray(marks, dtype=float)
    return float(np.mean((marks[:, 0] - marks[:, 1]) + (marks[:, 3] - marks[:, 2])) / 2)


def inconsistent(marks: np.ndarray) -> float:
    """Share of pairs in which one order prefers one text and the other order the other one."""
    marks = np.asarray(marks, dtype=float)
    return float(np.mean((marks[:, 0] - marks[:, 1]) * (marks[:, 2] - marks[:, 3]) < 0))


def win_rate(outcome: np.ndarray) -> Estimate:
    """100 * (wins + ties / 2) / prompts with an interval over the prompts; 50: parity."""
    values = np.asarray(outcome, dtype=float)
    dispersion = intervals.dispersion_with_ties(values)
    return intervals.score(100 * float(values.mean()), dispersion, len(values), 0, 100)


def win_rate_difference(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Win rate of ``second`` minus that of ``first`` over the same prompts, with a paired interval.

    Args:
        first, second: Outcomes of two students, shape (prompts,) each.
    """
    scaled = [100 * np.asarray(outcome, dtype=float) for outcome in (first, second)]
    return intervals.difference(*scaled, unit=100).widened(1, -100, 100)
