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
"""The trainer modes of gad_verl, by name, and how many updates a step has in each."""

from omegaconf import DictConfig, OmegaConf

SYNC, COLOCATE_ASYNC, SEPARATE_ASYNC = "gad_sync", "gad_colocate_async", "gad_separate_async"
ASYNC_MODES = (COLOCATE_ASYNC, SEPARATE_ASYNC)
TRAINER_MODES = (SYNC, *ASYNC_MODES)


def trainer_mode(config: DictConfig) -> str:
    """``trainer.v1.trainer_mode``; without one, the synchronous mode."""
    return str(OmegaConf.select(config, "trainer.v1.trainer_mode", default=SYNC))


def shares_devices(config: DictConfig) -> bool:
    """Whether the rollout, or a part of it, is on the devices of the training."""
    hybrid = OmegaConf.select(config, "actor_rollout_ref.hybrid_engine", default=True)
    return trainer_mode(config) != SEPARATE_ASYNC or bool(hybrid)


def rollout_gpus(config: DictConfig) -> int:
    """GPUs of a rollout with machines of its own, beside those of the training; 0 in all other modes."""
    # verl's own mode of that name has the same pool.
    if trainer_mode(config) not in (SEPARATE_ASYNC, "separate_async"):
        return 0
    rollout = config.actor_rollout_ref.rollout
    return int(rollout.nnodes * rollout.n_gpus_per_node)


def updates_of_step(config: DictConfig) -> int:
    """Mini-batches into which a step is cut, each with an update of student and discriminator.

    Always 1 but in ``gad_separate_async``.

    The batch of the step is ``data.train_batch_size``; weights go to the rollout once a step.
    """
    if trainer_mode(config) != SEPARATE_ASYNC:
        return 1
    return int(OmegaConf.select(config, "trainer.v1.separate_async.parameter_sync_step", default=1))
