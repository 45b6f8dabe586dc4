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

from dataclasses import dataclass, field

from gad_verl.tools.estimate.adapters import Adapters
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
        expert_tensor: Megatron's tensor parallelism of experts; None takes ``tensor``, as Megatron does.
    """

    engine: str
    gpus: int
    shards: int = 1
    sequence: int = 1
    tensor: int = 1
    pipeline: int = 1
    experts: int = 1
    expert_tensor: int | None = None

    @property
    def expert_gpus(self) -> int:
        """GPUs over which Megatron spreads the experts."""
        return self.experts * (self.expert_tensor or self.tensor) * self.pipeline

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
        always_on_host: The whole model lives on the host, its optimizer too, and is uploaded layer by layer (FSDP's
            reference, ``offload_policy`` of FSDP2).
        keeps_gathered: FSDP: a gathered layer stays whole until its backward (``reshard_after_forward=False``).
        trains: Whether it is ever updated; a reference has neither gradients nor an optimizer.
        checkpointing: Gradient checkpointing.
        remove_padding: Packed rows instead of padded ones.
        flash_attention: Without it, packed rows need a mask over all pairs of tokens.
        micro_tokens: Tokens of a micro-batch on one GPU.
        fused_head: The logits are computed in chunks (``use_fused_kernels``).
        adapters: Of LoRA; of rank 0 where the whole model is trained.
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
    keeps_gathered: bool = False
    trains: bool = True
    checkpointing: bool = True
    remove_padding: bool = True
    flash_attention: bool = True
    micro_tokens: int = 16384
    fused_head: bool = False
    adapters: Adapters = field(default_factory=Adapters)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.shape.discriminator_parameters if self.scalar_head else self.shape.language_model_parameters

    @property
    def trained_parameters(self) -> int:
        """Parameters with a gradient: all, the adapters and a scalar head, or none."""
        if not self.trains:
            return 0
        if not self.has_adapters:
            return self.parameters
        head = self.shape.hidden + 1 if self.scalar_head else 0
        return self.adapters.parameters(self.shape) + head

    @property
    def has_adapters(self) -> bool:
        """Whether the model itself is frozen."""
        return self.adapters.rank > 0

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
