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
"""The rows of a group have their images in common: a model's eyes look at them once.

Only the pixels are read once. Each row gets the features of its images, as many and in the order in which the model
asks for them, and its gradient goes back through them.
"""

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from verl.utils import tensordict_utils as tu

from gad_verl.data.image_rows import MULTI_MODAL_INPUTS

_GRID, _PIXELS = "image_grid_thw", "pixel_values"


class SharedImages:
    """Gives a model each image of a micro-batch once, and repeats what its eyes make of it.

    Args:
        module: The model; one without eyes is left alone.
    """

    def __init__(self, module: nn.Module) -> None:
        eyes = getattr(getattr(module, "model", None), "visual", None)
        vision = getattr(getattr(module, "config", None), "vision_config", None)
        self._merged = getattr(vision, "spatial_merge_size", 1) ** 2
        self._index: Tensor | None = None
        self._is_on = eyes is not None
        if eyes is not None:
            eyes.register_forward_hook(self._repeat)

    def plan(self, micro_batch: TensorDict, model_inputs: dict[str, Any]) -> None:
        """Leave in the inputs of a micro-batch one copy of what rows have in common.

        Args:
            micro_batch: Rows of one prompt hold the same object.
            model_inputs: Of the model; changed where it has images.
        """
        self._index = None
        if not self._is_on or _PIXELS not in model_inputs:
            return
        rows = [one for one in tu.get(micro_batch, MULTI_MODAL_INPUTS) if one]
        distinct = {id(one[_PIXELS]): one for one in rows}
        if len(distinct) == len(rows):
            return
        places: dict[int, Tensor] = {}
        begin = 0
        for key, one in distinct.items():
            count = int(one[_GRID].prod(dim=1).sum()) // self._merged
            places[key] = torch.arange(begin, begin + count)
            begin += count
        for name in rows[0]:
            model_inputs[name] = torch.cat([one[name] for one in distinct.values()])
        self._index = torch.cat([places[id(one[_PIXELS])] for one in rows])

    def _repeat(self, _: nn.Module, __: Any, output: Any) -> Any:
        if self._index is None:
            return output
        index = self._index.to(output.pooler_output.device)
        output.pooler_output = output.pooler_output[index]
        features = getattr(output, "deepstack_features", None)
        if features is not None:
            output.deepstack_features = [feature[index] for feature in features]
        return output
