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
"""A loss that is linear in the log-probabilities of whole texts: so losses of pairs reach verl's engines."""

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

# Gradient of the loss by a row's log-probability, (R,).
ROW_GRADIENT = "gad_row_gradient"


def row_gradient_loss(
    model_output: dict[str, Any], data: TensorDict, dp_group: Any = None
) -> tuple[Tensor, dict[str, Any]]:
    """Sum over the rows of gradient times log-probability; times the number of ranks, as verl wants.

    Args:
        model_output: ``log_probs`` of all tokens, nested or flat, at each the one of the next.
        data: Rows with ``loss_mask`` and ``gad_row_gradient``.
        dp_group: Unused.
    """
    log_probs = model_output["log_probs"]
    flat = log_probs.values() if log_probs.is_nested else log_probs
    mask = torch.roll(data["loss_mask"].values(), shifts=-1, dims=0).to(flat)
    lengths = data["input_ids"].offsets().diff()
    gradients = data[ROW_GRADIENT].to(flat).repeat_interleave(lengths.to(flat.device))
    # Tokens without a loss may have no finite log-probability.
    return torch.where(mask > 0, flat * gradients, torch.zeros_like(flat)).sum() * data["dp_size"], {}
