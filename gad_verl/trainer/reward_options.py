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
"""Options of ``gad.reward``: each is a small class with one hook, applied in a fixed order (:func:`reward_options`)."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gad_verl.config import RewardConfig
from gad_verl.core.combining import combined_rewards, without_unknown
from gad_verl.core.reward_shaping import (
    GROUP_WHITENING,
    NO_CORRECTION,
    REGRESSION,
    RUNNING_WHITENING,
    LengthRegression,
    RunningWhitening,
    clip_margins,
    correct_length,
    group_spreads,
    whiten_groups,
)

# What a tokenizer puts in the place of bytes that are no text.
_UNDECODABLE = "\ufffd"


@dataclass(frozen=True)
class Answers:
    """What is known of the responses of a step, (G, n) each.

    Args:
        teacher_scores: (G,) scores of the teacher's texts.
        weights: 1 where the discriminator read the response, 0 elsewhere.
        valid: ``weights``, 0 also where the score is not finite.
        lengths: Tokens; 1 where there is no answer.
        finished: Whether a response ended by itself; True where there is none.
        teacher_lengths: (G,) tokens of the teacher's text.
        length_penalty: The guardian's knob: off a reward, in units of its group's spread, for each teacher's length.
        texts: Returns the texts; None where there is no answer.
        task_rewards: Returns the rewards of verl's reward interface.
    """

    teacher_scores: Tensor
    weights: Tensor
    valid: Tensor
    lengths: Tensor
    finished: Tensor
    teacher_lengths: Tensor
    length_penalty: float
    texts: Callable[[], Sequence[Sequence[str | None]]]
    task_rewards: Callable[[], Tensor]


Metrics = dict[str, float]


class RewardOption(ABC):
    """One option. Scores that are not finite stay so: what becomes of them is decided where rewards are written."""

    @abstractmethod
    def apply(self, rewards: Tensor, answers: Answers) -> tuple[Tensor, Metrics]:
        """Rewards (G, n) after this option, and its metrics.

        Args:
            rewards: (G, n), as the options before it left them.
            answers: The responses.
        """

    def state_dict(self) -> dict[str, Any]:
        """What it has learned over the steps; JSON-able."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  most options learn nothing
        """What :meth:`state_dict` returned."""


@dataclass
class ClippedMargins(RewardOption):
    """Scores at most ``limit`` away from the teacher's."""

    limit: float

    def apply(self, rewards: Tensor, answers: Answers) -> tuple[Tensor, Metrics]:
        clipped = clip_margins(rewards, answers.teacher_scores, self.limit)
        return clipped, {"gad/reward_clipped_fraction": _mean((clipped != rewards).float(), answers.valid)}


class RegressedLength(RewardOption):
    """What length explains of the scores is taken off, by a regression over the steps.

    Args:
        memory: Of the regression, in [0, 1).
    """

    def __init__(self, memory: float) -> None:
        self._regression = LengthRegression(memory)

    def apply(self, rewards: Tensor, answers: Answers) -> tuple[Tensor, Metrics]:
        self._regression.observe(rewards, answers.lengths, answers.valid)
        rewards = self._regression.residual(rewards, answers.lengths, answers.valid)
        return rewards, {"gad/reward_length_slope": self._regression.slope}

    def state_dict(self) -> dict[str, Any]:
        return self._regression.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._regression.load_state_dict(state)


@dataclass
class FixedLengthCorrection(RewardOption):
    """A fixed price of length (:func:`gad_verl.core.reward_shaping.correct_length`)."""

    mode: str
    coefficient: float

    def apply(self, rewards: Tensor, answers: Answers) -> tuple[Tensor, Metrics]:
        return correct_length(rewards, answers.lengths, self.mode, self.coefficient), {}


class GuardianLengthPenalty(RewardOption):
    """The guardian's knob; nothing while it is 0."""

    def apply(self, rewards: Tensor, answers: Answers) -> tuple[Tensor, Metrics]:
        if answers.length_penalty <= 0:
            return rewards, {}
        lengths = (answers.lengths / answers.teacher_lengths.unsqueeze(1)).to(rewards.dtype)
        return rewards - answers.length_penalty * group_spreads(rewards, answers.valid) * lengths, {}


class WhitenedGroups(RewardOption):
    """Mean 0 and spread 1 within each group."""

    def apply(self, rewards: Tensor, answers: Answers) -> tuple[Tensor, Metrics]:
        return whiten_groups(rewards, answers.valid), {}


class RunningWhitened(RewardOption):
    """Mean 0 and spread 1 over the steps.

    Args:
        memory: Of mean and spread, in [0, 1).
    """

    def __init__(self, memory: float) -> None:
        self._whitening = RunningWhitening(memory)

    def apply(self, rewards: Tensor, answers: Answers) -> tuple[Tensor, Metrics]:
        self._whitening.observe(rewards, answers.valid)
        return self._whitening.whiten(rewards), {}

    def state_dict(self) -> dict[str, Any]:
        return self._whitening.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._whitening.load_state_dict(state)


@dataclass
class DiscriminatorWeight(RewardOption):
    """The weight of all of the above against what follows."""

    weight: float

    def apply(self, rewards: Tensor, answers: Answers) -> tuple[Tensor, Metrics]:
        # Without a say, a score that is not finite is none either.
        return self.weight * rewards if self.weight else torch.zeros_like(rewards), {}


@dataclass
class TaskReward(RewardOption):
    """The reward of a check, with the discriminator's (:mod:`gad_verl.core.combining`)."""

    weight: float
    combination: str = "sum"
    passing: float = 0.5

    def apply(self, rewards: Tensor, answers: Answers) -> tuple[Tensor, Metrics]:
        task, unknown = without_unknown(answers.task_rewards(), answers.weights)
        passes = (task >= self.passing).float()
        rewards = combined_rewards(
            rewards, task, answers.teacher_scores, answers.weights, self.combination, self.weight, self.passing
        )
        return rewards, {
            "gad/task_reward_mean": _mean(task, answers.weights),
            "gad/task_passing_rate": _mean(passes, answers.weights),
            "gad/task_rewards_unknown": float(unknown),
        }


@dataclass
class UnfinishedPenalty(RewardOption):
    """Off the rewards of responses that the length limit cut."""

    penalty: float

    def apply(self, rewards: Tensor, answers: Answers) -> tuple[Tensor, Metrics]:
        return rewards - self.penalty * (1.0 - answers.finished.to(rewards.dtype)), {}


@dataclass
class MalformedPenalty(RewardOption):
    """Off the rewards of responses that are empty, hold bytes that are no text, or match a pattern."""

    penalty: float
    pattern: str | None

    def apply(self, rewards: Tensor, answers: Answers) -> tuple[Tensor, Metrics]:
        found = [[self._is_malformed(text) for text in row] for row in answers.texts()]
        malformed = torch.tensor(found).to(rewards.dtype)
        return rewards - self.penalty * malformed, {"gad/malformed_rate": _mean(malformed, answers.weights)}

    def _is_malformed(self, text: str | None) -> bool:
        if text is None:
            return False
        found = self.pattern is not None and re.search(self.pattern, text) is not None
        return found or not text.strip() or _UNDECODABLE in text


def reward_options(config: RewardConfig, guardian_penalizes: bool) -> dict[str, RewardOption]:
    """The options that a configuration asks for, by name and in their order.

    Args:
        config: ``gad.reward``.
        guardian_penalizes: Whether the guardian may put a price on length.
    """
    options: dict[str, RewardOption] = {}
    if config.score_clip is not None:
        options["score_clip"] = ClippedMargins(config.score_clip)
    if config.length_correction == REGRESSION:
        options["length_regression"] = RegressedLength(config.length_memory)
    elif config.length_correction != NO_CORRECTION:
        options["length_correction"] = FixedLengthCorrection(config.length_correction, config.length_coefficient)
    if guardian_penalizes:
        options["guardian_length_penalty"] = GuardianLengthPenalty()
    if config.whitening == GROUP_WHITENING:
        options["whitening"] = WhitenedGroups()
    elif config.whitening == RUNNING_WHITENING:
        options["running_whitening"] = RunningWhitened(config.whitening_memory)
    if config.discriminator_weight != 1.0:
        options["discriminator_weight"] = DiscriminatorWeight(config.discriminator_weight)
    if config.task_weight > 0:
        options["task_reward"] = TaskReward(config.task_weight, config.task_combination, config.task_passing)
    if config.unfinished_penalty > 0:
        options["unfinished_penalty"] = UnfinishedPenalty(config.unfinished_penalty)
    if config.malformed_penalty > 0:
        options["malformed_penalty"] = MalformedPenalty(config.malformed_penalty, config.malformed_pattern)
    return options


def _mean(values: Tensor, weights: Tensor) -> float:
    total = weights.sum().item()
    return (values * weights).sum().item() / total if total > 0 else 0.0
