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
"""What does not fit, and which settings help."""

from gad_verl.tools.estimate.gpus import GIB, Gpu
from gad_verl.tools.estimate.phases import PhaseMemory, RolloutRoom
from gad_verl.tools.estimate.roles import Role
from gad_verl.tools.estimate.run_settings import RunSettings

_KEYS = {
    "student": ("actor_rollout_ref.actor", "actor_rollout_ref.model", "ppo_max_token_len_per_gpu"),
    "reference": ("actor_rollout_ref.ref", "actor_rollout_ref.model", "log_prob_max_token_len_per_gpu"),
    "discriminator": ("discriminator", "discriminator.model", "ppo_max_token_len_per_gpu"),
}


def _engine_key(role: Role) -> str:
    if role.layout.engine == "megatron":
        return "megatron"
    return "fsdp" if role.name == "discriminator" else "fsdp_config"


def _offload(role: Role) -> list[str]:
    section, engine = _KEYS[role.name][0], _engine_key(role)
    remedies = _reshard(role)
    if role.trains and not role.optimizer_offload and not role.always_on_host:
        remedies.append(f"{section}.{engine}.optimizer_offload=True")
    if not role.param_offload and not role.always_on_host:
        remedies.append(f"{section}.{engine}.param_offload=True")
    return remedies


def _reshard(role: Role) -> list[str]:
    section, engine = _KEYS[role.name][0], _engine_key(role)
    return [f"{section}.{engine}.reshard_after_forward=True"] if role.keeps_gathered else []


def _smaller(role: Role) -> list[str]:
    section, model, tokens = _KEYS[role.name]
    remedies = [f"a lower {section}.{tokens} (now {role.micro_tokens})"]
    if role.trains and not role.checkpointing and role.layout.engine == "fsdp":
        remedies.append(f"{model}.enable_gradient_checkpointing=True")
    if role.trains and not role.checkpointing and role.layout.engine == "megatron":
        keys = f"{section}.megatron.override_transformer_config"
        remedies.append(
            f"{keys}.recompute_granularity=full with recompute_method=uniform and recompute_num_layers=1 beside it"
        )
    if not role.scalar_head and not role.fused_head and role.layout.engine == "fsdp":
        remedies.append(f"{model}.use_fused_kernels=True")
    return remedies


def remedies_of(settings: RunSettings, phase: PhaseMemory) -> list[str]:
    """Settings that lower the memory of a phase, those that cost least first."""
    student, judge = settings.student, settings.discriminator
    resting = [role for role in settings.roles if f"{role.name}, resting" in phase.parts]
    remedies = [remedy for role in resting for remedy in _offload(role)]
    if "rollout, awake" in phase.parts:
        remedies.append("actor_rollout_ref.rollout.free_cache_engine=True")
    if phase.name == "rollout":
        remedies.append("a lower actor_rollout_ref.rollout.gpu_memory_utilization")
    elif phase.name == "old log-probabilities":
        remedies += [*_reshard(student), "a lower actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu"]
    else:
        by_phase = {"discriminator update": judge, "reference log-probabilities": settings.reference}
        works = by_phase.get(phase.name) or student
        remedies += [*_reshard(works), *_smaller(works)]
    if phase.name == "discriminator update" and judge is not None:
        remedies += ["a smaller discriminator (gad.discriminator_num_layers)"]
        if settings.own_pool == 0:
            remedies.append("GPUs of its own (gad.discriminator_n_gpus_per_node)")
    remedies.append("more GPUs")
    return remedies


def warnings_of(settings: RunSettings, gpu: Gpu, phases: list[PhaseMemory], room: RolloutRoom | None) -> list[str]:
    """Everything that the user should know before a run, each with its remedy."""
    found = []
    for phase in phases:
        needed = phase.total
        if needed.high <= gpu.memory:
            continue
        word = "does not fit" if needed.low > gpu.memory else "may not fit"
        found.append(
            f"{phase.name} {word}: {needed.low / GIB:.0f} to {needed.high / GIB:.0f} GiB on a GPU of "
            f"{gpu.memory / GIB:.0f} GiB. What helps: {', '.join(remedies_of(settings, phase))}"
        )
    longest = settings.max_prompt + settings.max_response
    if room is not None and room.share <= room.weights:
        found.append(
            f"rollout: weights take {room.weights / GIB:.0f} GiB of a GPU, its share is {room.share / GIB:.0f} GiB: "
            "raise actor_rollout_ref.rollout.gpu_memory_utilization or tensor_model_parallel_size"
        )
    elif room is not None and room.cache_tokens.low < longest:
        found.append(
            f"rollout: the cache may hold {room.cache_tokens.low:,.0f} tokens, fewer than one sequence of {longest}. "
            "Raise actor_rollout_ref.rollout.gpu_memory_utilization or tensor_model_parallel_size"
        )
    for role in () if settings.on_cpu else settings.roles:
        if not role.flash_attention and role.remove_padding:
            model = _KEYS[role.name][1]
            found.append(
                f"{role.name}: packed rows without flash attention need a mask over all pairs of tokens of a "
                f"micro-batch: use flash attention, or {model}.use_remove_padding=False"
            )
    if settings.on_cpu:
        found.append(f"trainer.device=cpu: the figures are those of a {gpu.name}, not of this machine")
    if settings.rollout_pool > 0:
        found.append(
            f"trainer.v1.trainer_mode: the {settings.rollout_pool} GPUs of the rollout's own machines are not part of "
            "this estimate: it is that of trainer.v1.trainer_mode=gad_sync on the GPUs of the training"
        )
    for setting in settings.other_optimizers:
        found.append(f"{setting} is counted as Adam in float32 or model_dtype: two moments of each trained parameter")
    if settings.has_critic:
        found.append("verl's critic (algorithm.adv_estimator=gae) is not part of this estimate")
    return found
