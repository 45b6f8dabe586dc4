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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gad_verl.core import Phase
from gad_verl.guardian import Guardian
from gad_verl.trainer.run_log import RunLog
from gad_verl.trainer.stop_file import StopFile

logger = logging.getLogger(__name__)


@dataclass
class Ending:
    """Lets the guardian judge, and knows why a run ends early.

    Args:
        guardian: Judges the metrics.
        stop_file: A person or a script asks by it.
        saves: Whether the run saves checkpoints at all.
        log: Takes the events.
    """

    guardian: Guardian
    stop_file: StopFile
    saves: bool
    log: RunLog

    def __post_init__(self) -> None:
        # What is answered where somebody asked for the end.
        self.asked: str | None = None

    def judge(self, step: int, phase: Phase, metrics: Mapping[str, Any]) -> None:
        """Let the guardian read metrics of a step; may be called with several parts of them."""
        for event in self.guardian.observe(step, {**metrics, "gad/stage": float(phase.value)}):
            self.log.event(**event.as_dict())

    def ends_after(self, step: int, total_steps: int) -> bool | None:
        """Whether the run ends after this step: None if it goes on, else whether the step is worth a checkpoint."""
        stop = self.guardian.stop
        if stop is not None:
            logger.warning("the guardian ends the run after step %d: %s", step, stop.reason)
            return stop.save_checkpoint and self.saves
        if not self.stop_file.is_there or step >= total_steps:
            return None
        goes_on = "the same command goes on"
        if not self.saves:
            goes_on = "nothing is saved, since trainer.save_freq is not positive"
        self.asked = f"the run ends after step {step}, as {self.stop_file.path} asks; {goes_on}"
        logger.warning(self.asked)
        # Before the checkpoint, to which it belongs like all that the step has brought.
        self.log.event(step, "trainer", "stop_file", "info", self.asked, {})
        return self.saves

    @property
    def may_save(self) -> bool:
        """Whether this is worth a checkpoint: not where the guardian ends the run because the weights may be broken.

        verl saves its own steps without asking, and the checkpoint would push out the last good one.
        """
        stop = self.guardian.stop
        if stop is None or stop.save_checkpoint:
            return True
        logger.warning("nothing is saved: the weights may be broken (%s)", stop.reason)
        return False

    def confirm(self) -> None:
        """Answer whoever asked, once everything is written."""
        if self.asked is not None:
            self.stop_file.confirm(self.asked)
