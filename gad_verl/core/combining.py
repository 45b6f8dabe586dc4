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
"""The discriminator's reward and a check of the answer in one number: sum, product or gate.

A sum still rewards an answer that fails the check and pleases the discriminator; the product and the gate do not (VARL,
arXiv 2607.01181, multiplies correctness and the discriminator's probability). Shape letters as in
:mod:`gad_verl.core.reward_shaping`.
"""

import torch
from torch import Tensor

from gad_verl.core.reward_shaping import unanswered_rewards

SUM, PRODUCT, GATE = "sum", "product", "gate"
COMBINATIONS = (SUM, PRODUCT, GATE)

# With a gate: spreads by which an answer that fails lies below the worst that passes.
_FAILING_PENALTY = 1.0


def combined_rewards(
    scores: Tensor, task: Tensor, teacher_scores: Tensor, weights: Tensor, mode: str, weight: float, passing: float
) -> Tensor:
    """Rewards (G, n).

    Args:
        scores: (G, n) the discriminator's part; not finite where it gave none.
        task: (G, n) the check's rewards.
        teacher_scores: (G,) scores of the teacher's texts; read by ``product``.
        weights: (G, n), 0 where there is no answer.
        mode: ``sum``: scores + weight * task. ``product``: weight * task * sigmoid(score - the teacher's), the
            probability that the discriminator takes the answer for the teacher's. ``gate``: the score where the answer
            passes, elsewhere less than the worst of its group that does; a group of which none passes gives no
            direction.
        weight: Of the check's rewards; not read by ``gate``.
        passing: Reward from which an answer passes; read by ``gate``.
    """
    task = task.to(scores.dtype)
    if mode == SUM:
        return scores + weight * task
    if mode == PRODUCT:
        return weight * task * torch.sigmoid(scores - teacher_scores.unsqueeze(1).to(scores.dtype))
    passes = (task >= passing) & (weights > 0)
    known = passes & torch.isfinite(scores)
    if not bool(known.any()):
        return torch.where(passes, scores, torch.zeros_like(scores))
    failing = unanswered_rewards(scores, known, _FAILING_PENALTY).unsqueeze(1)
    return torch.where(passes, scores, failing.expand_as(scores))


def without_unknown(task: Tensor, weights: Tensor) -> tuple[Tensor, int]:
    """Rewards of a check with those that are not finite set to the mean of their group: no direction.

    Args:
        task: (G, n).
        weights: (G, n), 0 where there is no answer.

    Returns:
        Rewards, and how many of answers were unknown. A group of which none is known gets the mean of all, or 0.
    """
    known = torch.isfinite(task) & (weights > 0)
    safe = torch.where(known, task, torch.zeros_like(task))
    counts = known.sum(dim=1, keepdim=True)
    everywhere = safe.sum() / known.sum().clamp(min=1)
    means = torch.where(counts > 0, safe.sum(dim=1, keepdim=True) / counts.clamp(min=1), everywhere)
    unknown = int(((weights > 0) & ~known).sum().item())
    return torch.where(torch.isfinite(task), task, means.expand_as(task)), unknown
