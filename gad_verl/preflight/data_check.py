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
"""Every row of the training and validation files, and whether the stages fit into the run that they make."""

import logging
import math

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.core.schedule import StageSchedule
from gad_verl.data.file_stamps import file_list
from gad_verl.data.loaded import check_loaded
from gad_verl.data.rendered_prompts import prompt_readers
from gad_verl.data.row_checks import TrainingRowChecks
from gad_verl.data.schema import check_file
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.preflight.agent_check import check_agent_column
from gad_verl.preflight.image_check import check_images
from gad_verl.preflight.kept_rows import kept_rows, looks_at_lengths
from gad_verl.preflight.objective_check import check_evidence, check_texts
from gad_verl.preflight.options import check_held_out, check_task_columns
from gad_verl.preflight.reward_check import check_reward_rows
from gad_verl.preflight.unread_check import check_stages_read
from gad_verl.trainer.begun import begun_run

logger = logging.getLogger(__name__)


def check_data(config: DictConfig, gad_config: GadConfig) -> int:
    """Check every row of the training and validation files; returns the number of rows that the run will train on.

    Raises:
        GadDataError: Names the file, row and column.
        GadConfigError: A setting of the data is none.
    """
    for key in ("train_max_samples", "val_max_samples"):
        most = config.data.get(key, -1)
        if isinstance(most, bool) or not isinstance(most, int):
            raise GadConfigError(f"data.{key}={most}: a whole number is needed; -1 takes all rows")
    if not config.data.train_files:
        raise GadDataError("data.train_files names no file: give training rows (gad-verl data import makes them)")
    checks = TrainingRowChecks(gad_config)
    rows = checks.check_files(file_list(config.data.train_files), config.data.prompt_key)
    if not config.data.val_files:
        raise GadDataError("data.val_files names no file: give held-out rows (a few of the training rows will do)")
    for path in file_list(config.data.val_files):
        check_file(path, config.data.prompt_key, gad_config.teacher_key, read_texts=checks.read_texts)
    for files in (config.data.train_files, config.data.val_files):
        check_loaded(file_list(files), config.data.prompt_key, gad_config.teacher_key, checks.read_texts)
    source, samples, first = "data.train_files", config.data.get("train_max_samples", -1), checks.first_held_out
    left = min(rows, samples) if samples > 0 else rows
    if left < rows:
        source = "data.train_max_samples"
    if looks_at_lengths(config, gad_config):
        # verl's filter drops a row that it cannot render, with a traceback: these are named first.
        for reader in prompt_readers(config, gad_config):
            for path in dict.fromkeys([*file_list(config.data.train_files), *file_list(config.data.val_files)]):
                reader.check_file(path, config.data.prompt_key)
        check_images(config, gad_config)
        kept = kept_rows(config)
        if kept < left:
            source, left = "what data.filter_overlong_prompts and gad.teacher_overlong leave of data.train_files", kept
            logger.info("%d of %d training rows are short enough", kept, rows)
    if left < rows:
        # Which rows these are is not known here: some of the prompts that are held out, by their share.
        first = [above * rows / left for above in first]
        rows = left
    if rows < config.data.train_batch_size:
        raise GadDataError(
            f"{source} gives {rows} rows, fewer than data.train_batch_size={config.data.train_batch_size}: not "
            "one step could be made. Lower data.train_batch_size or add data"
        )
    check_agent_column(config, gad_config)
    checks.check_together(1, length_of_run(config, rows)[1])
    check_task_columns(config, gad_config)
    check_reward_rows(config, gad_config)
    check_held_out(gad_config, rows, first)
    return rows


def length_of_run(config: DictConfig, rows: int) -> tuple[int, int]:
    """Steps of an epoch and of the run; a resumed run keeps the epoch with which it began."""
    steps_per_epoch = begun_run(config.trainer).steps_per_epoch(rows // config.data.train_batch_size)
    return steps_per_epoch, config.trainer.total_training_steps or steps_per_epoch * config.trainer.total_epochs


def check_schedule(config: DictConfig, gad_config: GadConfig, rows: int) -> StageSchedule:
    """Check that the stages fit into the run (before the data set may drop rows) and follow those of a checkpoint.

    Raises:
        GadConfigError: Names the keys.
        GadCheckpointError: Names the checkpoint.
    """
    steps_per_epoch, total = length_of_run(config, rows)
    _compare_lengths(config.trainer, steps_per_epoch)
    try:
        schedule = gad_config.build_schedule(total, steps_per_epoch)
    except ValueError as error:
        raise GadConfigError(str(error)) from None
    begun_run(config.trainer).check(schedule)
    check_evidence(config, gad_config, rows, schedule)
    check_texts(gad_config, rows, schedule)
    check_stages_read(gad_config, schedule)
    return schedule


def _compare_lengths(trainer: DictConfig, steps_per_epoch: int) -> None:
    """Say which of the two lengths of a run counts where they differ."""
    steps, in_epochs = trainer.total_training_steps, trainer.total_epochs * steps_per_epoch
    if steps is not None and steps > in_epochs:
        logger.warning(
            "trainer.total_training_steps=%d is more than trainer.total_epochs=%d of %d steps: the run makes them all, "
            "and goes through the data %d times",
            *(steps, trainer.total_epochs, steps_per_epoch, math.ceil(steps / steps_per_epoch)),
        )
    elif steps is not None and steps < in_epochs:
        logger.info("trainer.total_training_steps=%d ends the run before trainer.total_epochs does", steps)
