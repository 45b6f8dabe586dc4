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
"""Images of the rows of a batch, on their way to a worker and as verl's engines read them."""

from collections.abc import Sequence
from typing import Any

from tensordict import NonTensorStack, TensorDict
from tensordict.tensorclass import NonTensorData
from verl.utils import tensordict_utils as tu

from gad_verl.data.prompt_images import PromptImages, positions_of

# Of each row the images of its prompt, or None: one object for all rows of a prompt, so that its pixels are sent once.
IMAGES = "gad_images"
# What verl's engines call the same for a model.
MULTI_MODAL_INPUTS = "multi_modal_inputs"


def images_of_rows(data: TensorDict) -> list[PromptImages | None] | None:
    """The column of images of a batch; None where there is no such column."""
    if IMAGES not in data.keys():
        return None
    return list(tu.get(data, IMAGES))


def set_images(data: TensorDict, images: Sequence[PromptImages | None], lengths: Sequence[int]) -> None:
    """Give a batch the images of its rows' prompts, and positions as verl's agent loop makes them, in place.

    Args:
        data: The batch.
        images: Of each row; None for a row of text.
        lengths: Tokens of each row.
    """
    rows = [positions_of(length, one) for length, one in zip(lengths, images, strict=True)]
    device = data["input_ids"].device
    # torch's own would take four for the length of rows that are equally long.
    data["position_ids"] = tu.nested_tensor_from_tensor_list([row.to(device) for row in rows])
    data[MULTI_MODAL_INPUTS] = column(model_inputs(images))


def model_inputs(images: Sequence[PromptImages | None]) -> list[dict[str, Any]]:
    """What verl's engines concatenate for the model; nothing of a row of text."""
    return [{} if one is None else one.inputs for one in images]


def column(values: Sequence[Any]) -> NonTensorStack:
    """Values of rows, no tensors, as a column of a batch."""
    return NonTensorStack.from_list([NonTensorData(value) for value in values])
