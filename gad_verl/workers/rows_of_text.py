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
"""Corrections of verl 0.9.1: rows of text on a Qwen2-VL or Qwen2.5-VL (verl/models/transformers/qwen2_vl.py).

Where no row of a micro-batch has an image (rows of text, and the rows that fill up a batch), verl shows the model a
blank one, so that its eyes take part in every backward, and takes what they return for a tensor; the transformers that
verl 0.9.1 asks for return an object. And positions must come in four rows, which are alike for a text. Qwen3-VL and
Qwen3.5 are right.
"""

import functools
from typing import Any

import torch


def correct_rows_of_text(qwen2_vl: Any) -> None:
    """Replace two functions of verl's module, for micro-batches without images."""
    original = qwen2_vl._get_input_embeds

    @functools.wraps(original)
    def get_input_embeds(
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        *grids: Any,
        **more_grids: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if pixel_values is not None or pixel_values_videos is not None:
            return original(model, input_ids, attention_mask, pixel_values, pixel_values_videos, *grids, **more_grids)
        embeds = model.get_input_embeddings()(input_ids)
        config = model.config.vision_config
        width = config.in_channels * config.temporal_patch_size * config.patch_size**2
        blank = torch.zeros((16, width), dtype=embeds.dtype, device=embeds.device)
        grid = torch.tensor([[1, 4, 4]], dtype=torch.long, device=embeds.device)
        seen, _ = qwen2_vl.unpack_visual_output(model.visual(blank, grid_thw=grid))
        embeds = embeds + 0.0 * seen.mean()
        return embeds, None if attention_mask is None else attention_mask.to(embeds.device)

    qwen2_vl._get_input_embeds = get_input_embeds

    four_rows = qwen2_vl.process_position_ids

    @functools.wraps(four_rows)
    def process_position_ids(position_ids: torch.Tensor) -> torch.Tensor:
        return four_rows(position_ids.expand(4, -1, -1) if position_ids.ndim == 2 else position_ids)

    qwen2_vl.process_position_ids = process_position_ids
