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
"""Advantages of the student's responses, and the estimate of its distance from the reference."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

_EPSILON = 1e-6


def group_advantages(rewards: Tensor, weights: Tensor, divide_by_std: bool = True) -> Tensor:
    """GRPO's advantages: reward less its group's mean, over the group's standard deviation.

    Source: DeepSeekMath (arXiv 2402.03300); verl/trainer/ppo/core_algos.py, ``compute_grpo_outcome_advantage``.

    Args:
        rewards: (G, n).
        weights: (G, n); a response of weight 0 takes no part. One that is alone in its group keeps its reward.
        divide_by_std: False leaves the advantages in the unit of the rewards (:mod:`gad_verl.core.objective`).

    Returns:
        (G, n), 0 where the weight is 0.
    """
    used = weights > 0
    count = used.sum(dim=1, keepdim=True)
    mean = torch.where(used, rewards, 0.0).sum(dim=1, keepdim=True) / count.clamp(min=1)
    squares = torch.where(used, (rewards - mean) ** 2, 0.0).sum(dim=1, keepdim=True)
    std = (squares / (count - 1).clamp(min=1)).sqrt()
    mean, std = torch.where(count > 1, mean, 0.0), torch.where(count > 1, std, 1.0)
    return torch.where(used, (rewards - mean) / (std + _EPSILON if divide_by_std else 1.0), 0.0)


def low_variance_kl(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(student, reference) per token from sampled tokens, in nats.

    Source: Schulman's k3; clamped as verl does (``kl_penalty`` with ``low_var_kl``).

    Args:
        log_probs, reference: (T,) log-probabilities of the sampled tokens.
    """
    difference = (reference - log_probs).clamp(-20, 20)
    return (difference.exp() - difference - 1).clamp(-10, 10)


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
