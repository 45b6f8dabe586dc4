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
"""How a run generates its responses, and what a GPU of an engine holds."""

from dataclasses import dataclass

from omegaconf import DictConfig

from gad_verl.tools.estimate import config_values as values
from gad_verl.tools.estimate.shape import ModelShape

_KEY = "actor_rollout_ref.rollout"


@dataclass(frozen=True)
class Rollout:
    """How responses are generated.

    An engine of vLLM with data parallelism is counted as so many engines: each of its replicas has all dense weights,
    a cache and sequences of its own, and the experts alone are spread over all of them.

    Args:
        name: ``vllm``, ``hf`` or another engine.
        shape: The student's.
        tensor, pipeline: GPUs over which a replica is spread.
        data: Replicas that share their experts.
        gpus: GPUs of the pool.
        memory_share: ``gpu_memory_utilization``.
        sleeps: Whether weights and cache are freed outside of the rollout.
        element: Bytes of a weight.
        max_sequences: Most sequences of a replica at once.
        shares_prefixes: Whether the responses of a prompt read it once.
    """

    name: str
    shape: ModelShape
    tensor: int
    pipeline: int
    data: int
    gpus: int
    memory_share: float
    sleeps: bool
    element: int
    max_sequences: int
    shares_prefixes: bool

    @property
    def gpus_per_engine(self) -> int:
        """GPUs of one replica."""
        return self.tensor * self.pipeline

    @property
    def engines(self) -> int:
        """Replicas that generate at the same time."""
        return max(1, self.gpus // self.gpus_per_engine)

    def weight_bytes(self, visited: float = 1.0) -> float:
        """Weights on one GPU.

        Args:
            visited: Share of the experts that is counted.
        """
        experts = self.shape.layers * self.shape.expert_matrices
        dense = self.shape.language_model_parameters - experts
        return self.element * (dense + visited * experts / self.data) / self.gpus_per_engine

    def token_bytes(self) -> float:
        """Keys and values of one token on one GPU: with more GPUs than heads of keys, some hold the same head."""
        heads = max(1.0, self.shape.kv_heads / self.tensor)
        return 2 * self.shape.layers * heads * self.shape.head_dim * self.element / self.pipeline


def read_rollout(config: DictConfig, shape: ModelShape, gpus: int) -> Rollout:
    """Read the section of the rollout.

    Args:
        config: The whole configuration.
        shape: The student's.
        gpus: Of the pool.

    Raises:
        GadConfigError: Names a key whose value is none.
    """
    section = config.actor_rollout_ref.rollout

    def size(name: str) -> int:
        return values.whole(section.get(name, None) or 1, f"{_KEY}.{name}", 1)

    return Rollout(
        name=str(section.name),
        shape=shape,
        tensor=size("tensor_model_parallel_size"),
        pipeline=size("pipeline_model_parallel_size"),
        data=size("data_parallel_size"),
        gpus=gpus,
        memory_share=values.share(section.gpu_memory_utilization, f"{_KEY}.gpu_memory_utilization"),
        sleeps=bool(section.free_cache_engine),
        element=values.element_bytes(section.dtype, f"{_KEY}.dtype"),
        max_sequences=values.whole(section.max_num_seqs, f"{_KEY}.max_num_seqs", 1),
        shares_prefixes=bool(section.get("enable_prefix_caching", True)),
    )
