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
"""From the discriminator's scores to the rewards of tokens: options, sessions, trajectories, tokens."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gad_verl.config import RewardConfig
from gad_verl.core.reward_shaping import unanswered_rewards
from gad_verl.core.rewards import sequence_rewards_to_token_level
from gad_verl.core.token_credit import TURN
from gad_verl.discriminator.worker_group import DiscriminatorOutput
from gad_verl.trainer.encoding import EncodedGroup, Encoding
from gad_verl.trainer.reward_options import Answers, Metrics, RewardOption
from gad_verl.trainer.rollouts import Rollouts, StepRollouts, session_of
from gad_verl.trainer.token_credit import mix_credit, response_credit
from gad_verl.trainer.turn_credit import turn_credit

# Rewards of verl's reward interface for all trajectories.
TaskRewards = Callable[[StepRollouts], list[float]]


def trajectory_rewards(
    rollouts: StepRollouts, scores: Tensor, weights: Tensor, unclosed_penalty: float = 0.0
) -> tuple[Tensor, int]:
    """Rewards of all trajectories; every output of a session gets the score of its last one.

    A session whose score is not finite gets the mean of its group: no direction for the student instead of a made-up
    one. One without an answer gets :func:`gad_verl.core.reward_shaping.unanswered_rewards`.

    Args:
        rollouts: N trajectories of G groups.
        scores: (G, n).
        weights: (G, n), 0 where the discriminator read nothing.
        unclosed_penalty: ``gad.thinking.unclosed_penalty``.

    Returns:
        Rewards (N,) float32, and how many scores of answers were not finite.

    Raises:
        FloatingPointError: If there is an answer, and no score is finite.
    """
    if not bool((weights > 0).any()):
        # No rollout of the step came to its answer: nothing is better than anything else.
        return torch.zeros(len(rollouts.keys)), 0
    known = torch.isfinite(scores) & (weights > 0)
    if not bool(known.any()):
        raise FloatingPointError(
            "every score of the discriminator is nan or inf. Lower discriminator.optim.lr or "
            "discriminator.optim.clip_grad, and resume from the last checkpoint"
        )

    @cache
    def unanswered() -> list[float]:
        return unanswered_rewards(scores, known, unclosed_penalty).tolist()

    of_session: dict[str, float] = {}
    nonfinite = 0
    for number, group in enumerate(rollouts.groups):
        of_group = scores[number][known[number]]
        fallback = of_group.mean().item() if len(of_group) else scores[known].mean().item()
        for place, session in enumerate(group.sessions):
            if session is None:
                continue
            score = scores[number, place].item()
            if session.answer_ids is None:
                score = unanswered()[number]
            elif not math.isfinite(score):
                nonfinite += 1
                score = fallback
            of_session[session_of(rollouts.keys[session.row])] = score
    return torch.tensor([of_session[session_of(key)] for key in rollouts.keys], dtype=torch.float32), nonfinite


def without_direction(rewards: Tensor, rollouts: StepRollouts) -> Tensor:
    """Rewards (N,) with 0 for a response without siblings, for estimators that compare them (GRPO and its kin).

    They would take the only score of a group for its advantage, and the level of D's scores is free. A response is
    alone where the others have failed, and at the switch of the stages, where an asynchronous run still has prompts of
    the warmup, asked for ``gad.warmup_rollout_n`` rollouts.
    """
    came = [[one for one in group.sessions if one is not None] for group in rollouts.groups]
    alone = {session_of(rollouts.keys[sessions[0].row]) for sessions in came if len(sessions) == 1}
    if not alone:
        return rewards
    return torch.where(torch.tensor([session_of(key) in alone for key in rollouts.keys]), 0.0, rewards)


def without_level(rewards: Tensor, rollouts: StepRollouts) -> Tensor:
    """Rewards (N,) less the mean of the responses to the same prompt.

    Where a response has rewards on several tokens, their common mean does not take the free level of D's scores off the
    one that holds the score: it would count once for each rewarded token.
    """
    result = rewards.clone()
    place = {session_of(key): row for row, key in enumerate(rollouts.keys)}
    of_session = [place[session_of(key)] for key in rollouts.keys]
    for group in rollouts.groups:
        rows = [place[session_of(rollouts.keys[one.row])] for one in group.sessions if one is not None]
        if rows:
            result[rows] -= rewards[rows].mean()
    return result[of_session]


class Rewards:
    """The student's rewards.

    Args:
        config: ``gad.reward``.
        options: What it asks for (:func:`gad_verl.trainer.reward_options.reward_options`).
        rollouts: Where they are written.
        encoding: Of the student's texts.
        task_rewards: Asked where ``gad.reward.task_weight`` is positive.
        unclosed_penalty: ``gad.thinking.unclosed_penalty``.
        compares_siblings: Whether advantages compare the responses to one prompt.
    """

    def __init__(
        self,
        config: RewardConfig,
        options: dict[str, RewardOption],
        rollouts: Rollouts,
        encoding: Encoding,
        task_rewards: TaskRewards,
        unclosed_penalty: float = 0.0,
        compares_siblings: bool = True,
    ) -> None:
        self._config, self._rollouts, self._encoding = config, rollouts, encoding
        self._task_rewards = task_rewards
        self._options, self._unclosed_penalty = options, unclosed_penalty
        self._compares_siblings = compares_siblings
        # Of the step: the check may be asked by the discriminator first.
        self._checked: tuple[StepRollouts, Tensor] | None = None

    def write_scores(self, rollouts: StepRollouts, scores: Tensor, weights: Tensor) -> dict[str, float]:
        """Write scores (G, n) as they are, for steps and validations without a policy gradient; returns metrics."""
        rewards, nonfinite = trajectory_rewards(rollouts, scores, weights, self._unclosed_penalty)
        self._rollouts.write_rewards(rollouts, self._on_last_tokens(rollouts, rewards))
        return {"gad/nonfinite_scores": float(nonfinite)}

    def write_nothing(self, rollouts: StepRollouts) -> None:
        """Write zeros."""
        self._rollouts.write_rewards(rollouts, self._on_last_tokens(rollouts, torch.zeros(len(rollouts.keys))))

    def write(
        self,
        rollouts: StepRollouts,
        encoded: Sequence[EncodedGroup],
        output: DiscriminatorOutput,
        length_penalty: float,
    ) -> dict[str, float]:
        """Write the rewards of a step of the adversarial stage; returns metrics.

        Args:
            rollouts: G groups.
            encoded: The same as the discriminator read them.
            output: What it said of them.
            length_penalty: The guardian's knob.
        """
        answers = self._answers(rollouts, encoded, output, length_penalty)
        rewards, metrics = output.student_scores, Metrics()
        for option in self._options.values():
            rewards, more = option.apply(rewards, answers)
            metrics |= more
        of_rows, nonfinite = trajectory_rewards(rollouts, rewards, output.weights, self._unclosed_penalty)
        if self._compares_siblings:
            of_rows = without_direction(of_rows, rollouts)
            if output.student_values is not None:
                of_rows = without_level(of_rows, rollouts)
        of_tokens = self._on_last_tokens(rollouts, of_rows)
        if output.student_values is not None:
            unit = self._config.phrase_unit
            credit = [
                turn_credit(group, encoding, values, mean=encoding.ends is not None)
                if unit == TURN
                else response_credit(group, encoding, values, self._encoding, unit)
                for group, encoding, values in zip(rollouts.groups, encoded, output.student_values, strict=True)
            ]
            metrics |= mix_credit(of_tokens, of_rows, rollouts.groups, credit, self._config)
        self._rollouts.write_rewards(rollouts, of_tokens)
        return metrics | {"gad/nonfinite_scores": float(nonfinite)}

    def passes(self, rollouts: StepRollouts) -> list[list[bool]]:
        """Which responses pass the check; what it knows nothing of, and what did not come, does not."""
        return (self._of_check(rollouts) >= self._config.task_passing).tolist()

    def _of_check(self, rollouts: StepRollouts) -> Tensor:
        """Rewards of the check, (G, n); 0 where no trajectory came. Each step is asked once."""
        if self._checked is None or self._checked[0] is not rollouts:
            of_rows = self._task_rewards(rollouts)
            found = [[0.0 if one is None else of_rows[one.row] for one in group.sessions] for group in rollouts.groups]
            self._checked = rollouts, torch.tensor(found)
        return self._checked[1]

    def _on_last_tokens(self, rollouts: StepRollouts, rewards: Tensor) -> list[Tensor]:
        lengths = torch.tensor(rollouts.lengths)
        return sequence_rewards_to_token_level(rewards, lengths, self._rollouts.last_sampled(rollouts))

    def _answers(
        self,
        rollouts: StepRollouts,
        encoded: Sequence[EncodedGroup],
        output: DiscriminatorOutput,
        length_penalty: float,
    ) -> Answers:
        def texts() -> list[list[str | None]]:
            text = self._encoding.text
            return [[None if one is None else text(one) for one in group.answers] for group in rollouts.groups]

        return Answers(
            teacher_scores=output.teacher_scores,
            weights=output.weights,
            valid=output.weights * torch.isfinite(output.student_scores),
            lengths=torch.tensor([[1 if s is None else len(s.own_ids) for s in one.students] for one in encoded]),
            finished=torch.tensor([[s is None or s.finished for s in one.students] for one in encoded]),
            teacher_lengths=torch.tensor([len(one.teacher.own_ids) for one in encoded]),
            length_penalty=length_penalty,
            texts=texts,
            task_rewards=lambda: self._of_check(rollouts),
        )

    def state_dict(self) -> dict[str, Any]:
        """What the options have learned, by their names."""
        return {name: option.state_dict() for name, option in self._options.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned; options that are new since begin anew."""
        for name, option in self._options.items():
            if name in state:
                option.load_state_dict(state[name])
