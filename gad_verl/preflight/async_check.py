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
"""What the asynchronous trainer modes want of a configuration: verl asserts it amid its set-up, or not at all."""

import importlib
import logging

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.config.checks import require
from gad_verl.config.modes import ASYNC_MODES, SEPARATE_ASYNC, trainer_mode, updates_of_step
from gad_verl.errors import GadConfigError

logger = logging.getLogger(__name__)

_ROLLOUT, _ENGINE = "actor_rollout_ref.rollout", "actor_rollout_ref.rollout.checkpoint_engine"
_STRATEGIES = ("drop", "wait")


def check_mode(config: DictConfig, gad_config: GadConfig) -> None:
    """Check the trainer mode against the rest.

    Raises:
        GadConfigError: Names the keys and the remedy.
    """
    mode = trainer_mode(config)
    if mode not in ASYNC_MODES:
        require(
            gad_config.off_policy.discriminator_max_age is None,
            f"gad.off_policy.discriminator_max_age with trainer.v1.trainer_mode={mode}: no rollout is older than its "
            "student there. Set it to null, or an asynchronous mode (docs/async.md)",
        )
        return
    require(
        gad_config.has_discriminator,
        f"gad.stage={gad_config.stage} with trainer.v1.trainer_mode={mode}: its steps that learn generate nothing, so "
        "there is nothing to be asynchronous. Set trainer.v1.trainer_mode=gad_sync",
    )
    require(
        not gad_config.trajectory.enable,
        f"gad.trajectory.enable=True with trainer.v1.trainer_mode={mode}: conversations with tools were not tried in "
        "an asynchronous mode. Set trainer.v1.trainer_mode=gad_sync",
    )
    _check_sampler(config)
    _check_correction(config)
    require(
        not config.skip.rollout_tq.enable,
        f"skip.rollout_tq.enable=True reads rollouts of another run, and trainer.v1.trainer_mode={mode} wants live "
        "ones: set it to False",
    )
    if mode == SEPARATE_ASYNC:
        _check_separate(config, gad_config)


def _check_sampler(config: DictConfig) -> None:
    sampler = config.trainer.v1.sampler
    most, strategy = sampler.max_off_policy_threshold, sampler.max_off_policy_strategy
    require(
        most is None or (isinstance(most, int) and not isinstance(most, bool) and most > 0),
        f"trainer.v1.sampler.max_off_policy_threshold={most}: a whole number of at least 1 is needed, or null for no "
        "limit",
    )
    require(
        strategy in _STRATEGIES,
        f"trainer.v1.sampler.max_off_policy_strategy={strategy} must be one of {', '.join(_STRATEGIES)}",
    )
    section = config.trainer.v1[trainer_mode(config).removeprefix("gad_")]
    require(
        section.num_warmup_batches >= 0,
        f"num_warmup_batches={section.num_warmup_batches} of trainer.v1 must not be negative",
    )


def _check_correction(config: DictConfig) -> None:
    """Rollouts are older than the student: without a correction the gradient is not that of its reward."""
    correction = config.algorithm.rollout_correction
    corrects = correction is not None and (correction.rollout_is is not None or correction.bypass_mode)
    if not corrects:
        logger.warning(
            "algorithm.rollout_correction.rollout_is is null: rollouts of older weights train the student as if they "
            "were its own. gad_async sets it to token"
        )
        return
    require(
        bool(config.actor_rollout_ref.rollout.calculate_log_probs),
        f"algorithm.rollout_correction compares with the log-probabilities of the rollout: set "
        f"{_ROLLOUT}.calculate_log_probs=True",
    )


def _check_separate(config: DictConfig, gad_config: GadConfig) -> None:
    rollout, actor, trainer = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor, config.trainer
    updates, prompts, mini_batch = updates_of_step(config), config.data.train_batch_size, actor.ppo_mini_batch_size
    require(
        prompts == updates * mini_batch,
        f"data.train_batch_size ({prompts}) must be trainer.v1.separate_async.parameter_sync_step ({updates}) times "
        f"actor_rollout_ref.actor.ppo_mini_batch_size ({mini_batch}): set the latter to {max(1, prompts // updates)}",
    )
    gpus = rollout.nnodes * rollout.n_gpus_per_node
    require(
        gpus > 0,
        f"{_ROLLOUT}.nnodes={rollout.nnodes} and n_gpus_per_node={rollout.n_gpus_per_node}: the rollout of "
        f"{SEPARATE_ASYNC} has machines of its own. Set both to at least 1, or trainer.v1.trainer_mode to "
        "gad_colocate_async",
    )
    size = rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size
    require(
        gpus % size == 0,
        f"{_ROLLOUT}: an engine of {size} GPUs (tensor x data x pipeline parallelism) does not divide the {gpus} of "
        f"{_ROLLOUT}.nnodes x n_gpus_per_node: set {_ROLLOUT}.tensor_model_parallel_size to a divisor",
    )
    _check_engine(config)
    model = config.actor_rollout_ref.model
    adapted = max(model.get("lora_rank", 0), (model.get("lora", None) or {}).get("rank", 0)) > 0
    require(
        not adapted or bool((model.get("lora", None) or {}).get("merge", False)),
        "actor_rollout_ref.model.lora_rank above 0: a checkpoint engine sends whole weights. Set "
        "actor_rollout_ref.model.lora.merge=True, or trainer.v1.trainer_mode to gad_colocate_async",
    )
    ray_gpus = OmegaConf.select(config, "ray_kwargs.ray_init.num_gpus", default=None)
    own = gad_config.discriminator_nnodes * gad_config.discriminator_n_gpus_per_node
    needed = trainer.nnodes * trainer.n_gpus_per_node + gpus + own
    require(
        ray_gpus is None or ray_gpus >= needed,
        f"ray_kwargs.ray_init.num_gpus={ray_gpus}, but training, rollout and discriminator take {needed} together: "
        f"set it to {needed}",
    )


def _check_engine(config: DictConfig) -> None:
    from verl.checkpoint_engine.base import CheckpointEngineRegistry

    engine = config.actor_rollout_ref.rollout.checkpoint_engine
    require(
        engine.backend != "naive",
        f"{_ENGINE}.backend=naive moves weights within one process: set nccl (on GPUs), or gad_gloo with "
        f"{_ENGINE}.custom_backend_module=gad_verl.rollout.gloo_engine (without)",
    )
    try:
        importlib.import_module("verl.checkpoint_engine")
        if engine.custom_backend_module:
            importlib.import_module(engine.custom_backend_module)
        CheckpointEngineRegistry.get(engine.backend)
    except (ImportError, ValueError) as error:
        raise GadConfigError(f"{_ENGINE}.backend={engine.backend}: {str(error).splitlines()[0]}") from None
