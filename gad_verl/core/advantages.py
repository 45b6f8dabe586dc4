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
"""Advantages from token-level rewards of a group: GRPO with process supervision."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

_EPSILON = 1e-6


def group_process_advantages(
    token_rewards: Tensor, mask: Tensor, groups: Sequence[Hashable], divide_by_std: bool = True
) -> Tensor:
    """Advantage of a token: the normalised rewards from it to the end, summed.

    Source: DeepSeekMath (arXiv 2402.03300), section 4.1.3. All rewards of all responses to a prompt are normalised by
    their common mean and standard deviation; a token gets the sum of those at and after it. With one reward per
    response, on its last token, this is GRPO.

    Because every rewarded token is compared with the mean reward of a rewarded token, a response with many of them is
    not better for their number.

    Args:
        token_rewards: (N, T); a token whose reward is exactly 0 carries none.
        mask: (N, T), 1 on response tokens.
        groups: (N,) which prompt each response answers.
        divide_by_std: False leaves the advantages in the unit of the rewards (:mod:`gad_verl.core.objective`).

    Returns:
        (N, T), 0 outside the mask. A group with less than two rewards keeps them as they are, as verl's GRPO does.
    """
    mask = mask.to(token_rewards.dtype)
    rewards = token_rewards * mask
    carries = (rewards != 0).to(rewards.dtype)
    has_any = carries.sum(dim=1) > 0
    # A response whose rewards are all 0 takes part with that 0, on its last token.
    last = (mask.cumsum(dim=1) * mask).argmax(dim=1)
    carries[torch.arange(len(rewards)), last] = torch.where(has_any, carries[torch.arange(len(rewards)), last], 1.0)
    normalised = torch.zeros_like(rewards)
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    for rows in members.values():
        chosen = carries[rows].bool()
        values = rewards[rows][chosen]
        if values.numel() > 1:
            block = rewards[rows]
            block[chosen] = (values - values.mean()) / (values.std() + _EPSILON if divide_by_std else 1.0)
            normalised[rows] = block * carries[rows]
        else:
            normalised[rows] = rewards[rows]
    after = normalised.flip(1).cumsum(dim=1).flip(1)
    return after * mask
