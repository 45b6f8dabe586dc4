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
"""Which stage a step belongs to: those of GAD, cross-entropy alone for SeqKD, or the three of SODA."""

from collections import Counter
from dataclasses import dataclass
from enum import Enum

STAGES = ("auto", "seqkd", "warmup", "gad", "soda")

# Names of the learning-rate stages, in checkpoints.
WARMUP, ADVERSARIAL, SEQKD, PREFERENCE = "warmup", "adversarial", "seqkd", "preference"


class Phase(Enum):
    """What happens in one step. The value is the number logged as ``gad/stage``."""

    DISCRIMINATOR_ONLY = 0
    WARMUP = 1
    ADVERSARIAL = 2
    SEQKD = 3
    SNAPSHOT = 4
    PREFERENCE = 5

    @property
    def trains_discriminator(self) -> bool:
        return self.generates and self is not Phase.SNAPSHOT

    @property
    def generates(self) -> bool:
        """Whether the student answers in it; else the step is made from the data alone."""
        return self not in (Phase.SEQKD, Phase.PREFERENCE)

    @property
    def trains_student_supervised(self) -> bool:
        return self in (Phase.WARMUP, Phase.SEQKD)

    @property
    def is_warmup(self) -> bool:
        """Whether the learning rates of the warmup stage hold."""
        return self in (Phase.DISCRIMINATOR_ONLY, Phase.WARMUP)


def stage_of(phase: Phase) -> str:
    """The learning-rate stage of a phase."""
    if phase in (Phase.SNAPSHOT, Phase.SEQKD):
        # Nobody learns while the snapshot is taken.
        return SEQKD
    if phase is Phase.PREFERENCE:
        return PREFERENCE
    return WARMUP if phase.is_warmup else ADVERSARIAL


@dataclass(frozen=True)
class StageSchedule:
    """Phases of a run of ``total_steps`` steps (steps count from 1).

    Args:
        stage: ``auto`` (warmup, then adversarial), ``seqkd``, ``warmup`` or ``gad`` (one stage alone), or ``soda``
            (a snapshot of the student's answers, SeqKD, preferences).
        total_steps: Steps of the whole run.
        warmup_steps: Length of the warmup stage, its discriminator-only steps included (``auto``), or of SeqKD
            (``soda``); the others do not read it.
        discriminator_only_steps: First steps of the warmup stage in which the student is left alone.
        snapshot_steps: First steps of ``soda``, in which the student answers and learns nothing.

    Raises:
        ValueError: If the stage is unknown or the steps do not fit into each other.
    """

    stage: str
    total_steps: int
    warmup_steps: int = 0
    discriminator_only_steps: int = 0
    snapshot_steps: int = 0

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"gad.stage must be one of {', '.join(STAGES)}; got {self.stage!r}")
        if self.total_steps < 1:
            raise ValueError(
                f"a run needs at least one step; got {self.total_steps} (is the data set smaller than a batch?)"
            )
        if self.warmup_steps < 0 or self.discriminator_only_steps < 0:
            raise ValueError("gad.warmup_steps and gad.discriminator_only_steps must not be negative")
        if self.stage == "auto":
            if self.warmup_steps >= self.total_steps:
                raise ValueError(
                    f"gad.stage=auto leaves no adversarial step: warmup takes {self.warmup_steps} of "
                    f"{self.total_steps} steps. Lower gad.warmup_steps (or gad.warmup_epochs), raise "
                    "trainer.total_epochs, or set gad.stage=warmup"
                )
            if self.discriminator_only_steps > self.warmup_steps:
                raise ValueError(
                    f"gad.discriminator_only_steps ({self.discriminator_only_steps}) are the first steps of the warmup "
                    f"stage, which has only {self.warmup_steps}"
                )
        if self.stage == "soda":
            before = self.snapshot_steps + self.warmup_steps
            if self.snapshot_steps < 1 or before >= self.total_steps:
                raise ValueError(
                    f"gad.stage=soda leaves no step for preferences: the snapshot takes {self.snapshot_steps} (at "
                    f"least 1) and SeqKD {self.warmup_steps} of {self.total_steps} steps. Lower "
                    "gad.soda.snapshot_steps or gad.warmup_steps (gad.warmup_epochs), or raise trainer.total_epochs"
                )
        if self.stage == "warmup" and self.discriminator_only_steps >= self.total_steps:
            raise ValueError(
                f"gad.discriminator_only_steps ({self.discriminator_only_steps}) leave no step of the "
                f"{self.total_steps} to train the student"
            )

    def steps_by_phase(self) -> Counter[Phase]:
        """Number of steps of each phase."""
        return Counter(self.phase(step) for step in range(1, self.total_steps + 1))

    def phase(self, step: int) -> Phase:
        """Phase of ``step`` (1-based).

        Raises:
            ValueError: If ``step`` is below 1.
        """
        if step < 1:
            raise ValueError(f"steps count from 1; got {step}")
        if self.stage == "seqkd":
            return Phase.SEQKD
        if self.stage == "soda":
            if step <= self.snapshot_steps:
                return Phase.SNAPSHOT
            return Phase.SEQKD if step <= self.snapshot_steps + self.warmup_steps else Phase.PREFERENCE
        if self.stage == "gad" or (self.stage == "auto" and step > self.warmup_steps):
            return Phase.ADVERSARIAL
        return Phase.DISCRIMINATOR_ONLY if step <= self.discriminator_only_steps else Phase.WARMUP
