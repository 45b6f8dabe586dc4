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
"""Counts and parallel sizes, against the GPUs and the heads of the models. Imports neither verl nor vLLM."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.config.modes import shares_devices
from gad_verl.errors import GadConfigError
from gad_verl.preflight.megatron_check import FSDP

_ROLLOUT, _ACTOR, _DISCRIMINATOR = "actor_rollout_ref.rollout", "actor_rollout_ref.actor", "discriminator"
# Counts that have to be there and above 0, and those that may be null.
_COUNTS = (
    "data.train_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    f"{_ACTOR}.ppo_mini_batch_size",
    f"{_ACTOR}.ppo_epochs",
    f"{_ROLLOUT}.n",
    f"{_ROLLOUT}.tensor_model_parallel_size",
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
)
_OPTIONAL_COUNTS = (
    "data.gen_batch_size",
    f"{_ACTOR}.ppo_micro_batch_size_per_gpu",
    f"{_ACTOR}.ppo_max_token_len_per_gpu",
    f"{_ROLLOUT}.pipeline_model_parallel_size",
    f"{_ROLLOUT}.data_parallel_size",
    f"{_ROLLOUT}.max_model_len",
    f"{_ROLLOUT}.max_num_seqs",
    f"{_ROLLOUT}.max_num_batched_tokens",
    f"{_ROLLOUT}.agent.num_workers",
    f"{_ROLLOUT}.val_kwargs.n",
    f"{_ROLLOUT}.log_prob_micro_batch_size_per_gpu",
    f"{_ROLLOUT}.log_prob_max_token_len_per_gpu",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu",
    "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu",
    "critic.ppo_mini_batch_size",
    f"{_DISCRIMINATOR}.ppo_micro_batch_size_per_gpu",
    f"{_DISCRIMINATOR}.ppo_max_token_len_per_gpu",
    "trainer.total_training_steps",
)


@dataclass(frozen=True)
class Heads:
    """Of a model's attention.

    Args:
        queries: Heads of queries.
        keys: Heads of keys and values.
    """

    queries: int
    keys: int


def check_counts(config: DictConfig) -> None:
    """Check that what is counted is there.

    Raises:
        GadConfigError: Names the key.
    """
    for key in (*_COUNTS, *_OPTIONAL_COUNTS):
        value = OmegaConf.select(config, key, default=None)
        if value is None and key in _OPTIONAL_COUNTS:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise GadConfigError(f"{key}={value}: a whole number of at least 1 is needed")
    epochs = config.trainer.total_epochs
    if config.trainer.total_training_steps is None and (not isinstance(epochs, int) or epochs < 1):
        raise GadConfigError(
            f"trainer.total_epochs={epochs} and no trainer.total_training_steps: the run would "
            "have no step; set one of them"
        )


def check_parallel(
    config: DictConfig, gad_config: GadConfig, student: Heads | None, discriminator: Heads | None
) -> None:
    """Check the sizes of the rollout's engines and of sequence parallelism.

    Args:
        config: The whole configuration.
        gad_config: Its section ``gad``.
        student, discriminator: Heads of the models; None where they are not known here.

    Raises:
        GadConfigError: Names the key, the sizes and the remedy.
    """
    _check_rollout(config, student)
    for key, section, model, gpus, heads in _engines(config, gad_config, student, discriminator):
        _check_engine(key, section, model, gpus, heads)


def _check_rollout(config: DictConfig, heads: Heads | None) -> None:
    rollout, trainer = config.actor_rollout_ref.rollout, config.trainer
    tensor, pipeline, replicas = (
        rollout.get(name, None) or 1
        for name in ("tensor_model_parallel_size", "pipeline_model_parallel_size", "data_parallel_size")
    )
    # Whose devices it has: those of the training, but for a rollout of its own.
    key, section = ("trainer", trainer) if shares_devices(config) else (_ROLLOUT, rollout)
    gpus, engine = section.nnodes * section.n_gpus_per_node, tensor * pipeline * replicas
    if gpus % engine:
        raise GadConfigError(
            f"{_ROLLOUT}: an engine of {engine} GPUs (tensor x pipeline x data parallelism {tensor} x {pipeline} x "
            f"{replicas}) does not divide the {gpus} of {key}.nnodes x {key}.n_gpus_per_node: set "
            f"{_ROLLOUT}.tensor_model_parallel_size to a divisor"
        )
    if engine % min(section.n_gpus_per_node, engine):
        raise GadConfigError(
            f"{_ROLLOUT}: an engine of {engine} GPUs fills no whole nodes of {key}.n_gpus_per_node="
            f"{section.n_gpus_per_node}: set {_ROLLOUT}.tensor_model_parallel_size to a divisor or a multiple"
        )
    # The rollout "hf" has a whole model in each process.
    if heads is None or rollout.name == "hf" or tensor == 1:
        return
    if heads.queries % tensor:
        fitting = [size for size in range(1, tensor) if not heads.queries % size and not gpus % size]
        raise GadConfigError(
            f"{_ROLLOUT}.tensor_model_parallel_size={tensor} (verl's default is 2) does not divide the student's "
            f"{heads.queries} attention heads: set it to {fitting[-1]}"
        )
    if heads.keys % tensor and tensor % heads.keys:
        raise GadConfigError(
            f"{_ROLLOUT}.tensor_model_parallel_size={tensor} neither divides the student's {heads.keys} heads of keys "
            "and values nor is a multiple of them: set it to a divisor"
        )


def _engines(
    config: DictConfig, gad_config: GadConfig, student: Heads | None, discriminator: Heads | None
) -> Iterator[tuple[str, Any, Any, int, Heads | None]]:
    """Engines of FSDP: key, section, model, GPUs of the pool, heads."""
    gpus, actor_rollout_ref = config.trainer.nnodes * config.trainer.n_gpus_per_node, config.actor_rollout_ref
    for name in ("actor", "ref"):
        key = f"actor_rollout_ref.{name}"
        yield key, actor_rollout_ref[name], actor_rollout_ref.model, gpus, student
    if gad_config.has_discriminator:
        own = gad_config.discriminator_nnodes * gad_config.discriminator_n_gpus_per_node
        yield _DISCRIMINATOR, config.discriminator, config.discriminator.model, own or gpus, discriminator


def sequence_parallel(key: str, section: Any) -> tuple[str, int]:
    """Ranks of FSDP that share a sequence: the key that says it, and how many they are.

    Args:
        key: Of the section.
        section: Of an actor, a reference or a critic.
    """
    name = _engine_name(section)
    # The name without fsdp_config is verl's older one, and counts where it is set.
    old = section.get("ulysses_sequence_parallel_size", None) or 1
    if old == 1 or name == "fsdp":
        return f"{key}.{name}.ulysses_sequence_parallel_size", section[name].ulysses_sequence_parallel_size
    return f"{key}.ulysses_sequence_parallel_size", old


def _engine_name(section: Any) -> str:
    return "fsdp" if "fsdp" in section else "fsdp_config"


def _check_engine(key: str, section: Any, model: Any, gpus: int, heads: Heads | None) -> None:
    if section.strategy not in FSDP:
        return
    name = _engine_name(section)
    engine = section[name]
    spelled, size = sequence_parallel(key, section)
    if not isinstance(size, int) or size < 1 or gpus % size:
        raise GadConfigError(f"{spelled}={size} does not divide the {gpus} GPUs of its pool: set it to a divisor")
    shards = engine.get("fsdp_size", -1)
    if not isinstance(shards, int) or shards == 0 or (0 < shards < gpus and gpus % shards):
        raise GadConfigError(
            f"{key}.{name}.fsdp_size={shards} does not divide the {gpus} GPUs of its pool: set it to a divisor, or to "
            "-1 for all of them"
        )
    if size == 1:
        return
    if not model.get("use_remove_padding", False):
        raise GadConfigError(f"{spelled}={size} needs packed sequences: set use_remove_padding=True for its model")
    if heads is not None and (heads.queries % size or (heads.keys % size and size % heads.keys)):
        raise GadConfigError(
            f"{spelled}={size} does not fit the model's {heads.queries} attention heads and {heads.keys} heads of keys "
            "and values: it has to divide the first, and to divide the second or be a multiple of them"
        )
