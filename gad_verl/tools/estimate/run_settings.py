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

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig

from gad_verl.config import GadConfig, load_gad_config
from gad_verl.config.modes import rollout_gpus
from gad_verl.preflight.megatron_check import check_divisions, check_megatron
from gad_verl.preflight.parallel_check import Heads, check_counts, check_parallel
from gad_verl.preflight.surroundings_check import check_context
from gad_verl.tools.estimate import config_values as values
from gad_verl.tools.estimate.role_settings import micro_batch_tokens, other_optimizer, read_role, save_contents
from gad_verl.tools.estimate.roles import Role
from gad_verl.tools.estimate.rollout import Rollout, read_rollout
from gad_verl.tools.estimate.shape import find_shape

_ACTOR, _REF, _ROLLOUT = (f"actor_rollout_ref.{name}" for name in ("actor", "ref", "rollout"))
_MODEL, _DISCRIMINATOR = "actor_rollout_ref.model", "discriminator"
_CORRECTION = "algorithm.rollout_correction"


@dataclass(frozen=True)
class RunSettings:
    """What is estimated.

    Args:
        gad: The section ``gad``.
        student, reference, discriminator: Models that compute; None where the run has none.
        rollout: Generation; None for SeqKD.
        scoring_tokens: Tokens of a micro-batch on one GPU for the student's old log-probabilities.
        compares: Whether a KL reference is read, which may be the student with another adapter or without.
        reads_old: Whether the student's log-probabilities are read before its update: else they are the rollout's.
        policy_epochs: Times that an update by scores goes through its rollouts.
        other_optimizers: Settings by which something else than Adam, which is counted, trains.
        gpus, nodes: Of the student's pool.
        own_pool: GPUs of the discriminator's own pool; 0 where it shares the student's.
        rollout_pool: GPUs of a rollout with machines of its own, which is not estimated; 0 without.
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
    compares: bool
    reads_old: bool
    policy_epochs: int
    other_optimizers: tuple[str, ...]
    gpus: int
    nodes: int
    own_pool: int
    rollout_pool: int
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


def read_settings(config: DictConfig) -> RunSettings:
    """Read a composed configuration.

    Args:
        config: As ``gad_verl.preflight.composing`` gives it.

    Raises:
        GadConfigError: If a key is missing or a model's shape is not known.
    """
    gad = load_gad_config(config)
    for name in ("data", "trainer", _ACTOR, _REF, _ROLLOUT, _MODEL):
        values.needed(config, name)
    check_counts(config)
    check_megatron(config, gad)
    data, trainer, model = config.data, config.trainer, config.actor_rollout_ref.model
    gpus = int(trainer.nnodes * trainer.n_gpus_per_node)
    longest = int(data.max_prompt_length + data.max_response_length)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    shape = find_shape(str(model.path), f"{_MODEL}.path")
    student = read_role("student", shape, actor, _ACTOR, model, _MODEL, gpus)
    student = replace(student, micro_tokens=_update_tokens(actor, _ACTOR, longest, student))
    algorithm = config.algorithm
    compares = gad.compares_with_reference and bool(actor.use_kl_loss or algorithm.use_kl_in_reward)
    reference = _reference(config, student, gpus, longest) if compares else None
    bypasses = bool(values.section(algorithm, "rollout_correction", _CORRECTION).get("bypass_mode", False))
    # Of SODA's pairs they are read, whatever its rollouts say.
    reads_old = gad.compares_with_reference and (gad.stage == "soda" or not bypasses)
    discriminator = _discriminator(config, gad, gpus, longest) if gad.has_discriminator else None
    sections = {_ACTOR: (actor, student), _REF: (config.actor_rollout_ref.ref, reference)}
    sections[_DISCRIMINATOR] = (config.discriminator, discriminator)
    for key, (section, role) in sections.items():
        if role is not None and role.layout.engine == "megatron":
            _check_megatron_sizes(key, section.megatron, role)
    heads = (
        None if role is None else Heads(role.shape.heads, role.shape.kv_heads) for role in (student, discriminator)
    )
    check_context(config)
    check_parallel(config, gad, *heads)
    keep = gad.keep_checkpoints or trainer.get("max_actor_ckpt_to_keep", None)
    return RunSettings(
        gad=gad,
        student=student,
        reference=reference,
        discriminator=discriminator,
        rollout=None if gad.stage == "seqkd" else read_rollout(config, shape, gpus),
        scoring_tokens=_scoring_tokens(rollout, _ROLLOUT, longest, student)
        if reads_old or (compares and student.has_adapters)
        else student.micro_tokens,
        compares=compares,
        reads_old=reads_old,
        policy_epochs=int(actor.ppo_epochs),
        other_optimizers=tuple(
            found
            for key, (section, role) in sections.items()
            if role is not None and role.trains and (found := other_optimizer(section, key))
        ),
        gpus=gpus,
        nodes=int(trainer.nnodes),
        own_pool=_own_pool(gad),
        rollout_pool=rollout_gpus(config),
        prompts=int(data.train_batch_size),
        rollouts=int(rollout.n),
        warmup_rollouts=int(gad.warmup_rollout_n or rollout.n),
        max_prompt=int(data.max_prompt_length),
        max_response=int(data.max_response_length),
        epochs=values.whole(trainer.total_epochs, "trainer.total_epochs"),
        total_steps=trainer.total_training_steps,
        save_freq=values.whole(trainer.save_freq, "trainer.save_freq"),
        keep=None if keep is None else values.whole(keep, "trainer.max_actor_ckpt_to_keep"),
        save_contents=(save_contents(actor, _ACTOR), save_contents(config.discriminator, _DISCRIMINATOR)),
        has_critic=str(algorithm.adv_estimator) == "gae" or config.critic.enable is True,
        on_cpu=str(trainer.get("device", "cuda")) == "cpu",
    )


def _own_pool(gad: GadConfig) -> int:
    return gad.discriminator_nnodes * gad.discriminator_n_gpus_per_node


def _update_tokens(section: Any, key: str, longest: int, role: Role, rows: int = 1) -> int:
    """Tokens of an update's micro-batch on one GPU, of so many rows where it is sized by them."""
    return micro_batch_tokens(
        section.use_dynamic_bsz,
        section.ppo_max_token_len_per_gpu,
        (section.ppo_micro_batch_size_per_gpu or 0) * rows,
        longest,
        role.layout.sequence,
        key,
    )


def _scoring_tokens(section: Any, key: str, longest: int, role: Role) -> int:
    return micro_batch_tokens(
        section.log_prob_use_dynamic_bsz,
        section.log_prob_max_token_len_per_gpu,
        section.log_prob_micro_batch_size_per_gpu,
        longest,
        role.layout.sequence,
        key,
    )


def _check_megatron_sizes(key: str, engine: Any, role: Role) -> None:
    """Check the sizes that have to divide those of a model: of a name of the table, too, which is no folder here."""
    shape = role.shape
    model = SimpleNamespace(
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        num_hidden_layers=shape.layers,
        vocab_size=shape.vocab,
        num_experts=shape.experts,
    )
    check_divisions(key, engine, model, None, engine.virtual_pipeline_model_parallel_size or 1)


def _reference(config: DictConfig, student: Role, gpus: int, longest: int) -> Role | None:
    """The KL reference; under LoRA it is the student without, or with another, adapter: no model of its own."""
    models = config.actor_rollout_ref
    if student.has_adapters:
        return None
    role = read_role("reference", student.shape, models.ref, _REF, models.model, _MODEL, gpus)
    return replace(role, micro_tokens=_scoring_tokens(models.ref, _REF, longest, role))


def _discriminator(config: DictConfig, gad: GadConfig, gpus: int, longest: int) -> Role:
    section = values.needed(config, _DISCRIMINATOR)
    model, model_key = section.model, f"{_DISCRIMINATOR}.model"
    shape = find_shape(str(model.path), f"{model_key}.path").cut_to(gad.discriminator_num_layers)
    pool = _own_pool(gad) or gpus
    role = read_role("discriminator", shape, section, _DISCRIMINATOR, model, model_key, pool, scalar_head=True)
    group = int(config.actor_rollout_ref.rollout.n) + 1
    return replace(role, micro_tokens=_update_tokens(section, _DISCRIMINATOR, longest, role, rows=group))
