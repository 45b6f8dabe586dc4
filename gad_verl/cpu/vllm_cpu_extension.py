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
"""Loaded inside vLLM's CPU worker: layers that compute from their live weights.

vLLM packs weights for its kernels (model_executor/layers/utils.py, fused_moe/experts/cpu_moe.py). Those of linear
layers are replaced by empty ones, and verl's transfer would wait for ever. Those of experts and convolutions keep their
place, and what comes later is read as if it were packed: wrong answers, and no error.
"""

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


def _use_live_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
    layer.cpu_linear = torch.nn.functional.linear


def _no_tiles() -> bool:
    return False


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """verl's extension; patches the dispatch before the model is built."""

    def __new__(cls, **kwargs: Any) -> "CpuWorkerExtension":
        import vllm.model_executor.layers.utils as layer_utils
        import vllm.model_executor.layers.vocab_parallel_embedding as embedding
        from vllm.model_executor.layers.fused_moe.experts import cpu_moe

        from gad_verl.cpu.vllm_cpu_experts import keep_live_weights

        layer_utils.dispatch_cpu_unquantized_gemm = _use_live_weight
        if hasattr(embedding, "dispatch_cpu_unquantized_gemm"):
            embedding.dispatch_cpu_unquantized_gemm = _use_live_weight
        # Linear attention takes its convolution's weight as packed wherever a processor has these instructions.
        torch.cpu._is_amx_tile_supported = _no_tiles
        keep_live_weights(cpu_moe.CPUUnquantizedExperts)
        return super().__new__(cls, **kwargs)
