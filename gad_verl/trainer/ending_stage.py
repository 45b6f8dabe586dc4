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
"""What a step decides about the run: the guardian's judgement, and whether the run ends before its last step."""

import logging

from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from gad_verl.trainer.stop_file import StopFile

logger = logging.getLogger(__name__)


class EndingStageMixin(PPOTrainer):
    """The part of ``GadTrainerSync`` that may end a run early. Needs its toolbox and the other mixins."""

    _training_began = False
    # Why the run ends before its last step, where somebody asked for it.
    _asked_to_end: str | None = None

    @property
    def _stop_file(self) -> StopFile:
        return StopFile.of_run(self.gad_config, self._checkpoint_root)

    def _decide_by(self, metrics: dict) -> None:
        """Let the guardian judge the step, and end the run where it says so, or where somebody asks for it."""
        for event in self.take_data_events():
            self.toolbox.note(**event)
        self.toolbox.judge(self.global_steps, self.phase, metrics)
        if self.gad_config.guardian.enable:
            metrics.update(self.toolbox.guardian.metrics())
        stop = self.toolbox.guardian.stop
        if stop is not None:
            logger.warning("the guardian ends the run after step %d: %s", self.global_steps, stop.reason)
            self._end_here(stop.save_checkpoint)
        elif self._stop_file.is_there and self.global_steps < self.total_training_steps:
            self._end_by(self._stop_file)

    def _end_by(self, file: StopFile) -> None:
        saves = self.config.trainer.save_freq > 0
        goes_on = "the same command goes on" if saves else "nothing is saved, since trainer.save_freq is not positive"
        self._asked_to_end = f"the run ends after step {self.global_steps}, as {file.path} asks; {goes_on}"
        logger.warning(self._asked_to_end)
        # First: it belongs to the checkpoint like all that the step has brought.
        self.toolbox.note(self.global_steps, "trainer", "stop_file", "info", self._asked_to_end, {})
        self._end_here(saves)

    def _end_here(self, save_checkpoint: bool) -> None:
        """Make this step the last one."""
        is_saved_by_verl = self._saves_after_this_step()
        # verl's loop ends behind its last step.
        self.total_training_steps = self.global_steps
        if save_checkpoint and not is_saved_by_verl and self.config.trainer.save_freq > 0:
            self._save_checkpoint()

    def _saves_after_this_step(self) -> bool:
        frequency = self.config.trainer.save_freq
        return frequency > 0 and (self.global_steps >= self.total_training_steps or self.global_steps % frequency == 0)

    def _after_validation(self, metrics: dict) -> None:
        """Judge a validation. It comes after the step's checkpoint, so that one's state of the tools is renewed.

        What verl validates before a resumed run goes on was judged when that step was made, if it was to be.
        """
        if self._resume_folder is not None and not self._training_began:
            return
        self.toolbox.judge(self.global_steps, self.phase, metrics)
        folder = self._checkpoint_root / f"global_step_{self.global_steps}"
        if folder.is_dir():
            self._save_tools(folder)
