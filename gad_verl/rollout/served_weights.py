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
"""The weights that the rollout "hf" serves: taken by name from the student, and given to or taken from the GPU."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# verl sends experts one by one, as vLLM reads them (verl/workers/engine/fsdp/utils.py, unfuse_moe_params).
_EXPERT = re.compile(r"(?P<experts>.*\.mlp\.experts)\.(?P<number>\d+)\.(?P<part>gate|up|down)_proj\.weight")
HOST = "cpu"


@dataclass(frozen=True)
class _Place:
    """Where a weight lies. A module that moves gets other buffers, so the tensor is asked for each time."""

    module: nn.Module
    attribute: str

    @property
    def tensor(self) -> Tensor:
        return getattr(self.module, self.attribute)


class ServedWeights:
    """Weights of a model by their names, and the device on which they are.

    The names are taken when this is made: an adapter of LoRA changes those of the modules, and not the modules.

    Args:
        model: A model of transformers; it is moved to ``device``.
        device: Where it generates.
        sleeps: Whether it gives its memory away between two generations.
    """

    def __init__(self, model: nn.Module, device: str = HOST, sleeps: bool = False) -> None:
        self._model, self._device, self._sleeps = model, device, sleeps
        self.awake = True
        model.to(device)
        self._places = {name: self._place(name) for name in model.state_dict(keep_vars=True)}

    def _place(self, name: str) -> _Place:
        module, _, attribute = name.rpartition(".")
        return _Place(self._model.get_submodule(module), attribute)

    def _find(self, name: str) -> Tensor | None:
        """Where a weight of the student belongs, for one expert a part of a tensor; None where there is none."""
        found = _EXPERT.fullmatch(name)
        if name in self._places or found is None:
            place = self._places.get(name)
            return None if place is None else place.tensor
        is_down = found["part"] == "down"
        experts = self._places.get(f"{found['experts']}.{'down' if is_down else 'gate_up'}_proj")
        if experts is None:
            return None
        expert = experts.tensor[int(found["number"])]
        return expert if is_down else expert.chunk(2)[found["part"] == "up"]

    @torch.no_grad()
    def load(self, named_tensors: list[tuple[str, Tensor]]) -> list[str]:
        """Copy a bucket of weights into the model; returns the names that the model does not have."""
        unknown = []
        for name, tensor in named_tensors:
            weight = self._find(name)
            if weight is None:
                unknown.append(name)
            else:
                weight.copy_(tensor)
        return unknown

    def sleep(self) -> None:
        """Give the memory of the device to the training."""
        if self._sleeps and self.awake:
            self._move(HOST)
            self.awake = False

    def wake_up(self) -> None:
        """Back to the device."""
        if not self.awake:
            self._move(self._device)
            self.awake = True

    def _move(self, device: str) -> None:
        if self._device == HOST:
            return
        from verl.utils.device import get_torch_device

        self._model.to(device)
        # What torch keeps for itself is not free for the training's process.
        get_torch_device().empty_cache()
