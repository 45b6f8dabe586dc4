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

from gad_verl.core.intervals import RESAMPLES, SEED, Estimate, bootstrap, bootstrap_mean, draws, from_draws

WIN, TIE, LOSE = 1.0, 0.5, 0.0
# The regressions of so many numbers (draws times prompts) run at once.
_BLOCK = 4_000_000


def relative_score(marks: np.ndarray, seed: int = SEED) -> Estimate:
    """Score of the paper: 100 * student / (student + reference); 50 is parity.

    Student and reference stand for the sums of their marks over all prompts and both orders.

    Args:
        marks: Shape (prompts, 4), the student's text is the first.
        seed: Seed of the bootstrap.

    Returns:
        With an interval over the prompts. NaN if every mark is 0.
    """
    marks = np.asarray(marks, dtype=float)
    columns = np.stack([marks[:, 0] + marks[:, 2], marks[:, 1] + marks[:, 3]], axis=1)
    return bootstrap(columns, _share, seed=seed)


def _share(means: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return 100 * means[..., 0] / (means[..., 0] + means[..., 1])


def relative_score_difference(first: np.ndarray, second: np.ndarray, seed: int = SEED) -> Estimate:
    """Score of ``second`` minus score of ``first`` over the same prompts, with a paired interval.

    Args:
        first, second: Marks of two students, shape (prompts, 4) each, row by row the same prompts.
        seed: Seed of the bootstrap.
    """
    columns = np.concatenate(
        [
            np.stack([marks[:, 0] + marks[:, 2], marks[:, 1] + marks[:, 3]], axis=1)
            for marks in (np.asarray(first, dtype=float), np.asarray(second, dtype=float))
        ],
        axis=1,
    )
    return bootstrap(columns, lambda means: _share(means[..., 2:]) - _share(means[..., :2]), seed=seed)


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


def win_rate(outcome: np.ndarray, seed: int = SEED) -> Estimate:
    """100 * (wins + ties / 2) / prompts with an interval over the prompts; 50: parity."""
    return bootstrap_mean(100 * np.asarray(outcome, dtype=float), seed=seed)


def length_controlled_win_rate(
    outcome: np.ndarray,
    lengths: np.ndarray,
    opponent_lengths: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Estimate:
    """Win rate that would be expected if both texts of each pair were equally long.

    In the sense of AlpacaEval 2 (Dubois, Galambosi, Liang, Hashimoto 2024, "Length-Controlled AlpacaEval",
    arXiv 2404.04475): a logistic regression explains the outcome y of pair i by a constant and the difference of
    lengths,

        P(y_i = win) = sigmoid(theta + phi * tanh((l_i - o_i) / s)),    s = standard deviation of l - o,

    and the length term is then left out: 100 * sigmoid(theta). A tie counts as half a win and half a loss. Their term
    for the difficulty of each prompt is not used: it is estimated from hundreds of other models. phi has a standard
    normal prior, theta none; so with equal lengths everywhere the result is the plain win rate, and swapping the two
    sides gives 100 minus it.

    Args:
        outcome: 1, 0.5 or 0 per pair, or a mean of such.
        lengths, opponent_lengths: In tokens, of the text and of its opponent.
        resamples: Draws of the bootstrap over the pairs.
        seed: Seed of the bootstrap.
    """
    outcome = np.asarray(outcome, dtype=float)
    difference = np.asarray(lengths, dtype=float) - np.asarray(opponent_lengths, dtype=float)
    spread = difference.std()
    feature = np.tanh(difference / spread) if spread > 0 else np.tanh(np.sign(difference))
    value = _intercepts(outcome, feature, np.ones((1, len(outcome))))[0]
    drawn = draws(len(outcome), resamples, seed)
    blocks = np.array_split(drawn, max(1, drawn.size // _BLOCK))
    return from_draws(value, np.concatenate([_intercepts(outcome, feature, block) for block in blocks]))


def _intercepts(outcome: np.ndarray, feature: np.ndarray, weights: np.ndarray, steps: int = 50) -> np.ndarray:
    """100 * sigmoid(theta) per row of weights (draws, pairs), by Newton's method for all rows at once."""
    if not np.any(feature):
        return 100 * weights @ outcome / weights.sum(axis=1)
    theta = np.zeros(len(weights))
    phi = np.zeros(len(weights))
    # Without a single loss the constant has no finite maximum; sigmoid(+-20) is 1 or 0 to eight digits.
    for _ in range(steps):
        chance = 1 / (1 + np.exp(-(theta[:, None] + phi[:, None] * feature)))
        slack = weights * (outcome - chance)
        curvature = weights * chance * (1 - chance) + 1e-12
        g_theta, g_phi = slack.sum(axis=1), slack @ feature - phi
        h_tt, h_tp, h_pp = curvature.sum(axis=1), curvature @ feature, curvature @ feature**2 + 1
        determinant = h_tt * h_pp - h_tp**2
        # Both steps are bounded: the likelihood is concave, and full steps may overshoot where it is flat.
        d_theta = np.clip((h_pp * g_theta - h_tp * g_phi) / determinant, -2, 2)
        d_phi = np.clip((h_tt * g_phi - h_tp * g_theta) / determinant, -2, 2)
        theta, phi = np.clip(theta + d_theta, -20, 20), phi + d_phi
        if max(np.abs(d_theta).max(), np.abs(d_phi).max()) < 1e-9:
            break
    return 100 / (1 + np.exp(-theta))
