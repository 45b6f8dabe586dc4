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
"""Weights of a student by the names of its family's files, which vLLM reads.

verl sends experts one by one by the names of Qwen's files. Families that call theirs otherwise (Mixtral: w1, w2, w3 in
block_sparse_moe) would end in vLLM with a weight that it does not know.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

_Rule = tuple[str, str]
_W123: tuple[_Rule, ...] = (
    (r"(\.experts\.\d+)\.gate_proj\.", r"\1.w1."),
    (r"(\.experts\.\d+)\.down_proj\.", r"\1.w2."),
    (r"(\.experts\.\d+)\.up_proj\.", r"\1.w3."),
)
_BLOCK: tuple[_Rule, ...] = ((r"(\.layers\.\d+)\.mlp\.", r"\1.block_sparse_moe."), *_W123)
# As sent, as in files; held against transformers' own files for every family of docs/models.md by a test.
_RULES: dict[str, tuple[_Rule, ...]] = {
    "mixtral": _BLOCK,
    "minimax_m2": _BLOCK,
    "lfm2_moe": _W123,
    "ernie4_5_moe": ((r"\.mlp\.gate\.moe_statics\.", ".mlp.moe_statics."),),
}
_PACKED = {
    ".feed_forward.experts.gate_up_proj": ("gate_proj", "up_proj"),
    ".feed_forward.experts.down_proj": ("down_proj",),
}


def names_of_files(weights: Iterable[tuple[str, Tensor]], family: str) -> Iterator[tuple[str, Tensor]]:
    """Weights as they stand in the files of a family.

    Args:
        weights: Names and weights as verl's engine sends them, whole.
        family: ``model_type`` of the student's configuration.

    Yields:
        Names and weights, one after the other.
    """
    rules = _RULES.get(family, ())
    for name, weight in weights:
        for part_name, part in _one_by_one(name, weight) if rules else ((name, weight),):
            renamed = part_name
            for pattern, replacement in rules:
                renamed = re.sub(pattern, replacement, renamed)
            yield renamed, part


def _one_by_one(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Experts that verl leaves packed, [experts, rows, columns]."""
    for ending, parts in _PACKED.items():
        if name.endswith(ending) and weight.dim() == 3:
            base = name.rpartition(".")[0]
            for number, expert in enumerate(weight):
                for part, piece in zip(parts, expert.chunk(len(parts)), strict=True):
                    yield f"{base}.{number}.{part}.weight", piece.contiguous()
            return
    yield name, weight


def send_names_of_files(engine: Any) -> None:
    """Let an engine hand out whole weights by the names of the files; adapters keep theirs.

    Megatron's bridge takes the names from the files itself.
    """
    family = engine.model_config.hf_config.model_type
    if family not in _RULES or hasattr(engine, "bridge"):
        return
    original = engine.get_per_tensor_param

    def get_per_tensor_param(base_sync_done: bool = False, **kwargs: Any) -> tuple[Any, dict[str, Any] | None]:
        weights, config = original(base_sync_done=base_sync_done, **kwargs)
        if config is not None and base_sync_done:
            return weights, config
        return names_of_files(weights, family), config

    engine.get_per_tensor_param = get_per_tensor_param
