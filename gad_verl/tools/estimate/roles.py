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
"""A model in one of its roles, as the configuration places it: student, KL reference, discriminator."""

from dataclasses import dataclass

from gad_verl.tools.estimate.shape import ModelShape

ADAM_MOMENTS = 2


@dataclass(frozen=True)
class Layout:
    """How a model is spread over the GPUs of its pool.

    Args:
        engine: ``fsdp`` (also FSDP2) or ``megatron``.
        gpus: GPUs of the pool.
        shards: FSDP: GPUs over which parameters are sharded.
        sequence: Ulysses sequence parallelism, or context parallelism.
        tensor, pipeline, experts: Megatron's parallel sizes.
    """

    engine: str
    gpus: int
    shards: int = 1
    sequence: int = 1
    tensor: int = 1
    pipeline: int = 1
    experts: int = 1

    @property
    def replicas(self) -> int:
        """Data-parallel replicas: micro-batches that are computed at the same time."""
        return max(1, self.gpus // (self.tensor * self.pipeline * self.sequence))


@dataclass(frozen=True)
class Role:
    """A model that computes in training.

    Args:
        name: ``student``, ``reference`` or ``discriminator``.
        shape: Its sizes.
        layout: Its place.
        scalar_head: A discriminator's head instead of a vocabulary.
        stored_bytes: Of a parameter as it is stored and trained.
        computed_bytes: Of a parameter and an activation in computation.
        param_offload, optimizer_offload: Whether these sleep on the host.
        always_on_host: The whole model lives on the host and is uploaded layer by layer (FSDP's reference).
        checkpointing: Gradient checkpointing.
        remove_padding: Packed rows instead of padded ones.
        flash_attention: Without it, packed rows need a mask over all pairs of tokens.
        micro_tokens: Tokens of a micro-batch on one GPU.
        fused_head: The logits are computed in chunks (``use_fused_kernels``).
        lora_rank: Rank of adapters; 0 trains everything.
    """

    name: str
    shape: ModelShape
    layout: Layout
    scalar_head: bool = False
    stored_bytes: int = 4
    computed_bytes: int = 2
    param_offload: bool = False
    optimizer_offload: bool = False
    always_on_host: bool = False
    checkpointing: bool = True
    remove_padding: bool = True
    flash_attention: bool = True
    micro_tokens: int = 16384
    fused_head: bool = False
    lora_rank: int = 0

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.shape.discriminator_parameters if self.scalar_head else self.shape.language_model_parameters

    @property
    def trained_parameters(self) -> int:
        """Parameters with a gradient: all, or adapters on every projection of every layer."""
        if self.lora_rank == 0:
            return self.parameters
        head = self.shape.hidden + 1 if self.scalar_head else 0
        return self.shape.layers * lora_layer_parameters(self.shape, self.lora_rank) + head

    @property
    def head_matrix(self) -> int:
        """Parameters of the head's matrix, which each token passes."""
        return self.shape.hidden if self.scalar_head else self.shape.embedding_parameters

    @property
    def matrices(self) -> int:
        """Matrix parameters that a token passes, the head included."""
        return self.shape.layers * self.shape.active_matrices + self.head_matrix

    @property
    def pair_work(self) -> int:
        """Multiply-adds of attention per pair of query and key, all layers."""
        return 2 * self.shape.layers * self.shape.query_width


def lora_layer_parameters(shape: ModelShape, rank: int) -> int:
    """Adapters of one dense layer: rank x (inputs + outputs) of each of its seven projections."""
    attention = (
        2 * (shape.hidden + shape.query_width)  # queries and output
        + 2 * (shape.hidden + shape.kv_width)  # keys and values
    )
    experts, width = (shape.experts, shape.expert_intermediate) if shape.experts else (1, shape.intermediate)
    return rank * (attention + experts * 3 * (shape.hidden + width))
