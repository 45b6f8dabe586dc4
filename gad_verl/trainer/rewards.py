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
"""The student's reward from the discriminator's scores, by the options of ``gad.reward``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gad_verl.config import RewardConfig
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
        lengths: Tokens; 1 where a rollout failed.
        finished: Whether a response ended by itself.
        texts: The texts; None where a rollout failed.
        teacher_lengths: (G,) tokens of the teacher's text.
        task_rewards: Reward of verl's reward interface; None where it is not asked.
        length_penalty: The guardian's knob: off a reward, in units of its group's spread, for each teacher's length.
    """

    lengths: torch.Tensor
    finished: torch.Tensor
    texts: Sequence[Sequence[str | None]]
    teacher_lengths: torch.Tensor
    task_rewards: torch.Tensor | None = None
    length_penalty: float = 0.0


@dataclass
class RewardPipeline:
    """Clip, length correction, whitening, mixing, penalties: each does nothing unless it is configured.

    Args:
        config: ``gad.reward``.
    """

    config: RewardConfig
    _regression: LengthRegression = field(init=False)
    _whitening: RunningWhitening = field(init=False)

    def __post_init__(self) -> None:
        self._regression = LengthRegression(self.config.length_memory)
        self._whitening = RunningWhitening(self.config.whitening_memory)

    def rewards(
        self,
        teacher_scores: torch.Tensor,
        student_scores: torch.Tensor,
        weights: torch.Tensor,
        answers: Answers,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Rewards of a batch.

        Scores that are not finite stay so: what becomes of them is decided where rewards are written.

        Args:
            teacher_scores: (G,).
            student_scores: (G, n).
            weights: (G, n), 0 for failed rollouts.
            answers: The responses.

        Returns:
            (G, n), and metrics. With the configuration at its defaults the rewards are ``student_scores`` itself.
        """
        config = self.config
        rewards, metrics = student_scores, {}
        valid = weights * torch.isfinite(student_scores)
        if config.score_clip is not None:
            clipped = clip_margins(rewards, teacher_scores, config.score_clip)
            metrics["gad/reward_clipped_fraction"] = _mean((clipped != rewards).float(), valid)
            rewards = clipped
        if config.length_correction == REGRESSION:
            self._regression.observe(rewards, answers.lengths, valid)
            rewards = self._regression.residual(rewards, answers.lengths, valid)
            metrics["gad/reward_length_slope"] = self._regression.slope
        elif config.length_correction != NO_CORRECTION:
            rewards = correct_length(rewards, answers.lengths, config.length_correction, config.length_coefficient)
        if answers.length_penalty > 0:
            lengths = answers.lengths / answers.teacher_lengths.unsqueeze(1)
            rewards = rewards - answers.length_penalty * group_spreads(rewards, valid) * lengths.to(rewards.dtype)
        if config.whitening == GROUP_WHITENING:
            rewards = whiten_groups(rewards, valid)
        elif config.whitening == RUNNING_WHITENING:
            self._whitening.observe(rewards, valid)
            rewards = self._whitening.whiten(rewards)
        if config.discriminator_weight != 1.0:
            rewards = config.discriminator_weight * rewards
        if answers.task_rewards is not None:
            rewards = rewards + config.task_weight * answers.task_rewards.to(rewards.dtype)
            metrics["gad/task_reward_mean"] = _mean(answers.task_rewards, weights)
        if config.unfinished_penalty > 0:
            unfinished = 1.0 - answers.finished.to(rewards.dtype)
            rewards = rewards - config.unfinished_penalty * unfinished
        if config.malformed_penalty > 0:
            malformed = self._malformed(answers.texts).to(rewards.dtype)
            metrics["gad/malformed_rate"] = _mean(malformed, weights)
            rewards = rewards - config.malformed_penalty * malformed
        return rewards, metrics

    def _malformed(self, texts: Sequence[Sequence[str | None]]) -> torch.Tensor:
        pattern = self.config.malformed_pattern

        def is_malformed(text: str | None) -> bool:
            if text is None:
                return False
            found = pattern is not None and re.search(pattern, text) is not None
            return found or not text.strip() or _UNDECODABLE in text

        return torch.tensor([[is_malformed(text) for text in row] for row in texts])

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"regression": self._regression.state_dict(), "whitening": self._whitening.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned."""
        self._regression.load_state_dict(state["regression"])
        self._whitening.load_state_dict(state["whitening"])


def _mean(values: torch.Tensor, weights: torch.Tensor) -> float:
    total = weights.sum().item()
    return (values * weights).sum().item() / total if total > 0 else 0.0
