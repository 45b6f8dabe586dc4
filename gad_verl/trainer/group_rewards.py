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
"""Rewards by a function of the user that sees all answers to a prompt at once (``gad.reward.group_function``)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gad_verl.data.endings import EXTRA_INFO
from gad_verl.errors import GadConfigError
from gad_verl.trainer.encoding import Encoding
from gad_verl.trainer.rollouts import Rollouts, StepRollouts

GROUP_FUNCTION_KEY = "gad.reward.group_function"


@dataclass(frozen=True)
class AnswerGroup:
    """All answers to one prompt.

    Args:
        messages: The prompt.
        teacher_texts: The teacher's texts that take part in the step, at least one.
        answers: The student's; None for a rollout that failed or has no answer.
        extra_info: What this column of the row holds.
    """

    messages: list[dict]
    teacher_texts: tuple[str, ...]
    answers: tuple[str | None, ...]
    extra_info: Mapping[str, Any]


# All groups of a step, so that an API can be asked for all of them at the same time. Returns for each group a reward
# for each answer; None where nothing is known of one.
GroupFunction = Callable[[Sequence[AnswerGroup]], Sequence[Sequence[float | None]]]


def group_rewards(
    function: GroupFunction, where: str, rollouts: Rollouts, encoding: Encoding, step: StepRollouts
) -> list[float]:
    """Reward of each trajectory; nan where the function knows none.

    Args:
        function: The user's.
        where: Its name in the configuration.
        rollouts: Reads the fields.
        encoding: Decodes the answers.
        step: N trajectories of G groups.

    Raises:
        GadConfigError: The function does not return a reward for each answer.
    """
    extra = list(rollouts.fields(step, [EXTRA_INFO])[EXTRA_INFO])
    groups = []
    for group in step.groups:
        row = next(one.row for one in group.sessions if one is not None)
        groups.append(
            AnswerGroup(
                messages=group.messages,
                teacher_texts=tuple(one.text for one in group.teachers),
                answers=tuple(None if one is None else encoding.text(one) for one in group.answers),
                extra_info=extra[row] or {},
            )
        )
    found = _checked(function(groups), groups, where)
    rewards = [math.nan] * len(step.keys)
    for group, values in zip(step.groups, found, strict=True):
        for session, value in zip(group.sessions, values, strict=True):
            if session is not None:
                rewards[session.row] = value
    return rewards


def _checked(found: Any, groups: Sequence[AnswerGroup], where: str) -> list[list[float]]:
    """What a function returned, as numbers; nan for None.

    Raises:
        GadConfigError: It is no reward for each answer.
    """
    try:
        values = [[math.nan if value is None else float(value) for value in some] for some in found]
        fits = [len(some) for some in values] == [len(group.answers) for group in groups]
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise GadConfigError(
            f"{GROUP_FUNCTION_KEY}: {where} must return, for each of the {len(groups)} groups, a reward (a number, or "
            f"None) for each of its answers; got {repr(found)[:200]}"
        )
    return values
