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
"""From scores of the discriminator to rewards: clip, length correction, whitening, penalties.

Shape letters: G prompts, n student responses per prompt. A group's level is free: only differences within a prompt
reach the student through a group-relative estimator.
"""

from typing import Any

import torch
from torch import Tensor

NO_CORRECTION, PER_TOKEN, LOGARITHM, REGRESSION = "none", "per_token", "log", "regression"
LENGTH_CORRECTIONS = (NO_CORRECTION, PER_TOKEN, LOGARITHM, REGRESSION)

NO_WHITENING, GROUP_WHITENING, RUNNING_WHITENING = "none", "group", "running"
WHITENINGS = (NO_WHITENING, GROUP_WHITENING, RUNNING_WHITENING)

_EPSILON = 1e-6


def group_means(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of each row of (G, n), as (G, 1); 0 where no weight is positive."""
    total = weights.sum(dim=1, keepdim=True)
    safe = torch.where(weights > 0, values, torch.zeros_like(values))
    return (safe * weights).sum(dim=1, keepdim=True) / torch.where(total > 0, total, torch.ones_like(total))


def group_spreads(values: Tensor, weights: Tensor) -> Tensor:
    """Standard deviation (n, not n - 1, in the denominator) of each row of (G, n), as (G, 1)."""
    centred = values - group_means(values, weights)
    return group_means(centred.square(), weights).sqrt()


def unanswered_rewards(rewards: Tensor, known: Tensor, penalty: float) -> Tensor:
    """Reward of a response that has no answer, (G,): the worst of its group, and ``penalty`` spreads below.

    The spread is that within the groups, over all of them, and 1 where there is none: in a group where one response
    alone has an answer, the others are worse than that one too. A group without any answer takes the worst of all.

    Args:
        rewards: (G, n).
        known: (G, n), True where a response has an answer and a finite reward; at least one is.
        penalty: Not negative.
    """
    values = torch.where(known, rewards, torch.full_like(rewards, torch.inf))
    worst = values.min(dim=1).values
    worst = torch.where(known.any(dim=1), worst, values.min())
    centred = torch.where(known, rewards - group_means(rewards, known.to(rewards.dtype)), torch.zeros_like(rewards))
    spread = (centred.square().sum() / known.sum()).sqrt()
    return worst - penalty * torch.where(spread > _EPSILON, spread, torch.ones_like(spread))


def clip_margins(student_scores: Tensor, teacher_scores: Tensor, limit: float) -> Tensor:
    """Scores that differ from the teacher's by at most ``limit``.

    Clipping the difference instead of the score itself does not depend on the level of the scores, which is free.

    Args:
        student_scores: (G, n).
        teacher_scores: (G,).
        limit: Above 0.
    """
    teacher = teacher_scores.unsqueeze(1)
    return teacher + (student_scores - teacher).clamp(-limit, limit)


class LengthRegression:
    """Slope of score over length within groups, as a moving average over steps.

    Within a group the prompt is the same, so that hard prompts with long answers do not enter the slope. Numerator and
    denominator of the least-squares slope are averaged apart, each with weight ``memory`` on the past.

    Args:
        memory: In [0, 1); 0 regresses on the latest batch alone.
    """

    def __init__(self, memory: float) -> None:
        if not 0 <= memory < 1:
            raise ValueError(f"the memory of the length regression must be in [0, 1); got {memory}")
        self._memory = memory
        self._covariance = 0.0
        self._variance = 0.0

    @property
    def slope(self) -> float:
        """Score per token; 0 while lengths never differed."""
        return self._covariance / self._variance if self._variance > 0 else 0.0

    def observe(self, scores: Tensor, lengths: Tensor, weights: Tensor) -> None:
        """Take a batch: (G, n) each; a score that is not finite is left out."""
        lengths, weights = lengths.double(), weights * torch.isfinite(scores)
        scores = torch.where(weights > 0, scores.double(), torch.zeros_like(lengths))
        centred_lengths = (lengths - group_means(lengths, weights)) * (weights > 0)
        covariance = (centred_lengths * scores).sum().item()
        variance = centred_lengths.square().sum().item()
        self._covariance = self._memory * self._covariance + (1 - self._memory) * covariance
        self._variance = self._memory * self._variance + (1 - self._memory) * variance

    def residual(self, scores: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
        """Scores (G, n) less what the length beyond the group's mean explains."""
        lengths = lengths.to(scores.dtype)
        return scores - self.slope * (lengths - group_means(lengths, weights.to(scores.dtype)))

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"covariance": self._covariance, "variance": self._variance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned."""
        self._covariance, self._variance = state["covariance"], state["variance"]


def correct_length(scores: Tensor, lengths: Tensor, mode: str, coefficient: float) -> Tensor:
    """Scores less a price of the length.

    Subtracted, not divided: the level of the scores is free, and a quotient would depend on it.

    Args:
        scores, lengths: (G, n); lengths in tokens, at least 1.
        mode: ``per_token`` (``coefficient`` per token) or ``log`` (``coefficient`` per unit of the natural logarithm of
            the length).
        coefficient: Price, in units of the score.

    Raises:
        ValueError: If the mode is none of these.
    """
    lengths = lengths.to(scores.dtype)
    if mode == PER_TOKEN:
        return scores - coefficient * lengths
    if mode == LOGARITHM:
        return scores - coefficient * lengths.clamp(min=1).log()
    raise ValueError(f"mode must be {PER_TOKEN!r} or {LOGARITHM!r}; got {mode!r}")


def whiten_groups(rewards: Tensor, weights: Tensor) -> Tensor:
    """Rewards (G, n) with mean 0 and standard deviation 1 in each group; 0 where a group has no spread.

    verl's GRPO does the same afterwards; this is for other estimators and for mixing with other rewards.
    """
    centred = rewards - group_means(rewards, weights)
    spread = group_spreads(rewards, weights)
    return torch.where(spread > _EPSILON, centred / (spread + _EPSILON), torch.zeros_like(centred))


class RunningWhitening:
    """Rewards divided by a moving standard deviation, less a moving mean: one scale for all prompts of many steps.

    Args:
        memory: Weight of the past, in [0, 1).
    """

    def __init__(self, memory: float) -> None:
        if not 0 <= memory < 1:
            raise ValueError(f"the memory of running whitening must be in [0, 1); got {memory}")
        self._memory = memory
        self._weight = 0.0
        self._mean = 0.0
        self._square = 0.0

    def observe(self, rewards: Tensor, weights: Tensor) -> None:
        """Take a batch: (G, n) each; a reward that is not finite is left out."""
        values = rewards[(weights > 0) & torch.isfinite(rewards)].double()
        if values.numel() == 0:
            return
        keep, take = self._memory, 1 - self._memory
        # The weight corrects the start, as in Adam: the first batch counts fully.
        self._weight = keep * self._weight + take
        self._mean = keep * self._mean + take * values.mean().item()
        self._square = keep * self._square + take * values.square().mean().item()

    def whiten(self, rewards: Tensor) -> Tensor:
        """Rewards of any shape; unchanged before the first batch."""
        if self._weight == 0:
            return rewards
        mean = self._mean / self._weight
        variance = max(0.0, self._square / self._weight - mean * mean)
        return (rewards - mean) / (variance**0.5 + _EPSILON)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"weight": self._weight, "mean": self._mean, "square": self._square}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned."""
        self._weight, self._mean, self._square = state["weight"], state["mean"], state["square"]
