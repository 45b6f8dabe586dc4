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
"""Configuration of the data side: ``gad.curriculum`` and ``gad.teachers``."""

from dataclasses import dataclass
from typing import Any

from gad_verl.config.checks import BELOW_ONE, NOT_NEGATIVE, require, require_choice, require_each
from gad_verl.core.curriculum import CURRICULUM_MODES, CurriculumSettings
from gad_verl.core.teacher_mix import TeacherMix

DIFFICULTIES = ("teacher_characters", "teacher_tokens", "margin", "column")
RELOAD_CHOICES = ("never", "epoch")


@dataclass
class CurriculumConfig:
    """Order of the prompts by difficulty (``gad.curriculum``)."""

    mode: str = "none"
    difficulty: str = "teacher_characters"
    column: str | None = None
    descending: bool = False
    start: float = 0.2
    pacing_steps: int | None = None
    pacing_epochs: float = 1.0
    margin_decay: float = 0.7
    seed: int = 1

    @property
    def enabled(self) -> bool:
        """Whether rows are drawn by difficulty."""
        return self.mode != "none"

    def validate(self, stage: str) -> None:
        """Check the fields; ``stage`` is ``gad.stage``."""
        key = "gad.curriculum"
        require_choice("curriculum.mode", self.mode, CURRICULUM_MODES)
        require_choice("curriculum.difficulty", self.difficulty, DIFFICULTIES)
        require(0 < self.start <= 1, f"{key}.start must be above 0 and at most 1; got {self.start}")
        require_each(key, self, NOT_NEGATIVE, "pacing_steps", "pacing_epochs", "seed")
        require_each(key, self, BELOW_ONE, "margin_decay")
        if not self.enabled:
            return
        require(
            self.difficulty != "column" or bool(self.column),
            f"{key}.difficulty=column needs {key}.column, the name of a column of numbers",
        )
        require(
            self.difficulty != "margin" or stage not in ("seqkd", "soda"),
            f"{key}.difficulty=margin needs the discriminator, which gad.stage={stage} has not: take teacher_tokens, "
            "teacher_characters or column",
        )

    def settings(self, steps_per_epoch: int) -> CurriculumSettings:
        """What :class:`gad_verl.core.curriculum.Curriculum` reads."""
        steps = round(self.pacing_epochs * steps_per_epoch) if self.pacing_steps is None else self.pacing_steps
        return CurriculumSettings(
            mode=self.mode,
            start=self.start,
            pacing_steps=steps,
            descending=self.descending,
            margin_decay=self.margin_decay,
            seed=self.seed,
        )


@dataclass
class TeacherMixConfig:
    """Which teacher texts of a row take part (``gad.teachers``)."""

    mode: str = "cycle"
    schedule: dict[str, Any] | None = None
    column: str = "teacher"
    seed: int = 1

    def validate(self) -> None:
        """Check the fields."""
        self.build()
        require(bool(self.column), "gad.teachers.column must name the column that says who wrote a text")

    def build(self) -> TeacherMix:
        """The mixture.

        Raises:
            GadConfigError: Names the key.
        """
        return TeacherMix(self.mode, self.schedule, self.seed)
