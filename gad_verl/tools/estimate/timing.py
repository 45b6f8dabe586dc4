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
"""Seconds of the stages of a step: work over speed.

Formula: multiply-adds of the passes (gad_verl.core.cost_model), bytes that generation reads, bytes that FSDP and
offloading move. Assumption: which share of its peak a GPU reaches (MFU), speeds of links and disks, mean lengths.
"""

from dataclasses import dataclass, field

from gad_verl.core.cost_model import CostModel
from gad_verl.tools.estimate import memory
from gad_verl.tools.estimate.gpus import Gpu
from gad_verl.tools.estimate.ranges import Range, hidden_behind
from gad_verl.tools.estimate.roles import Role
from gad_verl.tools.estimate.rollout import Rollout

FLOPS_PER_MULTIPLY_ADD = 2
# Scoring, and the group's update with the scores of its own forward: one pass.
FORWARD, BACKWARD = 1, 2


@dataclass(frozen=True)
class Assumptions:
    """What no formula gives; every one may be replaced.

    Args:
        mfu: Share of the peak that training and scoring reach.
        mfu_experts: The same for mixtures of experts.
        decode_bandwidth: Share of the memory's bandwidth that generation reaches.
        decode_overhead: Seconds that one step of generation takes beside the GPU's work.
        link: Bytes a second between GPUs, as one of them sees it.
        host_link: Bytes a second between a GPU and its host.
        disk: Bytes a second that a node writes.
        weight_sync: Bytes a second at which the rollout receives weights.
    """

    mfu: Range = field(default_factory=lambda: Range(0.25, 0.45))
    mfu_experts: Range = field(default_factory=lambda: Range(0.10, 0.30))
    decode_bandwidth: Range = field(default_factory=lambda: Range(0.5, 0.8))
    decode_overhead: Range = field(default_factory=lambda: Range(0.001, 0.006))
    link: Range = field(default_factory=lambda: Range(100e9, 300e9))
    host_link: Range = field(default_factory=lambda: Range(12e9, 40e9))
    disk: Range = field(default_factory=lambda: Range(1e9, 5e9))
    weight_sync: Range = field(default_factory=lambda: Range(5e9, 50e9))

    def mfu_of(self, role: Role) -> Range:
        """For a dense model or a mixture of experts."""
        return self.mfu_experts if role.shape.experts else self.mfu


@dataclass(frozen=True)
class Lengths:
    """Mean tokens.

    Args:
        prompt, response, teacher: Of a prompt, of the student's responses, of the teacher's texts.
        source: Where they come from, for texts.
        is_measured: Whether they are those of the rows.
    """

    prompt: Range
    response: Range
    teacher: Range
    source: str
    is_measured: bool = False


# Where a limit cuts one text in a hundred and lengths are log-normal, the mean is exp(s^2 / 2 - 2.33 s) of the limit:
# 0.30 for a spread s of 0.6, 0.16 for 1.0. Limits of prompts are often wider than that.
RESPONSE_SHARE = Range(0.16, 0.30)
PROMPT_SHARE = Range(0.10, 0.30)


def assumed_lengths(max_prompt: int, max_response: int) -> Lengths:
    """Mean lengths where no data are known, as shares of the limits."""
    response = RESPONSE_SHARE * max_response
    return Lengths(
        PROMPT_SHARE * max_prompt,
        response,
        response,
        f"assumed: prompts {PROMPT_SHARE.low:.0%} to {PROMPT_SHARE.high:.0%}, responses and teacher's texts "
        f"{RESPONSE_SHARE.low:.0%} to {RESPONSE_SHARE.high:.0%} of their limits",
    )


def row_work(role: Role, tokens: float) -> float:
    """Multiply-adds of a forward pass over one row, with causal attention."""
    return CostModel(role.matrices, role.pair_work).work(1, tokens, causal=True)


def pass_seconds(role: Role, rows: float, tokens: Range, passes: int, gpu: Gpu, assume: Assumptions) -> Range:
    """Seconds of passes over rows, spread over the GPUs of the role.

    Args:
        role: The model.
        rows: Number of rows.
        tokens: Mean tokens of a row.
        passes: Forward passes that the work amounts to: 1 to score, and see :func:`update_passes`.
        gpu: The GPU.
        assume: Shares and speeds.
    """
    work = Range(row_work(role, tokens.low), row_work(role, tokens.high)) * (rows * passes * FLOPS_PER_MULTIPLY_ADD)
    computing = work.over(assume.mfu_of(role) * (role.layout.gpus * gpu.flops))
    return hidden_behind(computing, _communication(role, rows, tokens, passes, assume))


def micro_batches(role: Role, rows: float, tokens: Range) -> Range:
    """Micro-batches of one replica."""
    per_replica = tokens * (rows / role.layout.replicas)
    full = per_replica.over(role.micro_tokens * role.layout.sequence)
    return Range(max(1.0, full.low), max(1.0, full.high))


def _communication(role: Role, rows: float, tokens: Range, passes: int, assume: Assumptions) -> Range:
    """FSDP gathers every layer in each forward and each backward and scatters gradients in float32.

    What lives on the host is uploaded for each gathering, and its gradients go back there.
    """
    layout = role.layout
    if layout.engine == "megatron":
        return Range.exact(0.0)
    count = micro_batches(role, rows, tokens)
    trains = passes > FORWARD
    gathers = 1 if role.keeps_gathered else 1 + trains * (1 + role.checkpointing)
    moved = Range.exact(0.0)
    if role.always_on_host:
        carried = gathers * role.parameters + trains * role.trained_parameters
        moved = (count * (role.stored_bytes * carried / layout.shards)).over(assume.host_link)
    if layout.shards == 1:
        return moved
    gathered = gathers * role.computed_bytes * role.parameters
    scattered = trains * memory.GRADIENT_BUFFER_BYTES * role.trained_parameters
    return moved + (count * (gathered + scattered)).over(assume.link)


def offload_seconds(role: Role, trains: bool, assume: Assumptions) -> Range:
    """Waking a role up and putting it to sleep again; one that lives on the host does neither."""
    if role.always_on_host:
        return Range.exact(0.0)
    held = memory.states(role)
    moved = held.parameters * role.param_offload + held.optimizer * (role.optimizer_offload and trains)
    return Range.exact(2 * moved).over(assume.host_link)


def update_passes(role: Role) -> int:
    """Forward passes that an update amounts to. A frozen model passes gradients on, and makes none of its weights."""
    return FORWARD + (BACKWARD - role.has_adapters) + role.checkpointing


def generation_seconds(
    rollout: Rollout,
    cache_tokens: Range,
    prompts: int,
    rollouts: int,
    lengths: Lengths,
    max_response: int,
    gpu: Gpu,
    assume: Assumptions,
) -> Range:
    """Seconds to generate all responses of a step.

    Prompts are read at the speed of a forward pass. Then each step of generation gives every running sequence one token
    and reads the weights once and all their keys and values; it takes the longer one of reading and computing. As many
    sequences run at once as the cache and ``max_num_seqs`` allow; the last ones run on with a part of the GPU idle.
    """
    shape, per_engine = rollout.shape, rollout.gpus_per_engine
    mfu = assume.mfu_experts if shape.experts else assume.mfu
    sequences = max(1.0, prompts * rollouts / rollout.engines)
    matrices = shape.layers * shape.active_matrices
    reads = 1 if rollout.shares_prefixes else rollouts
    prefill = lengths.prompt * (prompts * reads * matrices * FLOPS_PER_MULTIPLY_ADD)
    prefill = prefill.over(mfu * (rollout.engines * per_engine * gpu.flops))

    def decode(length: float, context: float, cache: float, slow: bool) -> float:
        at_once = max(1.0, min(sequences, rollout.max_sequences, cache / max(1.0, context)))
        # At best the responses fill the engine to the end; at worst one of full length begins last.
        steps = sequences * length / at_once
        steps = steps + max_response if slow else max(steps, length)
        read = rollout.weight_bytes(_experts_visited(rollout, at_once))
        read += at_once * (context - length / 2) * rollout.token_bytes()
        share = assume.decode_bandwidth.low if slow else assume.decode_bandwidth.high
        reading = read / (gpu.bandwidth * share)
        speed = per_engine * gpu.flops * (mfu.low if slow else mfu.high)
        computing = at_once * shape.active_parameters * FLOPS_PER_MULTIPLY_ADD / speed
        overhead = assume.decode_overhead.high if slow else assume.decode_overhead.low
        return steps * (max(reading, computing) + overhead)

    low = decode(lengths.response.low, lengths.prompt.low + lengths.response.low, cache_tokens.high, slow=False)
    high = decode(lengths.response.high, lengths.prompt.high + lengths.response.high, cache_tokens.low, slow=True)
    return prefill + Range(low, high)


def _experts_visited(rollout: Rollout, sequences: float) -> float:
    """Share of the experts that one step of generation reads: those that any sequence visits, of all replicas that
    share them."""
    shape = rollout.shape
    if not shape.experts:
        return 0.0
    return 1 - (1 - shape.active_experts / shape.experts) ** (sequences * rollout.data)
