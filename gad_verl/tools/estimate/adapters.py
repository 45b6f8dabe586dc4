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
"""Adapters of LoRA, counted as PEFT makes them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gad_verl.tools.estimate.shape import ModelShape

ALL_LINEAR = "all-linear"
Names = str | tuple[str, ...]


@dataclass(frozen=True)
class Adapters:
    """What LoRA trains.

    Args:
        rank: ``lora_rank``; 0 trains the whole model.
        targets: ``target_modules``: ``all-linear``, a regular expression, or ends of names.
        excluded: ``exclude_modules``: a regular expression or ends of names.
    """

    rank: int = 0
    targets: Names = ALL_LINEAR
    excluded: Names = ()

    def parameters(self, shape: "ModelShape") -> int:
        """Parameters of all adapters on a model: rank x (inputs + outputs) of each matrix that has one."""
        layers = sum(self._layer(shape, f"model.layers.{layer}") for layer in range(shape.layers))
        if self.targets == ALL_LINEAR:
            return layers
        ends = sum(self._chooses(name) for name in ("model.embed_tokens", "lm_head"))
        return layers + self.rank * ends * (shape.hidden + shape.vocab)

    def _layer(self, shape: "ModelShape", layer: str) -> int:
        dense = (size for name, size in _projections(shape) if self._chooses(f"{layer}.{name}"))
        found = self.rank * sum(dense)
        if not shape.experts:
            return found
        # Router and experts are parameters of no linear layer, and PEFT excludes layers alone.
        gate, up, down = (self._wants(f"{layer}.mlp.experts.{name}") for name in shape.expert_names)
        found += self._wants(f"{layer}.mlp.gate") * self.rank * (shape.hidden + shape.experts)
        if gate and up:
            # They are one matrix in transformers, and PEFT doubles its rank.
            found += shape.experts * 2 * self.rank * (shape.hidden + 2 * shape.expert_intermediate)
        if down:
            found += shape.experts * self.rank * (shape.expert_intermediate + shape.hidden)
        return found

    def _wants(self, name: str) -> bool:
        return self.targets == ALL_LINEAR or _matches(name, self.targets)

    def _chooses(self, name: str) -> bool:
        return self._wants(name) and not _matches(name, self.excluded)


def _projections(shape: "ModelShape") -> Iterator[tuple[str, int]]:
    """Linear layers of one layer: name, and inputs + outputs."""
    for name in ("q_proj", "o_proj"):
        yield f"self_attn.{name}", shape.hidden + shape.query_width
    for name in ("k_proj", "v_proj"):
        yield f"self_attn.{name}", shape.hidden + shape.kv_width
    for name in () if shape.experts else ("gate_proj", "up_proj", "down_proj"):
        yield f"mlp.{name}", shape.hidden + shape.intermediate


def _matches(name: str, wanted: Names) -> bool:
    """As PEFT: a text is a regular expression of the whole name, a list has names or ends of them."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in wanted)
