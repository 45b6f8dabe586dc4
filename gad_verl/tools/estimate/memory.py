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
"""Bytes on one GPU: formulas in the sizes of the model, and the few assumptions that they need.

Formula: parameters, gradients, Adam, what a layer keeps for the backward, KV cache. Assumption: copies of the logits,
what CUDA and its libraries take, fragmentation. docs/estimate.md compares both with measurements.
"""

from dataclasses import dataclass

from gad_verl.tools.estimate.gpus import GIB
from gad_verl.tools.estimate.ranges import Range
from gad_verl.tools.estimate.roles import ADAM_MOMENTS, Role
from gad_verl.tools.estimate.shape import ModelShape

# Assumptions.
LIBRARIES = Range(1.0 * GIB, 3.0 * GIB)  # CUDA context, NCCL buffers, kernels
FRAGMENTATION = Range(1.0, 1.15)  # of what is allocated and freed in a step
ROLLOUT_EXTRA = Range(1.0 * GIB, 4.0 * GIB)  # vLLM's activations and CUDA graphs inside its share
# Copies of the logits that live at once: the temperature, the entropy and the gradient each may make one. With
# flash-attention comes a cross-entropy that works in place; without it an update held 4 of them (docs/estimate.md).
TRAINED_LOGITS, TRAINED_LOGITS_WITHOUT_FLASH = Range(2.0, 3.0), Range(4.0, 5.0)
SCORED_LOGITS = Range(2.0, 4.0)
FUSED_CHUNK = 1024
ADAPTERS = "adapters"  # the model in a checkpoint of which verl keeps the adapters alone (save_lora_only)
GRADIENT_BUFFER_BYTES = 4


@dataclass(frozen=True)
class States:
    """Bytes of one GPU, or of its part of the host, that last longer than a micro-batch.

    Args:
        parameters: As they are stored.
        gradients: While the model trains.
        optimizer: Adam's moments, whatever the optimizer, and Megatron's master copy.
    """

    parameters: float
    gradients: float
    optimizer: float


def layer_saved_bytes(shape: ModelShape, element: int) -> float:
    """What one layer keeps of one token for its backward, with an attention that keeps no scores.

    Two norms (their input in float32, the normed and the scaled value), queries, keys, values and output of attention,
    and four times the width of the feed-forward part (gate, its activation, up, their product).
    """
    norms = 2 * (4 * shape.hidden + 2 * element * shape.hidden)
    attention = element * 2 * (shape.query_width + shape.kv_width)
    if not shape.experts:
        return norms + attention + 4 * element * shape.intermediate
    # Each token is copied to its experts and back.
    routed = shape.active_experts * element * (4 * shape.expert_intermediate + 2 * shape.hidden)
    return norms + attention + routed


def layer_working_bytes(shape: ModelShape, element: int, trains: bool) -> float:
    """What lives of one token while a layer computes, beside what is saved.

    Backward: the gradients of the residual stream and of the feed-forward part's width; what was saved is freed as it
    is used. Forward alone: three values of that width, and the residual stream before and after layer and norm.
    """
    width = shape.active_experts * shape.expert_intermediate if shape.experts else shape.intermediate
    return element * (width + shape.hidden if trains else 3 * width + 4 * shape.hidden)


def mask_bytes(role: Role, tokens: float) -> float:
    """Packed rows without flash attention: a mask over all pairs of tokens, and as many scores of one head."""
    if role.flash_attention or not role.remove_padding:
        return 0.0
    return tokens * tokens * role.computed_bytes


def logits_bytes(role: Role, tokens: float, copies: Range) -> Range:
    """Logits of a micro-batch; none for a scalar head."""
    if role.scalar_head:
        return Range.exact(4.0 * tokens)
    rows = min(tokens, FUSED_CHUNK) if role.fused_head else tokens
    element = 4 if role.fused_head else role.computed_bytes
    return Range.exact(rows * role.shape.vocab * element / role.layout.tensor) * copies


def trained_logits(role: Role) -> Range:
    """Copies of the logits that live at once in an update."""
    return TRAINED_LOGITS if role.flash_attention else TRAINED_LOGITS_WITHOUT_FLASH


def states(role: Role) -> States:
    """Parameters, gradients and optimizer of one GPU while the model trains."""
    if role.layout.engine == "megatron":
        return _megatron_states(role)
    share = 1 / role.layout.shards
    trained = role.trained_parameters
    return States(
        parameters=role.stored_bytes * role.parameters * share,
        gradients=role.stored_bytes * trained * share,
        optimizer=ADAM_MOMENTS * role.stored_bytes * trained * share,
    )


def _megatron_states(role: Role) -> States:
    """bfloat16 parameters, a float32 gradient buffer, and the distributed optimizer's master copy and moments.

    Of a model that only scores, verl wraps nothing and builds no optimizer: parameters alone.
    """
    shape, layout = role.shape, role.layout
    of_experts = shape.layers * shape.expert_matrices / layout.expert_gpus
    ends = shape.embedding_parameters + (0 if role.scalar_head or shape.tied else shape.embedding_parameters)
    # The embedding is on the first stage, the head on the last.
    ends = shape.embedding_parameters if layout.pipeline > 1 else ends
    dense_layers = shape.layers * (shape.layer_parameters - shape.expert_matrices) + shape.hidden
    dense = dense_layers / (layout.tensor * layout.pipeline) + ends / layout.tensor
    expert_replicas = max(1, layout.gpus // layout.expert_gpus)
    sharded = dense / (layout.replicas * layout.sequence) + of_experts / expert_replicas
    held = dense + of_experts
    return States(
        parameters=role.computed_bytes * held,
        gradients=GRADIENT_BUFFER_BYTES * held * role.trains,
        optimizer=(4 + ADAM_MOMENTS * 4) * sharded * role.trains,
    )


def unsharded_bytes(role: Role, trains: bool) -> float:
    """FSDP: what is gathered while the model computes: two layers (one ahead), embedding and head, or all layers where
    they are kept, and in training the gradient of the largest of these before it is scattered in float32."""
    layout, shape = role.layout, role.shape
    if layout.engine == "megatron" or not _is_gathered(role):
        return 0.0
    ends = role.parameters - shape.layers * shape.layer_parameters
    gathered = gathered_bytes(role) or role.computed_bytes * (2 * shape.layer_parameters + ends)
    if not trains or role.has_adapters:
        return gathered
    return gathered + (role.computed_bytes + GRADIENT_BUFFER_BYTES) * max(shape.layer_parameters, ends)


def _is_gathered(role: Role) -> bool:
    """Whether computation needs a copy: of other GPUs' parts, in another precision, or of what is on the host."""
    return role.layout.shards > 1 or role.stored_bytes != role.computed_bytes or role.always_on_host


def gathered_bytes(role: Role) -> float:
    """FSDP without ``reshard_after_forward``: the whole model, from a forward pass until the next backward."""
    keeps = role.layout.engine != "megatron" and role.keeps_gathered and _is_gathered(role)
    return role.computed_bytes * role.parameters if keeps else 0.0


def saved_activations(role: Role) -> float:
    """What a micro-batch keeps from forward to backward, all layers."""
    shape, element = role.shape, role.computed_bytes
    # With Megatron's pipeline, a stage holds as many micro-batches as there are stages: all layers of one.
    per_token = shape.layers * (element * shape.hidden if role.checkpointing else layer_saved_bytes(shape, element))
    # The last norm.
    per_token += 4 * shape.hidden + 2 * element * shape.hidden
    return role.micro_tokens * per_token / role.layout.tensor


def working_bytes(role: Role, trains: bool) -> float:
    """What lives while one layer computes; with checkpointing also everything that the layer had not saved."""
    tokens, shape, element = role.micro_tokens, role.shape, role.computed_bytes
    per_token = layer_working_bytes(shape, element, trains)
    if trains and role.checkpointing:
        per_token += layer_saved_bytes(shape, element)
    return tokens * per_token / role.layout.tensor + mask_bytes(role, tokens)


def training_bytes(role: Role) -> Range:
    """What an update needs beside parameters and optimizer: gradients, activations, logits, gathered layers.

    The peak is either inside the layers or at the head, whose logits are gone when the layers' backward begins.
    """
    gradients = 0.0 if role.always_on_host else states(role).gradients
    fixed = gradients + unsharded_bytes(role, trains=True) + saved_activations(role)
    inside = working_bytes(role, True)
    head = logits_bytes(role, role.micro_tokens, trained_logits(role))
    moving = Range(max(inside, head.low), max(inside, head.high))
    return (fixed + moving) * FRAGMENTATION


def scoring_bytes(role: Role) -> Range:
    """What a forward pass for log-probabilities or scores needs beside the parameters."""
    inside = working_bytes(role, False)
    head = logits_bytes(role, role.micro_tokens, SCORED_LOGITS)
    moving = Range(max(inside, head.low), max(inside, head.high))
    return (unsharded_bytes(role, trains=False) + moving) * FRAGMENTATION


def asleep_bytes(role: Role, has_scored: bool = False) -> float:
    """What stays on the GPU while another model works.

    Args:
        role: The model.
        has_scored: Whether its last pass was a forward pass, after which kept layers stay gathered.
    """
    kept = gathered_bytes(role) if has_scored else 0.0
    if role.always_on_host:
        return kept
    held = states(role)
    parameters = 0.0 if role.param_offload else held.parameters
    return kept + parameters + (0.0 if role.optimizer_offload else held.optimizer)


def awake_bytes(role: Role, trains: bool) -> float:
    """Parameters, and where the model trains its optimizer, while it works."""
    if role.always_on_host:
        return 0.0
    held = states(role)
    # The optimizer is uploaded for its step; a forward pass leaves it where it is.
    optimizer = held.optimizer if trains or not role.optimizer_offload else 0.0
    return held.parameters + optimizer


def host_bytes(role: Role) -> float:
    """What the host holds for one GPU."""
    held = states(role)
    if role.always_on_host:
        return held.parameters + held.gradients + held.optimizer
    return held.parameters * role.param_offload + held.optimizer * role.optimizer_offload


def kv_bytes_per_token(shape: ModelShape, element: int = 2) -> int:
    """Keys and values of one token in all layers."""
    return 2 * shape.layers * shape.kv_width * element


def checkpoint_bytes(role: Role, contents: tuple[str, ...] = ("model", "optimizer", "extra")) -> float:
    """Bytes of one role in a checkpoint, all ranks together."""
    size = 0.0
    keeps_adapters = ADAPTERS in contents and role.has_adapters and role.layout.engine == "fsdp"
    if keeps_adapters:
        size += role.stored_bytes * role.adapters.parameters(role.shape)
    if not keeps_adapters and not {"model", ADAPTERS}.isdisjoint(contents):
        # A head that is the embedding is written a second time.
        twice = role.shape.embedding_parameters if role.shape.tied and not role.scalar_head else 0
        size += role.stored_bytes * (role.parameters + twice)
    if "optimizer" in contents:
        is_megatron = role.layout.engine == "megatron"
        # Megatron keeps a master copy of the parameters with the moments, all in float32.
        size += (4 * (ADAM_MOMENTS + 1) if is_megatron else ADAM_MOMENTS * role.stored_bytes) * role.trained_parameters
    if "hf_model" in contents:
        size += role.computed_bytes * role.parameters
    return size
