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
"""What a batch of scores says about the discriminator: the numbers behind the metrics ``disc/*``.

Shape letters: B prompts, n student responses per prompt. Everything is computed from the scores of the discriminator
BEFORE its update on pairs it has not seen, so the accuracy is an honest one.
"""

import math

import torch
from torch import Tensor

from gad_verl.core.pair_loss import pair_margins

# A pair counts as saturated where sigmoid(margin) exceeds this: it gives (almost) no gradient any more.
SATURATION_PROBABILITY = 0.99

# Below this spread of rewards a group gives no direction to GRPO.
NO_SPREAD = 1e-6


def _mean_std(values: Tensor) -> tuple[float, float]:
    return values.mean().item(), values.std(unbiased=False).item()


def score_statistics(teacher_scores: Tensor, student_scores: Tensor, weights: Tensor | None = None) -> dict[str, float]:
    """Statistics of the scores of one batch.

    Args:
        teacher_scores: (B,).
        student_scores: (B, n).
        weights: (B, n); pairs of weight 0 (failed rollouts) are left out. None means 1.

    Returns:
        ``accuracy`` (fraction of pairs with a positive margin, ties count half), ``margin_mean``, ``margin_std``,
        ``{teacher,student}_score_{mean,std,lowest,highest}``, ``saturated_fraction``, ``no_spread_fraction`` (of groups
        with at least two responses), ``num_pairs``. Empty if there is no pair. No name contains "min": verl would
        reduce it by minimum (verl/utils/metric/utils.py).
    """
    keep = torch.ones_like(student_scores, dtype=torch.bool) if weights is None else weights > 0
    if not bool(keep.any()):
        return {}
    teacher, student = teacher_scores.detach().double(), student_scores.detach().double()
    margins = pair_margins(teacher, student)[keep]
    used_teacher, used_student = teacher[keep.any(dim=1)], student[keep]
    statistics: dict[str, float] = {
        "accuracy": ((margins > 0).double() + 0.5 * (margins == 0).double()).mean().item(),
        "saturated_fraction": (margins > math.log(SATURATION_PROBABILITY / (1 - SATURATION_PROBABILITY)))
        .double()
        .mean()
        .item(),
        "num_pairs": float(keep.sum().item()),
    }
    statistics["margin_mean"], statistics["margin_std"] = _mean_std(margins)
    for side, scores in (("teacher", used_teacher), ("student", used_student)):
        statistics[f"{side}_score_mean"], statistics[f"{side}_score_std"] = _mean_std(scores)
        statistics[f"{side}_score_lowest"] = scores.min().item()
        statistics[f"{side}_score_highest"] = scores.max().item()
    counts = keep.sum(dim=1)
    groups = counts >= 2
    if bool(groups.any()):
        highest = torch.where(keep, student, torch.full_like(student, -math.inf)).max(dim=1).values
        lowest = torch.where(keep, student, torch.full_like(student, math.inf)).min(dim=1).values
        statistics["no_spread_fraction"] = ((highest - lowest)[groups] < NO_SPREAD).double().mean().item()
    return statistics


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson correlation of two (N,) tensors; 0.0 where one of them does not vary (no correlation to speak of)."""
    if bool((first == first[0]).all()) or bool((second == second[0]).all()):
        return 0.0
    x, y = first.double() - first.double().mean(), second.double() - second.double().mean()
    scale = x.norm() * y.norm()
    return (x @ y / scale).item() if scale > 0 else 0.0
