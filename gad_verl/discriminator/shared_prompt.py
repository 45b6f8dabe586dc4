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
"""The prompt of a group is encoded once.

``[prompt, teacher, student_1 .. student_n]`` is one sequence with a block mask.

Every response sees the prompt and itself, with positions that go on from the prompt, so each row's values are those of
the row by itself. Needs an attention that takes a dense mask (torch's scaled dot product attention); the form for flash
attention, which takes none, is in shared_keys.py.

Shape letters: G groups, n + 1 rows each, T tokens of the longest packed group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gad_verl.core.cost_model import CostModel, packed_length, shared_lengths

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def group_parts(members: Sequence[Tensor], prompt_length: int) -> list[tuple[Tensor, int]]:
    """The prompt, and what each row has beside it.

    Args:
        members: Token ids of the rows of a group; they begin with the same prompt, placeholders apart.
        prompt_length: Tokens of that prompt.

    Returns:
        Token ids and how many tokens of the prompt come before them: of the prompt (0, and no token if the group is of
        placeholders only), then of each row (all of the prompt, or 0 for a placeholder).
    """
    shared = shared_lengths([len(row) for row in members], prompt_length)
    # The prompt is read off a row that has it.
    with_prompt = next((row[:own] for row, own in zip(members, shared, strict=True) if own), members[0][:0])
    return [(with_prompt, 0), *((row[own:], own) for row, own in zip(members, shared, strict=True))]


@dataclass(frozen=True)
class PackedGroups:
    """Groups with shared prompts, as a model reads them.

    Args:
        input_ids: (G, T), filled up with 0.
        position_ids: (G, T).
        attention_mask: (G, 1, T, T) bool, True where a query (dimension 2) sees a key (dimension 3).
        token_index: Positions, in the flattened (G * T), of the tokens of all rows one after the other: the values of
            the rows are ``values.flatten()[token_index]``.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    token_index: Tensor

    def model_inputs(self) -> dict[str, Any]:
        """Arguments of the model."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
        }


def pack_groups(rows: Sequence[Tensor], prompt_lengths: Sequence[int], group_size: int) -> PackedGroups:
    """Pack rows of groups.

    Args:
        rows: Token ids of G * ``group_size`` rows; those of a group begin with the same prompt, placeholders apart.
        prompt_lengths: G prompt lengths.
        group_size: n + 1.
    """
    device = rows[0].device
    lengths = [[len(row) for row in rows[first : first + group_size]] for first in range(0, len(rows), group_size)]
    width = max(packed_length(group, prompt) for group, prompt in zip(lengths, prompt_lengths, strict=True))
    ids = torch.zeros(len(lengths), width, dtype=torch.long, device=device)
    positions, sees_prompt = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    # Which part a token belongs to: 0 the prompt, 1 .. n + 1 the rows, -1 none.
    segments = torch.full_like(ids, -1)
    index = []
    for number, prompt in enumerate(prompt_lengths):
        base, offset = number * width, 0
        for segment, (own, before) in enumerate(
            group_parts(rows[number * group_size : (number + 1) * group_size], prompt)
        ):
            end = offset + len(own)
            ids[number, offset:end] = own
            positions[number, offset:end] = torch.arange(before, before + len(own), device=device)
            segments[number, offset:end] = segment
            sees_prompt[number, offset:end] = segment == 0 or before > 0
            if segment > 0:
                index.append(torch.arange(base, base + before, device=device))
                index.append(torch.arange(base + offset, base + end, device=device))
            offset = end
    same = segments.unsqueeze(2) == segments.unsqueeze(1)
    of_prompt = (segments == 0).unsqueeze(1) & sees_prompt.unsqueeze(2)
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    return PackedGroups(
        input_ids=ids,
        position_ids=positions,
        attention_mask=((same | of_prompt) & causal).unsqueeze(1),
        token_index=torch.cat(index),
    )


def build_cost_model(module: "PreTrainedModel") -> CostModel:
    """Cost model of a transformer from its configuration and its number of parameters."""
    config = module.config.get_text_config()
    embeddings = sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Embedding))
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return CostModel(
        per_token=sum(parameter.numel() for parameter in module.parameters()) - embeddings,
        per_pair=2 * config.num_hidden_layers * heads * head_width,
    )
