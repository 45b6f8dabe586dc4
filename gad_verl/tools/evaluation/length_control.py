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
"""The length-controlled win rate of AlpacaEval 2, and whether it can be trusted.

Dubois, Galambosi, Liang, Hashimoto 2024, "Length-Controlled AlpacaEval" (arXiv 2404.04475). A logistic regression
explains the outcome y of pair i by the model, by the difference of lengths in characters, and by how difficult the
prompt is; the length term is then left out:

    P(y_i = win) = sigmoid(theta + phi * tanh((l_i - o_i) / s) + psi * d_i),    s = standard deviation of l - o,
    rate = 100 * mean over i of sigmoid(theta + psi * d_i).

Two parts of it exist for the 805 prompts of AlpacaEval alone, and for its judge. The difficulties d_i are fitted on
more than a hundred models' outcomes: without them d_i = 0. And phi is held by outcomes of the opponent itself, asked
to be brief and to be long, which get a fifth of the weight: here phi is held by a normal prior of the same strength.
Its mean is what that judge's phi comes to without the difficulties, its spread goes into the interval: another judge
may like length more or less.
"""

import numpy as np

from gad_verl.core.intervals import Estimate, dispersion_with_ties, score

# Ratio of the mean lengths within which the published values are met (docs/evaluation.md has the errors beyond).
BAND = (0.7, 1.5)
# phi of the published judge where difficulties are left out; the prior's weight in a pair's information (the weight of
# the opponent's own outcomes, a fifth, times what a pair tells of phi); how far another judge may lie from it.
_PRIOR_MEAN, _PRIOR_WEIGHT, _PRIOR_SPREAD = 1.0, 0.02, 1.0
# sigmoid(+-20) is 1 or 0 to eight digits: without a single loss the constant has no finite maximum.
_LARGEST = 20.0
_STEPS = 60


def refusal(lengths: np.ndarray, opponent_lengths: np.ndarray) -> str | None:
    """Why the rate cannot be trusted for these texts, in words; None where it can.

    Args:
        lengths, opponent_lengths: In characters, of the text and of its opponent, one pair a prompt.
    """
    mine, theirs = (np.asarray(column, dtype=float) for column in (lengths, opponent_lengths))
    if not theirs.any():
        return "the opponent's texts are all empty"
    ratio = float(mine.mean() / theirs.mean())
    if not BAND[0] <= ratio <= BAND[1]:
        kind = "shorter" if ratio < 1 else "longer"
        return (
            f"the texts are too much {kind} than the opponent's ({ratio:.2f} of their characters; {BAND[0]:g} to "
            f"{BAND[1]:g} can be trusted): at equal length nothing was seen"
        )
    if np.ptp(mine - theirs) == 0 and mine[0] != theirs[0]:
        return "all pairs differ by the same length, so that its effect cannot be told from the model's"
    return None


def length_controlled_win_rate(outcome: np.ndarray, lengths: np.ndarray, opponent_lengths: np.ndarray) -> Estimate:
    """Win rate that would be expected if both texts of each pair were equally long.

    A tie counts as half a win and half a loss. With equal lengths everywhere the result is the plain win rate, and
    swapping the two sides gives 100 minus it. Ask :func:`refusal` first.

    Args:
        outcome: 1, 0.5 or 0 per pair, or a preference between.
        lengths, opponent_lengths: In characters, of the text and of its opponent.

    Returns:
        With an interval over the prompts and over judges of another liking for length.
    """
    outcome = np.asarray(outcome, dtype=float)
    gap = np.asarray(lengths, dtype=float) - np.asarray(opponent_lengths, dtype=float)
    count = len(outcome)
    spread = float(gap.std(ddof=1)) if count > 1 else 0.0
    feature = np.tanh(gap / spread) if spread > 0 else np.zeros(count)
    precision = _PRIOR_WEIGHT * count
    theta, phi = _fit(outcome, feature, precision)
    chance = _sigmoid(theta + phi * feature)
    rate = float(_sigmoid(np.array(theta)))
    curvature = chance * (1 - chance) + 1e-12
    information = np.array(
        [[curvature.sum(), curvature @ feature], [curvature @ feature, curvature @ feature**2]], dtype=float
    )
    inverse = np.linalg.inv(information + np.diag([0.0, precision]))
    # Ties and preferences between 0 and 1 vary less than wins and losses do.
    varies = count > 1 and outcome.std() > 0
    less = ((outcome - chance) ** 2).sum() / curvature.sum() * count / (count - 1) if varies else 0.0
    less = max(less, dispersion_with_ties(outcome))
    variance = less * (inverse @ information @ inverse)[0, 0] + (precision * inverse[0, 1] * _PRIOR_SPREAD) ** 2
    dispersion = float(count * variance * rate * (1 - rate))
    return score(100 * rate, dispersion, count, 0, 100)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _fit(outcome: np.ndarray, feature: np.ndarray, precision: float) -> tuple[float, float]:
    """theta and phi by Newton's method."""
    values = np.array([0.0, _PRIOR_MEAN])
    columns = np.stack([np.ones_like(feature), feature], axis=1)
    prior = np.diag([0.0, precision])
    for _ in range(_STEPS):
        chance = _sigmoid(columns @ values)
        slope = columns.T @ (outcome - chance) - prior @ (values - [0.0, _PRIOR_MEAN])
        curvature = (columns.T * (chance * (1 - chance) + 1e-12)) @ columns + prior
        # Steps are bounded: the likelihood is concave, and full steps may overshoot where it is flat.
        step = np.clip(np.linalg.solve(curvature, slope), -2, 2)
        values = np.clip(values + step, -_LARGEST, _LARGEST)
        if np.abs(step).max() < 1e-9:
            break
    return float(values[0]), float(values[1])
