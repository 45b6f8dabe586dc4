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
"""Rows of token ids as tensors: what the driver sends, and what each rank makes of it for verl's engines."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from gad_verl.data.image_rows import IMAGES, column, images_of_rows, set_images
from gad_verl.data.prompt_images import PromptImages


def row_tensors(
    rows: Sequence[Sequence[int]],
    score_weights: Sequence[Sequence[float]] | None = None,
    images: Sequence[PromptImages | None] | None = None,
) -> dict[str, Any]:
    """Nested, jagged: ``input_ids`` in int32 and, where scores have shares, ``score_weight`` in float32.

    Where prompts have images, ``gad_images`` beside them.
    """
    tensors: dict[str, Any] = {"input_ids": _nested(rows, np.int32)}
    if score_weights is not None:
        tensors["score_weight"] = _nested(score_weights, np.float32)
    if images is not None:
        tensors[IMAGES] = column(images)
    return tensors


def _nested(rows: Sequence[Sequence[float]], kind: type[np.generic]) -> torch.Tensor:
    offsets = torch.zeros(len(rows) + 1, dtype=torch.long)
    torch.cumsum(torch.tensor([len(row) for row in rows]), dim=0, out=offsets[1:])
    flat = np.fromiter(chain.from_iterable(rows), dtype=kind, count=int(offsets[-1]))
    return torch.nested.nested_tensor_from_jagged(torch.from_numpy(flat), offsets)


def complete_rows(data: TensorDict) -> TensorDict:
    """Add to the rows of a batch what verl's engines read and the ids tell, in place.

    Done by each rank for its own rows: the driver holds and sends four bytes a token.

    Args:
        data: Of ``build_group_batch`` or ``build_row_batch``, or a part of it.

    Returns:
        ``data`` with ``input_ids``, ``position_ids`` and ``loss_mask`` in int64; with images ``multi_modal_inputs`` as
        verl's engines read them, and (4, tokens) positions of each row.
    """
    offsets = data["input_ids"].offsets()
    ids = data["input_ids"].values().long()
    starts = torch.repeat_interleave(offsets[:-1], offsets.diff())
    columns = {
        "input_ids": ids,
        "position_ids": torch.arange(len(ids), device=ids.device) - starts,
        # verl's engine counts tokens of a loss; the pair loss has its own count, num_pairs.
        "loss_mask": torch.ones_like(ids),
    }
    for name, values in columns.items():
        data[name] = torch.nested.nested_tensor_from_jagged(values, offsets)
    images = images_of_rows(data)
    if images is not None:
        del data[IMAGES]
        set_images(data, images, offsets.diff().tolist())
    return data
