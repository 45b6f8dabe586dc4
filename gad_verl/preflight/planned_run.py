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
"""All checks before a run in their order, and Hydra's callback that makes them."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from gad_verl import compat
from gad_verl.config import GadConfig
from gad_verl.config.modes import TRAINER_MODES, trainer_mode
from gad_verl.core.schedule import StageSchedule
from gad_verl.errors import GadCheckpointError, GadCompatError, GadConfigError, GadDataError
from gad_verl.preflight.attention_check import check_attention
from gad_verl.preflight.config_check import check_config
from gad_verl.preflight.data_check import check_data, check_schedule, length_of_run
from gad_verl.preflight.family_check import check_families
from gad_verl.preflight.file_logger import pass_on_file_logger
from gad_verl.preflight.head_watch import HeadWatch
from gad_verl.preflight.image_check import check_images
from gad_verl.preflight.megatron_check import check_installed
from gad_verl.preflight.model_check import check_discriminator, check_tokenizers, check_weights
from gad_verl.preflight.objective_check import check_unseen
from gad_verl.preflight.platform_check import choose_platform
from gad_verl.preflight.prompt_check import check_prompts
from gad_verl.preflight.ranks_check import check_ranks
from gad_verl.preflight.run_end import FAILED, ended_by, refuse
from gad_verl.preflight.size_check import check_models
from gad_verl.preflight.stop_signals import StopSignals
from gad_verl.preflight.trajectory_check import check_trajectories
from gad_verl.trainer.begun import resume_folder
from gad_verl.trainer.stop_file import StopFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedRun:
    """What the checks found out about a run.

    Args:
        gad_config: The section ``gad``.
        rows: Training rows.
        steps_per_epoch: Steps in which all rows are gone through.
        schedule: Stages of the run.
        resume_folder: Checkpoint that it would go on from; None for a start from the beginning.
    """

    gad_config: GadConfig
    rows: int
    steps_per_epoch: int
    schedule: StageSchedule
    resume_folder: Path | None


def run_preflight(config: DictConfig) -> PlannedRun:
    """All checks, the cheap ones first; returns what they found out.

    Raises:
        GadConfigError, GadDataError, GadCheckpointError, GadCompatError: One error with the remedy.
    """
    gad_config = check_config(config)
    rows = check_data(config, gad_config)
    schedule = check_schedule(config, gad_config, rows)
    resumed = resume_folder(config.trainer)
    check_ranks(config, gad_config, resumed)
    check_tokenizers(config)
    has_discriminator = gad_config.has_discriminator
    check_families(config, has_discriminator)
    check_attention(config, has_discriminator)
    check_models(config, gad_config)
    check_prompts(config, gad_config)
    check_images(config, gad_config)
    check_trajectories(config, gad_config)
    check_weights(config, has_discriminator)
    check_discriminator(config, gad_config)
    check_unseen(config, gad_config)
    check_installed(config)
    compat.check(quick=True)
    return PlannedRun(gad_config, rows, length_of_run(config, rows)[0], schedule, resumed)


class PreflightCallback(Callback):
    """Checks a run when Hydra has composed it, and lets signals end it in order. Stock trainer modes are left alone."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        # Not later: the job gets a copy of the configuration.
        if trainer_mode(config) in TRAINER_MODES:
            pass_on_file_logger(config)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if trainer_mode(config) not in TRAINER_MODES:
            return
        try:
            choose_platform(config)
            planned = run_preflight(config)
        except (GadConfigError, GadDataError, GadCheckpointError, GadCompatError) as error:
            # Hydra turns an ordinary exception of a callback into a warning; only SystemExit stops the run.
            raise refuse(f"gad_verl: {type(error).__name__}: {error}") from None
        except Exception as error:
            logger.exception("the check before the run failed")
            text = f"gad_verl: the check before the run failed: {type(error).__name__}: {error}"
            raise refuse(text, FAILED) from error
        stop_file = StopFile.of_run(planned.gad_config, Path(config.trainer.default_local_dir).absolute())
        # Here and not in the trainer, so that nobody's request is lost who asks while the models are loaded.
        stop_file.clear()
        StopSignals(stop_file).install()
        if planned.gad_config.watchdog.enable:
            HeadWatch().start()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Of a run that failed, the last line and an exit code that says whether to start it again."""
        if trainer_mode(config) in TRAINER_MODES and job_return.status is JobStatus.FAILED:
            raise ended_by(job_return._return_value)
