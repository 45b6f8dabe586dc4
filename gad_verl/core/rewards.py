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
"""From scores of the discriminator to the token-level reward that verl's estimators read."""

import torch
from torch import Tensor


def sequence_rewards_to_token_level(
    rewards: Tensor, response_lengths: Tensor, places: Tensor | None = None
) -> list[Tensor]:
    """Put the reward of each sequence on its last response token (verl's ``rm_scores``).

    Args:
        rewards: (N,) reward of each sequence.
        response_lengths: (N,) number of response tokens of each sequence, at least 1.
        places: (N,) positions in the responses that get the rewards; None means their last tokens.

    Returns:
        N tensors of shape (response_length,), float32, zero but for the last entry (or that at ``places``).

    Raises:
        ValueError: If shapes differ, a reward is not finite, or a response has no token.
    """
    if rewards.dim() != 1 or rewards.shape != response_lengths.shape:
        raise ValueError(
            f"rewards and response_lengths must both be (N,): {tuple(rewards.shape)}, {tuple(response_lengths.shape)}"
        )
    if not bool(torch.isfinite(rewards).all()):
        bad = torch.nonzero(~torch.isfinite(rewards)).flatten().tolist()
        raise ValueError(f"rewards are not finite at rows {bad[:8]}")
    if bool((response_lengths < 1).any()):
        bad = torch.nonzero(response_lengths < 1).flatten().tolist()
        raise ValueError(f"responses without any token cannot carry a reward: rows {bad[:8]}")
    token_level = []
    at = response_lengths - 1 if places is None else places
    for reward, length, place in zip(rewards.float(), response_lengths.tolist(), at.tolist(), strict=True):
        row = torch.zeros(int(length), dtype=torch.float32)
        row[int(place)] = reward
        token_level.append(row)
    return token_level
