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
"""Reads what the estimate needs from a run's configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gad_verl.config import GadConfig, load_gad_config
from gad_verl.errors import GadConfigError
from gad_verl.preflight.parallel_check import Heads, check_counts, check_parallel
from gad_verl.preflight.surroundings_check import check_context
from gad_verl.tools.estimate.roles import Layout, Role
from gad_verl.tools.estimate.shape import ModelShape, find_shape

_BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}
_FLASH = "flash_attention"
_WIDEST_CONTENTS = ("model", "optimizer", "extra")


@dataclass(frozen=True)
class Rollout:
    """How responses are generated.

    Args:
        name: ``vllm``, ``hf`` or another engine.
        shape: The student's.
        gpus_per_engine: Tensor x pipeline x data parallelism of one engine.
        gpus: GPUs of the pool.
        memory_share: ``gpu_memory_utilization``.
        sleeps: Whether weights and cache are freed outside of the rollout.
        element: Bytes of a weight.
        max_sequences: Most sequences of an engine at once.
        shares_prefixes: Whether the responses of a prompt read it once.
    """

    name: str
    shape: ModelShape
    gpus_per_engine: int
    gpus: int
    memory_share: float
    sleeps: bool
    element: int
    max_sequences: int
    shares_prefixes: bool

    @property
    def engines(self) -> int:
        """Engines that generate at the same time."""
        return max(1, self.gpus // self.gpus_per_engine)


@dataclass(frozen=True)
class RunSettings:
    """What is estimated.

    Args:
        gad: The section ``gad``.
        student, reference, discriminator: Models that compute; None where the run has none.
        rollout: Generation; None for SeqKD.
        scoring_tokens: Tokens of a micro-batch for the student's old log-probabilities.
        gpus, nodes: Of the student's pool.
        own_pool: GPUs of the discriminator's own pool; 0 where it shares the student's.
        prompts, rollouts: Of a step.
        warmup_rollouts: Rollouts per prompt in the warmup.
        max_prompt, max_response: Limits in tokens.
        epochs, total_steps: Length of the run; ``total_steps`` None takes the epochs.
        save_freq: Steps between checkpoints; not above 0 for none.
        keep: Checkpoints that stay; None for all.
        save_contents: Of the student's and of the discriminator's checkpoint.
        has_critic: verl's own critic, which is not estimated.
        on_cpu: The configuration computes on the CPU, which is not estimated.
    """

    gad: GadConfig
    student: Role
    reference: Role | None
    discriminator: Role | None
    rollout: Rollout | None
    scoring_tokens: int
    gpus: int
    nodes: int
    own_pool: int
    prompts: int
    rollouts: int
    warmup_rollouts: int
    max_prompt: int
    max_response: int
    epochs: int
    total_steps: int | None
    save_freq: int
    keep: int | None
    save_contents: tuple[tuple[str, ...], tuple[str, ...]]
    has_critic: bool
    on_cpu: bool

    @property
    def roles(self) -> list[Role]:
        """The models that there are."""
        return [role for role in (self.student, self.reference, self.discriminator) if role is not None]


def _get(config: Any, key: str) -> Any:
    """A value that has to be there.

    Raises:
        GadConfigError: Names the key.
    """
    try:
        value = OmegaConf.select(config, key, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise GadConfigError(f"{key}: {str(error).splitlines()[0]}") from None
    if value is None:
        raise GadConfigError(f"the configuration lacks {key}: start from --config-name gad_trainer (or gad_cpu)")
    return value


def _bytes(name: Any, key: str) -> int:
    size = _BYTES.get(str(name).removeprefix("torch."))
    if size is None:
        raise GadConfigError(f"{key}={name}: expected one of {', '.join(_BYTES)}")
    return size


def _layout(engine: Any, strategy: str, gpus: int) -> Layout:
    if strategy == "megatron":
        return Layout(
            "megatron",
            gpus,
            sequence=engine.context_parallel_size,
            tensor=engine.tensor_model_parallel_size,
            pipeline=engine.pipeline_model_parallel_size,
            experts=engine.expert_model_parallel_size,
        )
    shards = engine.get("fsdp_size", -1)
    return Layout(
        "fsdp",
        gpus,
        shards=gpus if shards is None or shards <= 0 else min(int(shards), gpus),
        sequence=engine.get("ulysses_sequence_parallel_size", 1) or 1,
    )


def _precision(engine: Any, strategy: str, key: str) -> tuple[int, int]:
    """Bytes of a stored and of a computed parameter."""
    if strategy == "megatron":
        computed = _bytes(engine.get("dtype", "bfloat16"), f"{key}.dtype")
        return computed, computed
    mixed: Mapping[str, Any] = engine.get("mixed_precision", None) or {}
    computed = _bytes(mixed.get("param_dtype") or engine.get("dtype") or "bf16", f"{key}.mixed_precision.param_dtype")
    return _bytes(engine.get("model_dtype") or "fp32", f"{key}.model_dtype"), computed


def _micro_tokens(dynamic: bool, tokens: int | None, rows: int | None, longest: int, key: str) -> int:
    if dynamic:
        if not tokens:
            raise GadConfigError(f"{key}: the tokens of a micro-batch are not set, although it is sized by tokens")
        return int(tokens)
    if not rows:
        raise GadConfigError(f"{key}: the rows of a micro-batch are not set, although it is not sized by tokens")
    return int(rows) * longest


def _checkpoints(engine: Any, strategy: str, model: Any) -> bool:
    if strategy == "megatron":
        return (engine.get("override_transformer_config", None) or {}).get("recompute_granularity") == "full"
    return bool(model.get("enable_gradient_checkpointing", True))


def _role(
    name: str, shape: ModelShape, section: Any, key: str, model: Any, gpus: int, micro_tokens: int, **more: Any
) -> Role:
    strategy = str(section.strategy)
    engine_key = "megatron" if strategy == "megatron" else ("fsdp" if "fsdp" in section else "fsdp_config")
    engine = _get(section, engine_key)
    stored, computed = _precision(engine, strategy, f"{key}.{engine_key}")
    attention = (model.get("override_config", None) or {}).get("attn_implementation", _FLASH)
    offload_all = bool(engine.get("offload_policy", False))
    return Role(
        name=name,
        shape=shape,
        layout=_layout(engine, strategy, gpus),
        stored_bytes=stored,
        computed_bytes=computed,
        param_offload=bool(engine.param_offload) or offload_all,
        optimizer_offload=bool(engine.optimizer_offload) or offload_all,
        checkpointing=_checkpoints(engine, strategy, model),
        remove_padding=bool(model.get("use_remove_padding", True)),
        flash_attention=str(attention).startswith(_FLASH),
        micro_tokens=micro_tokens,
        fused_head=bool(model.get("use_fused_kernels", False)),
        lora_rank=int(model.get("lora_rank", 0) or 0),
        **more,
    )


def _rollout(config: DictConfig, shape: ModelShape, gpus: int) -> Rollout:
    section = config.actor_rollout_ref.rollout
    sizes = (
        section.tensor_model_parallel_size,
        section.get("pipeline_model_parallel_size", 1) or 1,
        section.get("data_parallel_size", 1) or 1,
    )
    per_engine = sizes[0] * sizes[1] * sizes[2]
    return Rollout(
        name=str(section.name),
        shape=shape,
        gpus_per_engine=per_engine,
        gpus=gpus,
        memory_share=float(section.gpu_memory_utilization),
        sleeps=bool(section.free_cache_engine),
        element=_bytes(section.dtype, "actor_rollout_ref.rollout.dtype"),
        max_sequences=int(section.max_num_seqs),
        shares_prefixes=bool(section.get("enable_prefix_caching", True)),
    )


def read_settings(config: DictConfig) -> RunSettings:
    """Read a composed configuration.

    Args:
        config: As ``gad_verl.preflight.composing`` gives it.

    Raises:
        GadConfigError: If a key is missing or a model's shape is not known.
    """
    gad = load_gad_config(config)
    for section in ("data", "trainer", "actor_rollout_ref.actor", "actor_rollout_ref.rollout"):
        _get(config, section)
    check_counts(config)
    model = _get(config, "actor_rollout_ref.model")
    data, trainer = _get(config, "data"), _get(config, "trainer")
    gpus = int(_get(trainer, "nnodes")) * int(_get(trainer, "n_gpus_per_node"))
    longest = data.max_prompt_length + data.max_response_length
    student = find_shape(str(model.path), "actor_rollout_ref.model.path")
    actor, ref, rollout = (config.actor_rollout_ref[name] for name in ("actor", "ref", "rollout"))
    student_tokens = _micro_tokens(
        actor.use_dynamic_bsz,
        actor.ppo_max_token_len_per_gpu,
        actor.ppo_micro_batch_size_per_gpu,
        longest,
        "actor_rollout_ref.actor",
    )
    role = _role("student", student, actor, "actor_rollout_ref.actor", model, gpus, student_tokens)
    log_prob_tokens = {
        name: _micro_tokens(
            section.log_prob_use_dynamic_bsz,
            section.log_prob_max_token_len_per_gpu,
            section.log_prob_micro_batch_size_per_gpu,
            longest,
            f"actor_rollout_ref.{name}",
        )
        for name, section in (("ref", ref), ("rollout", rollout))
        if gad.compares_with_reference
    }
    wants_reference = gad.compares_with_reference and (actor.use_kl_loss or config.algorithm.use_kl_in_reward)
    reference = None
    # Under LoRA the reference is the student without (or with another) adapter: no model of its own.
    if wants_reference and role.lora_rank == 0:
        reference = _role("reference", student, ref, "actor_rollout_ref.ref", model, gpus, log_prob_tokens["ref"])
        reference = replace(reference, always_on_host=reference.layout.engine == "fsdp")
    judge, own_pool, judge_heads = None, 0, None
    if gad.has_discriminator:
        section = _get(config, "discriminator")
        own_pool = gad.discriminator_nnodes * gad.discriminator_n_gpus_per_node
        discriminator = find_shape(str(section.model.path), "discriminator.model.path")
        judge_heads = Heads(discriminator.heads, discriminator.kv_heads)
        tokens = _micro_tokens(
            section.use_dynamic_bsz,
            section.ppo_max_token_len_per_gpu,
            (section.ppo_micro_batch_size_per_gpu or 0) * (rollout.n + 1),
            longest,
            "discriminator",
        )
        judge = _role(
            "discriminator",
            discriminator.cut_to(gad.discriminator_num_layers),
            section,
            "discriminator",
            section.model,
            own_pool or gpus,
            tokens,
            scalar_head=True,
        )
    check_context(config)
    check_parallel(config, gad, Heads(student.heads, student.kv_heads), judge_heads)
    contents = [
        tuple(section.checkpoint.save_contents) if "checkpoint" in section else _WIDEST_CONTENTS
        for section in (actor, config.discriminator)
    ]
    keep = gad.keep_checkpoints or trainer.get("max_actor_ckpt_to_keep", None)
    return RunSettings(
        gad=gad,
        student=role,
        reference=reference,
        discriminator=judge,
        rollout=None if gad.stage == "seqkd" else _rollout(config, student, gpus),
        scoring_tokens=log_prob_tokens.get("rollout", student_tokens),
        gpus=gpus,
        nodes=int(trainer.nnodes),
        own_pool=own_pool,
        prompts=int(data.train_batch_size),
        rollouts=int(rollout.n),
        warmup_rollouts=int(gad.warmup_rollout_n or rollout.n),
        max_prompt=int(data.max_prompt_length),
        max_response=int(data.max_response_length),
        epochs=int(trainer.total_epochs),
        total_steps=trainer.total_training_steps,
        save_freq=int(trainer.save_freq),
        keep=keep,
        save_contents=(contents[0], contents[1]),
        has_critic=str(config.algorithm.adv_estimator) == "gae" or config.critic.enable is True,
        on_cpu=str(trainer.get("device", "cuda")) == "cpu",
    )
