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
"""Memory of one GPU, phase by phase of a step."""

from dataclasses import dataclass, replace

from gad_verl.tools.estimate import memory
from gad_verl.tools.estimate.gpus import Gpu
from gad_verl.tools.estimate.ranges import Range, total
from gad_verl.tools.estimate.roles import Role
from gad_verl.tools.estimate.rollout import Rollout
from gad_verl.tools.estimate.run_settings import RunSettings


@dataclass(frozen=True)
class PhaseMemory:
    """Bytes of one GPU in one phase.

    Args:
        name: The phase.
        parts: What they are made of.
        own_pool: Whether this is a GPU of the discriminator's own pool.
    """

    name: str
    parts: dict[str, Range]
    own_pool: bool = False

    @property
    def total(self) -> Range:
        """All parts."""
        return total(self.parts.values())


@dataclass(frozen=True)
class RolloutRoom:
    """What an engine's share of a GPU holds.

    Args:
        weights: Bytes of weights on one GPU.
        share: Bytes that the engine may use of one GPU.
        cache_tokens: Tokens whose keys and values fit into an engine (with data parallelism, into one of its replicas),
            all its GPUs together.
        longest_sequences: Sequences of the longest length that fit at once.
    """

    weights: float
    share: float
    cache_tokens: Range
    longest_sequences: Range


def rollout_room(rollout: Rollout, gpu: Gpu, longest: int) -> RolloutRoom:
    """Weights and KV cache of an engine."""
    weights = rollout.weight_bytes()
    share = rollout.memory_share * gpu.memory
    per_token = rollout.token_bytes()
    extra = memory.ROLLOUT_EXTRA
    tokens = Range(
        max(0.0, share - weights - extra.high) / per_token, max(0.0, share - weights - extra.low) / per_token
    )
    return RolloutRoom(weights, share, tokens, Range(tokens.low / longest, tokens.high / longest))


def _rollout_share(settings: RunSettings, gpu: Gpu) -> float:
    """Bytes of one GPU that the rollout takes: vLLM its whole share, transformers the weights and a growing cache."""
    rollout = settings.rollout
    if rollout.name != "hf":
        return rollout.memory_share * gpu.memory
    sequences = min(rollout.max_sequences, -(-settings.prompts * settings.rollouts // rollout.engines))
    cache = sequences * (settings.max_prompt + settings.max_response)
    cache *= memory.kv_bytes_per_token(rollout.shape, rollout.element)
    return rollout.element * rollout.shape.language_model_parameters + cache


def _asleep(*roles: Role | None, has_scored: Role | None = None) -> dict[str, Range]:
    parts = {}
    for role in roles:
        # A reference does nothing but score.
        scored = role is has_scored or (role is not None and not role.trains)
        held = 0.0 if role is None else memory.asleep_bytes(role, scored)
        if held > 0:
            parts[f"{role.name}, resting"] = Range.exact(held)
    return parts


def _rollout_rest(settings: RunSettings, gpu: Gpu) -> dict[str, Range]:
    if settings.rollout is None or settings.rollout.sleeps:
        return {}
    return {"rollout, awake": Range.exact(_rollout_share(settings, gpu))}


def _working(role: Role, trains: bool) -> dict[str, Range]:
    needed = memory.training_bytes(role) if trains else memory.scoring_bytes(role)
    what = "gradients, activations" if trains else "activations"
    parts = {f"{role.name}, {what}": needed}
    held = memory.awake_bytes(role, trains)
    if held > 0:
        parts[f"{role.name}, parameters and optimizer"] = Range.exact(held)
    return parts


def phase_memory(settings: RunSettings, gpu: Gpu) -> list[PhaseMemory]:
    """Every phase in the order of a step."""
    student, reference, judge = settings.student, settings.reference, settings.discriminator
    shares_pool = settings.own_pool == 0
    beside = judge if shares_pool else None
    libraries = {"CUDA and libraries": memory.LIBRARIES}
    rest = _rollout_rest(settings, gpu)
    phases = []
    if settings.rollout is not None:
        share = {"rollout: weights and cache": Range.exact(_rollout_share(settings, gpu))}
        phases.append(PhaseMemory("rollout", {**libraries, **share, **_asleep(student, beside, reference)}))
    if judge is not None:
        others = {**rest, **_asleep(student, reference)} if shares_pool else {}
        parts = {**libraries, **others, **_working(judge, trains=True)}
        phases.append(PhaseMemory("discriminator update", parts, own_pool=not shares_pool))
    if settings.gad.compares_with_reference:
        # Under LoRA the reference is the student with another adapter.
        if settings.reads_old or (settings.compares and reference is None):
            name = "old log-probabilities" if settings.reads_old else "reference log-probabilities"
            scoring = _working(replace(student, micro_tokens=settings.scoring_tokens), False)
            phases.append(PhaseMemory(name, {**libraries, **rest, **_asleep(beside, reference), **scoring}))
        if reference is not None:
            resting = _asleep(beside, student, has_scored=student if settings.reads_old else None)
            parts = {**libraries, **rest, **resting, **_working(reference, False)}
            phases.append(PhaseMemory("reference log-probabilities", parts))
    parts = {**libraries, **rest, **_asleep(beside, reference), **_working(student, True)}
    phases.append(PhaseMemory("student update", parts))
    return phases
