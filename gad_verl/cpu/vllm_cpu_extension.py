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
"""Loaded inside vLLM's CPU worker: linear layers that compute from their live weights.

vLLM packs each weight for its kernels and replaces it by an empty one (model_executor/layers/utils.py), so weights
could not be loaded a second time: verl's weight transfer would wait for ever.
"""

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


def _use_live_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
    layer.cpu_linear = torch.nn.functional.linear


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """verl's extension; patches the dispatch before the model is built."""

    def __new__(cls, **kwargs: Any) -> "CpuWorkerExtension":
        import vllm.model_executor.layers.utils as layer_utils
        import vllm.model_executor.layers.vocab_parallel_embedding as embedding

        layer_utils.dispatch_cpu_unquantized_gemm = _use_live_weight
        if hasattr(embedding, "dispatch_cpu_unquantized_gemm"):
            embedding.dispatch_cpu_unquantized_gemm = _use_live_weight
        return super().__new__(cls, **kwargs)
