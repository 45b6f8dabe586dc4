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
"""What a resumed run keeps of the run that was begun: the length of an epoch and the borders of its stages, in steps.

Both follow from rows, batch size and settings when a run begins. From then on they are facts of the checkpoint: other
rows or another batch size move nothing, and settings that would move what lies behind are refused.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from gad_verl.core.schedule import ADVERSARIAL, PREFERENCE, SEQKD, WARMUP, StageSchedule, stage_of
from gad_verl.errors import GadCheckpointError
from gad_verl.trainer import checkpoints
from gad_verl.trainer.checkpoints import GadState
from gad_verl.trainer.data_state import DataState, read_data_state

_ANEW = "trainer.resume_mode=disable with another trainer.default_local_dir to start anew"


@dataclass(frozen=True)
class BegunRun:
    """The run that goes on.

    Args:
        folder: The checkpoint; None for a run that starts from the beginning.
        state: Its state; None without one.
        data: Its training data; None without a checkpoint, and in those of older versions.
    """

    folder: Path | None = None
    state: GadState | None = None
    data: DataState | None = None

    def steps_per_epoch(self, counted: int) -> int:
        """Steps of an epoch when the run began; ``counted`` (rows by batch size) where it begins now."""
        return counted if self.data is None else self.data.steps_per_epoch

    def check(self, now: StageSchedule) -> StageSchedule:
        """Check that what comes follows what was: no stage comes twice. Returns the schedule.

        Args:
            now: Stages by the configuration.

        Raises:
            GadCheckpointError: Names the checkpoint, the key and the remedy.
        """
        state = self.state
        if state is None:
            return now
        if state.step > now.total_steps:
            raise GadCheckpointError(
                f"{self.folder} lies behind the end of a run of {now.total_steps} steps: nothing is left to train. "
                f"Raise trainer.total_training_steps (or trainer.total_epochs), or set {_ANEW}"
            )
        if state.step == now.total_steps:
            return now
        stage, schedule = stage_of(now.phase(state.step + 1)), state.schedule
        if schedule is not None and schedule.stage != now.stage and "soda" in (schedule.stage, now.stage):
            self._refuse(f"is of gad.stage={schedule.stage}, and now it is {now.stage}")
        if stage != state.stage and (state.stage, stage) not in ((WARMUP, ADVERSARIAL), (SEQKD, PREFERENCE)):
            self._refuse(f"is in stage {state.stage}, and the next step would be of stage {stage}")
        before = _borders(schedule, state.stage)
        for key, (steps, border) in _borders(now, state.stage).items():
            steps_before, border_before = before.get(key, (steps, border))
            if border != border_before and state.step > min(border, border_before):
                self._refuse(f"was made with {key}={steps_before}, and now it is {steps}")
        return now

    def _refuse(self, reason: str) -> None:
        assert self.state is not None
        schedule, remedy = self.state.schedule, "gad.stage and the warmup"
        if schedule is not None:
            borders = {key: steps for key, (steps, _) in _borders(schedule, WARMUP).items()}
            remedy = " ".join(f"{key}={value}" for key, value in {"gad.stage": schedule.stage, **borders}.items())
        raise GadCheckpointError(
            f"{self.folder} {reason}: a run does not go back. Set {remedy} as when it was saved, or {_ANEW}"
        )


def _borders(schedule: StageSchedule | None, stage: str) -> dict[str, tuple[int, int]]:
    """Lengths and last steps of what may not come twice, by their keys, as far as they matter from a stage on."""
    if schedule is None or schedule.stage not in ("auto", "warmup", "soda"):
        return {}
    if schedule.stage == "soda":
        snapshot, warmup = schedule.snapshot_steps, schedule.warmup_steps
        return {"gad.soda.snapshot_steps": (snapshot, snapshot), "gad.warmup_steps": (warmup, snapshot + warmup)}
    borders = {}
    if stage == WARMUP:
        borders["gad.discriminator_only_steps"] = (schedule.discriminator_only_steps,) * 2
    if schedule.stage == "auto":
        borders["gad.warmup_steps"] = (schedule.warmup_steps,) * 2
    return borders


def resume_folder(trainer: DictConfig) -> Path | None:
    """The checkpoint that a run would go on from; None for a start from the beginning.

    Args:
        trainer: The section ``trainer``.

    Raises:
        GadCheckpointError: If it lacks a part, or its name does not say the step.
    """
    if trainer.resume_mode == "auto":
        return checkpoints.find_resumable(Path(trainer.default_local_dir).absolute())
    if trainer.resume_mode == "resume_path":
        folder = Path(os.path.abspath(str(trainer.resume_from_path)))
        if not re.fullmatch(r"global_step_\d+", folder.name):
            raise GadCheckpointError(
                f"trainer.resume_from_path={folder}: verl reads the step from the folder's name: give a folder "
                "global_step_N, or rename this one"
            )
        missing = checkpoints.missing_parts(folder)
        if missing:
            raise GadCheckpointError(f"trainer.resume_from_path={folder}: {', '.join(missing)}")
        return folder
    return None


def begun_run(trainer: DictConfig) -> BegunRun:
    """The run that a launch goes on with.

    Raises:
        GadCheckpointError: If its checkpoint cannot be resumed from.
    """
    folder = resume_folder(trainer)
    if folder is None:
        return BegunRun()
    return BegunRun(folder, checkpoints.read_state(folder), read_data_state(folder))
