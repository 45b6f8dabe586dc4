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
"""Stages of a run on the workers: learning rates, losses, optimizers, and the reference of the KL loss."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gad_verl.config import GadConfig, StageOptimConfig
from gad_verl.config.modes import updates_of_step
from gad_verl.core import Phase
from gad_verl.core.schedule import ADVERSARIAL, StageSchedule, stage_of
from gad_verl.discriminator.worker_group import DiscriminatorGroup
from gad_verl.guardian import Guardian
from gad_verl.trainer.checkpoints import GadState
from gad_verl.trainer.held_out_texts import HeldOutTexts
from gad_verl.trainer.objective import Objective
from gad_verl.trainer.run_log import RunLog
from gad_verl.workers.student import POLICY_LOSS, ROW_GRADIENT_LOSS, SUPERVISED_LOSS

logger = logging.getLogger(__name__)

_LOSSES = {Phase.WARMUP: SUPERVISED_LOSS, Phase.SEQKD: SUPERVISED_LOSS, Phase.PREFERENCE: ROW_GRADIENT_LOSS}


@dataclass
class StudentStages:
    """Gives the workers what a stage asks for, and the learning rates that change within one.

    Args:
        config: The whole configuration.
        gad_config: Its section ``gad``.
        schedule: Phases of the run.
        student: Worker group of the student.
        discriminator: Worker group of the discriminator; None in SeqKD.
        reference: Worker group of the KL term's reference, the student's own where they share workers; None without.
        guardian: Its factors act on the learning rates.
        objective: The student's rate in the adversarial stage.
        texts: Whether the teacher's texts still teach where the adversarial stage begins.
        log: Takes the beginning of a stage as an event.
    """

    config: DictConfig
    gad_config: GadConfig
    schedule: StageSchedule
    student: Any
    discriminator: DiscriminatorGroup | None
    reference: Any
    guardian: Guardian
    objective: Objective
    texts: HeldOutTexts
    log: RunLog

    def __post_init__(self) -> None:
        # Its learning-rate stage; None before the first step.
        self.entered: str | None = None
        self._updates = updates_of_step(self.config)
        self.kl_reference: str | None = None
        # Whether the student's optimizer is to start anew with the first step on scores.
        self._reset_is_due = False
        # Peak learning rates as the workers have them.
        self._applied: dict[str, float] = {}

    def enter(self, step: int) -> None:
        """Learning rates, losses and the KL reference of a step. The rollout is asleep."""
        phase = self.schedule.phase(step)
        stage = stage_of(phase)
        if self.entered != stage:
            self._begin(step, phase, stage)
        else:
            self.apply_rates(step)
        self.student.use_loss(_LOSSES.get(phase, POLICY_LOSS))

    def use_texts_alone(self, weight: float) -> None:
        """Until the next step the student learns from the teacher's texts alone; ``weight`` is that of the loss."""
        self.student.use_loss(SUPERVISED_LOSS, weight)

    def _begin(self, step: int, phase: Phase, stage: str) -> None:
        self._applied = {}
        is_first, resets = self.entered is None, self.gad_config.reset_optimizer_at_switch
        self.apply_rates(step, restart_schedule=is_first or resets)
        self._reset_is_due = resets and not is_first
        too_early = None if is_first else self.texts.still_teach()
        if too_early is not None:
            logger.warning("step %d: %s", step, too_early)
            self.log.event(step, "schedule", "warmup", "warn", too_early, self.texts.metrics())
        # A student that starts from an adapter is its own reference; without one, model.path is.
        starts_adapted = is_first and stage == ADVERSARIAL and self._starts_from_adapter
        if (not is_first or starts_adapted) and self._renews_reference:
            self.kl_reference = f"kl_reference_step_{step - 1}"
            path = str(Path(self.config.trainer.default_local_dir).absolute() / self.kl_reference)
            self.student.save_student_weights(path)
            self.reference.load_reference_weights(path)
        self.entered = stage
        rate = self._student_rate(phase)
        text = f"stage {stage} begins, learning rate of the student {rate:g}"
        logger.info("step %d: %s", step, text)
        self.log.event(step, "schedule", "stage", "info", text, {"actor_lr": rate})

    def learn_from_scores(self) -> None:
        """The student learns from scores in this step, in full or in part.

        Until the first such step of the adversarial stage the student waits, or goes on with SeqKD and its optimizer.
        """
        if self._reset_is_due:
            self.student.reset_moments()
        self._reset_is_due = False

    def apply_rates(self, step: int, restart_schedule: bool = False) -> None:
        """Give the workers the learning rates that have changed; the others are not disturbed at their work."""
        phase = self.schedule.phase(step)
        wanted = self._wanted(phase)
        if wanted["actor"] != self._applied.get("actor"):
            self.student.begin_stage(wanted["actor"], self._horizon(stage_of(phase)), restart_schedule)
        if self.discriminator is not None and wanted["discriminator"] != self._applied.get("discriminator"):
            self.discriminator.begin_stage(wanted["discriminator"], self.schedule.total_steps * self._updates)
        self._applied = wanted

    def _wanted(self, phase: Phase) -> dict[str, float]:
        """Peak learning rates of a step."""
        knobs, rate = self.guardian.knobs, self._student_rate(phase)
        if phase is Phase.ADVERSARIAL:
            rate = self.objective.rate(rate, self._student_rate(Phase.WARMUP))
        return {
            "actor": rate * knobs["actor_lr_factor"],
            "discriminator": self._discriminator_rate(phase) * knobs["discriminator_lr_factor"],
        }

    def _rates(self, phase: Phase) -> StageOptimConfig:
        first = phase not in (Phase.ADVERSARIAL, Phase.PREFERENCE)
        return self.gad_config.warmup if first else self.gad_config.adversarial

    def _student_rate(self, phase: Phase) -> float:
        """Peak learning rate of the student in a stage, without factors."""
        rate = self._rates(phase).actor_lr
        return self.config.actor_rollout_ref.actor.optim.lr if rate is None else rate

    def _discriminator_rate(self, phase: Phase) -> float:
        rate = self._rates(phase).discriminator_lr
        return self.config.discriminator.optim.lr if rate is None else rate

    def _horizon(self, stage: str) -> int:
        """Optimizer steps of the student's schedule: of the stage, or of the run where the optimizer goes on.

        In the discriminator's own steps, and while its answers are taken, the student stands still, and with it its
        schedule.
        """
        phases = self.schedule.steps_by_phase()
        del phases[Phase.DISCRIMINATOR_ONLY], phases[Phase.SNAPSHOT]
        if self.gad_config.reset_optimizer_at_switch:
            return max(1, sum(steps for phase, steps in phases.items() if stage_of(phase) == stage)) * self._updates
        return phases.total() * self._updates

    @property
    def _renews_reference(self) -> bool:
        return self.reference is not None and self.gad_config.kl_reference == "warmed_up"

    @property
    def _starts_from_adapter(self) -> bool:
        return self.config.actor_rollout_ref.model.get("lora_adapter_path") is not None

    # ------------------------------ checkpoints ------------------------------

    def resume(self, state: GadState, root: Path) -> None:
        """Go on in the stage of a checkpoint.

        Args:
            state: Of the checkpoint.
            root: Folder of the checkpoints.
        """
        self.entered, self.kl_reference = state.stage, state.kl_reference
        if state.kl_reference is not None and root != Path(self.config.trainer.default_local_dir).absolute():
            # The checkpoints of this run will lie elsewhere (trainer.resume_from_path).
            self.kl_reference = str(root / state.kl_reference)
            logger.info("the reference of the KL stays in %s: keep it as long as this run", self.kl_reference)
        self.student.resume_stage(self._horizon(state.stage))
        if state.kl_reference is not None and self._renews_reference:
            self.reference.load_reference_weights(str(root / state.kl_reference))

    def state_dict(self) -> dict[str, Any]:
        """What is still to be done to the optimizer. The workers are given their rates anew after a resume: checkpoints
        that hold the weights alone (``checkpoint.save_contents``) bring none."""
        return {"reset_is_due": self._reset_is_due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned."""
        self._reset_is_due = state.get("reset_is_due", False)
