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
"""The discriminator's loss in the form that verl's engines call."""

from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from gad_verl.core import bradley_terry_loss
from gad_verl.discriminator.groups import split_group_scores


def last_token_scores(values: torch.Tensor) -> torch.Tensor:
    """Score of each sequence: the value at its last token.

    Args:
        values: Nested (rows, tokens), jagged.

    Returns:
        (rows,) in float32, with gradient.
    """
    return values.values()[values.offsets()[1:] - 1].float()


def discriminator_loss(
    model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Loss of a micro-batch, so divided that all micro-batches of all ranks add up to the loss of the WHOLE batch.

    Groups (``build_group_batch``) give the Bradley-Terry loss over the pairs of the batch; single rows with the
    gradients of their scores (``build_row_batch``) give the linear form of the second of two passes. verl averages
    gradients over the data-parallel ranks, so the loss is multiplied by their number. Signature of verl's loss
    functions (verl/workers/utils/losses.py).

    Args:
        model_output: ``values`` nested (rows, tokens).
        data: Micro-batch; the engine sets ``dp_size``.
        dp_group: Unused.
    """
    scores = last_token_scores(model_output["values"])
    dp_size = tu.get_non_tensor_data(data, "dp_size", default=1)
    with torch.autocast(device_type=scores.device.type, enabled=False):
        if "score_gradient" in data.keys():
            loss = (scores * data["score_gradient"].to(scores.device)).sum()
        else:
            group_size = tu.get_non_tensor_data(data, "force_group_size", default=None)
            num_pairs = tu.get_non_tensor_data(data, "num_pairs", default=None)
            teacher, student = split_group_scores(scores, group_size)
            weights = data["pair_weight"].view(-1, group_size)[:, 1:].to(scores.device)
            loss = bradley_terry_loss(teacher, student, weights=weights, num_pairs=num_pairs)
    return loss * dp_size, {}
