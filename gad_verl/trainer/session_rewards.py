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
"""The reward of each trajectory from the scores of its group."""

import math
from collections.abc import Sequence

import torch

from gad_verl.trainer.rollouts import RolloutGroup


def session_of(key: str) -> str:
    """``{uid}_{session}`` of verl's trajectory key ``{uid}_{session}_{output}``."""
    return key.rsplit("_", 1)[0]


def session_rewards(
    keys: Sequence[str], groups: Sequence[RolloutGroup], scores: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """Rewards of all trajectories; every output of a session gets the score of its last one.

    A score that is not finite is replaced by the mean of its group: no direction for the student instead of a made-up
    one.

    Args:
        keys: verl's keys of the batch, N of them.
        groups: G groups whose ``rows`` are positions in ``keys``.
        scores: (G, n).

    Returns:
        Rewards (N,) float32, and how many scores were not finite.

    Raises:
        FloatingPointError: If no score is finite.
    """
    finite = torch.isfinite(scores)
    if not bool(finite.any()):
        raise FloatingPointError(
            "every score of the discriminator is nan or inf. Lower discriminator.optim.lr or "
            "discriminator.optim.clip_grad, and resume from the last checkpoint"
        )
    of_session: dict[str, float] = {}
    nonfinite = 0
    for row, group in enumerate(groups):
        known = scores[row][finite[row]]
        fallback = known.mean().item() if len(known) else scores[finite].mean().item()
        for session, position in enumerate(group.rows):
            if position is None:
                continue
            score = scores[row, session].item()
            if not math.isfinite(score):
                nonfinite += 1
                score = fallback
            of_session[session_of(keys[position])] = score
    return torch.tensor([of_session[session_of(key)] for key in keys], dtype=torch.float32), nonfinite
