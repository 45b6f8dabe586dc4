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
"""Batches against the ranks that divide them, and the longest row against what a micro-batch holds.

verl asserts both in its workers: the first in the first update on scores, which is after the whole warmup, the second
when a long text appears. Steps on texts fill up their rows by themselves, so that any batch does for them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.config.checks import require
from gad_verl.config.modes import updates_of_step
from gad_verl.preflight.parallel_check import sequence_parallel
from gad_verl.preflight.position_check import STUDENT, longest_row

_ACTOR, _ROLLOUT, _REF = (f"actor_rollout_ref.{name}" for name in ("actor", "rollout", "ref"))
_CRITIC = "critic"
_SIZE, _TOKENS = "micro_batch_size_per_gpu", "max_token_len_per_gpu"
# verl's dataclass has it, and its YAML does not.
_CRITIC_TOKENS = 32768


@dataclass(frozen=True)
class Ranks:
    """How a model's engine divides a batch.

    Args:
        data: Data-parallel ranks: each has its own rows.
        sequence: Ranks that share a row.
    """

    data: int
    sequence: int


def ranks_of(config: DictConfig, key: str) -> Ranks | None:
    """Ranks of a model on the GPUs of the training; None for an engine that is not known here.

    Args:
        config: The whole configuration.
        key: Of the section of an actor, a reference or a critic.
    """
    section, gpus = OmegaConf.select(config, key), config.trainer.nnodes * config.trainer.n_gpus_per_node
    if "megatron" in section:
        layout = section.megatron
        context = layout.context_parallel_size
        model = layout.tensor_model_parallel_size * layout.pipeline_model_parallel_size * context
        return Ranks(max(1, gpus // model), context)
    if "veomni" in section:
        shared = section.veomni.ulysses_parallel_size
    elif "fsdp" in section or "fsdp_config" in section:
        shared = sequence_parallel(key, section)[1]
    else:
        return None
    return Ranks(max(1, gpus // shared), shared)


def check_batches(config: DictConfig, gad_config: GadConfig) -> None:
    """Check the batches of the student's and the critic's updates on scores against their ranks.

    Raises:
        GadConfigError: Names the keys, the sizes and what would fit.
    """
    if gad_config.stage not in ("auto", "gad"):
        return
    responses, multiple, batches = config.actor_rollout_ref.rollout.n, 1, {}
    for key in (_ACTOR, _CRITIC) if _has_critic(config) else (_ACTOR,):
        ranks = ranks_of(config, key)
        if ranks is None:
            continue
        batches[key] = _check_batch(key, OmegaConf.select(config, key).ppo_mini_batch_size, responses, ranks)
        multiple = math.lcm(multiple, ranks.data if key == _ACTOR else 1, batches[key])
    actor = ranks_of(config, _ACTOR)
    if actor is None:
        return
    # What verl's trainer fills the batch of an update up to.
    rows = config.data.train_batch_size // updates_of_step(config) * responses
    rows = math.ceil(rows / multiple) * multiple
    if not config.actor_rollout_ref.actor.use_dynamic_bsz:
        _check_micro_batch(config, _ACTOR, f"ppo_{_SIZE}", batches[_ACTOR], actor)
        if _reads_old(config) or _is_reference_in_actor(config):
            _check_micro_batch(config, _ROLLOUT, f"log_prob_{_SIZE}", rows, actor)
    reference = ranks_of(config, _REF) if has_reference(config) else None
    if reference is not None and not config.actor_rollout_ref.ref.log_prob_use_dynamic_bsz:
        _check_micro_batch(config, _REF, f"log_prob_{_SIZE}", rows, reference)


def _check_batch(key: str, prompts: int, responses: int, ranks: Ranks) -> int:
    """Rows of a mini-batch, of all ranks."""
    rows = prompts * responses
    unit = ranks.data // math.gcd(ranks.data, responses)
    below = prompts // unit * unit
    fitting = f"{below} or {below + unit}" if below else str(unit)
    require(
        rows % ranks.data == 0,
        f"{key}.ppo_mini_batch_size={prompts} x actor_rollout_ref.rollout.n={responses} = {rows} rows do not divide "
        f"evenly among {ranks.data} data-parallel ranks (the GPUs of trainer.nnodes x trainer.n_gpus_per_node, or "
        "groups of them that share a row or the model), and the first update on scores would end the run: set "
        f"{key}.ppo_mini_batch_size to {fitting}, and data.train_batch_size to it or a multiple of it",
    )
    return rows


def _check_micro_batch(config: DictConfig, key: str, name: str, rows: int, ranks: Ranks) -> None:
    """Without micro-batches by tokens, the rows of a rank are cut into equal parts."""
    size, own = OmegaConf.select(config, f"{key}.{name}"), rows // ranks.data
    if size is None:
        return
    fitting = next(part for part in range(min(size, own), 0, -1) if own % part == 0)
    require(
        rows % (ranks.data * size) == 0,
        f"{key}.{name}={size} does not divide the {own} rows that each of {ranks.data} data-parallel ranks has of "
        f"{rows}: set it to {fitting}, or use_dynamic_bsz=True (micro-batches by tokens)",
    )


def check_longest_row(config: DictConfig, gad_config: GadConfig) -> None:
    """Check that the longest row of the student fits into a micro-batch by tokens.

    Raises:
        GadConfigError: Names the key, the sizes and the remedy.
    """
    longest, text = longest_row(config, STUDENT)
    for key, limit, ranks in _token_limits(config, gad_config):
        holds = limit * ranks.sequence
        shared = f" x {ranks.sequence} ranks that share a row = {holds}" if ranks.sequence > 1 else ""
        require(
            longest <= holds,
            f"{text}, but a micro-batch holds {key}={limit}{shared} tokens, and the first longer row would end the "
            f"run: set {key} to at least {math.ceil(longest / ranks.sequence)}, or lower the lengths",
        )


def _token_limits(config: DictConfig, gad_config: GadConfig) -> Iterator[tuple[str, int, Ranks]]:
    """Keys of micro-batches by tokens that the run reads, their values and engines."""
    found: list[tuple[str, str, Any]] = []
    part = config.actor_rollout_ref
    if part.actor.use_dynamic_bsz:
        # Validations of every stage read losses by the second.
        found += [
            (_ACTOR, f"{_ACTOR}.ppo_{_TOKENS}", part.actor.get(f"ppo_{_TOKENS}")),
            (_ACTOR, f"{_ROLLOUT}.log_prob_{_TOKENS}", part.rollout.get(f"log_prob_{_TOKENS}")),
        ]
    compares = gad_config.stage in ("auto", "gad", "soda")
    if compares and has_reference(config) and part.ref.log_prob_use_dynamic_bsz:
        found.append((_REF, f"{_REF}.log_prob_{_TOKENS}", part.ref.get(f"log_prob_{_TOKENS}")))
    if gad_config.stage in ("auto", "gad") and _has_critic(config):
        # verl's trainer gives its engine this one for both directions.
        name = f"ppo_infer_{_TOKENS}"
        found.append((_CRITIC, f"{_CRITIC}.{name}", config.critic.get(name, _CRITIC_TOKENS)))
    for key, name, limit in found:
        ranks = ranks_of(config, key)
        if ranks is not None and limit is not None:
            yield name, limit, ranks


def _has_critic(config: DictConfig) -> bool:
    """As verl's need_critic, which warns where there is none."""
    enable = config.critic.enable
    return str(config.algorithm.adv_estimator) == "gae" if enable is None else bool(enable)


def _is_reference_in_actor(config: DictConfig) -> bool:
    """Whether the reference is the student without its adapter."""
    model = config.actor_rollout_ref.model
    rank = (model.get("lora", None) or {}).get("rank", 0) or model.get("lora_rank", 0)
    return _wants_reference(config) and (rank > 0 or model.get("lora_adapter_path", None) is not None)


def has_reference(config: DictConfig) -> bool:
    """Whether the reference has an engine of its own."""
    return _wants_reference(config) and not _is_reference_in_actor(config)


def _wants_reference(config: DictConfig) -> bool:
    return bool(config.algorithm.get("use_kl_in_reward", False) or config.actor_rollout_ref.actor.use_kl_loss)


def _reads_old(config: DictConfig) -> bool:
    """Whether the student reads the log-probabilities of its rollouts before it learns from them."""
    correction = config.algorithm.get("rollout_correction", None)
    return not (correction and correction.get("bypass_mode", False))
