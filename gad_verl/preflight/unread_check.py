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
"""Options that are set and would not be read, or contradict the stage: another run than was asked for."""

import logging
import os

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.core.schedule import Phase, StageSchedule
from gad_verl.errors import GadConfigError

logger = logging.getLogger(__name__)

_RESUME_MODES = ("auto", "disable", "resume_path")


def check_read(config: DictConfig, gad_config: GadConfig) -> None:
    """Check that what is set is read by this run; where it only costs something, a warning says so.

    Args:
        config: The whole configuration. A checkpoint that is named loses a slash at its end, in place: verl reads the
            step from behind "global_step_".
        gad_config: Its section ``gad``.

    Raises:
        GadConfigError: A checkpoint is named that the run would not go on from, or how to resume is not known.
    """
    trainer = config.trainer
    if trainer.resume_mode not in _RESUME_MODES:
        raise GadConfigError(
            f"trainer.resume_mode={trainer.resume_mode}: verl has {', '.join(_RESUME_MODES)} (docs/checkpoints.md)"
        )
    if trainer.get("resume_from_path", None):
        OmegaConf.update(config, "trainer.resume_from_path", os.path.normpath(str(trainer.resume_from_path)))
    if trainer.get("resume_from_path", None) and trainer.resume_mode == "auto":
        raise GadConfigError(
            f"trainer.resume_from_path={trainer.resume_from_path} is not read with trainer.resume_mode=auto, which "
            "goes on from the newest checkpoint of trainer.default_local_dir: set trainer.resume_mode=resume_path, or "
            "leave the path out"
        )
    if gad_config.warmup_steps is not None and gad_config.stage not in ("auto", "soda"):
        logger.warning(
            "gad.warmup_steps=%d is read with gad.stage=auto or soda alone: this run (gad.stage=%s) is of one stage "
            "from its first step to its last",
            *(gad_config.warmup_steps, gad_config.stage),
        )
    epochs = config.actor_rollout_ref.actor.ppo_epochs
    if epochs > 1 and gad_config.stage in ("seqkd", "warmup", "soda"):
        logger.warning(
            "actor_rollout_ref.actor.ppo_epochs=%d is of steps on rewards, and gad.stage=%s has none: its student "
            "sees each step's texts once (trainer.total_epochs counts the passes)",
            *(epochs, gad_config.stage),
        )
    if gad_config.discriminator_nnodes > 1 and not gad_config.discriminator_n_gpus_per_node:
        logger.warning(
            "gad.discriminator_nnodes=%d is read with gad.discriminator_n_gpus_per_node above 0 alone: the "
            "discriminator of this run shares the student's GPUs",
            gad_config.discriminator_nnodes,
        )
    if gad_config.stage == "gad" and _begins_fresh(config, gad_config):
        logger.warning(
            "gad.stage=gad begins with a discriminator that has learned nothing, so the student's first rewards are "
            "noise: with gad.stage=auto, gad.warmup_steps=20 gad.discriminator_only_steps=20 train it alone first, or "
            "discriminator.model.path names one that gad-verl export wrote"
        )


def check_stages_read(gad_config: GadConfig, schedule: StageSchedule) -> None:
    """Warn of what is set for steps that the run does not have.

    Args:
        gad_config: The settings.
        schedule: Stages of the run.
    """
    phases = schedule.steps_by_phase()
    if gad_config.discriminator_only_updates > 1 and not phases[Phase.DISCRIMINATOR_ONLY]:
        logger.warning(
            "gad.discriminator_only_updates=%d is of steps in which the discriminator learns alone, and this run has "
            "none of them (gad.stage=%s, gad.discriminator_only_steps=%d, a warmup of %d steps)",
            *(gad_config.discriminator_only_updates, gad_config.stage, gad_config.discriminator_only_steps),
            phases[Phase.WARMUP],
        )
    if gad_config.warmup_rollout_n is not None and not any(phase.is_warmup for phase in phases):
        logger.warning(
            "gad.warmup_rollout_n=%d is of a warmup, and this run has none (gad.stage=%s)",
            *(gad_config.warmup_rollout_n, gad_config.stage),
        )


def _begins_fresh(config: DictConfig, gad_config: GadConfig) -> bool:
    """Whether the discriminator has a new head, if the run begins at its beginning."""
    is_students = config.discriminator.model.path == config.actor_rollout_ref.model.path
    return gad_config.discriminator_head == "fresh" or (gad_config.discriminator_head == "auto" and is_students)
