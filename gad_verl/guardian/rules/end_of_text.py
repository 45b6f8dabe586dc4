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
"""The end-of-text leak."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gad_verl.guardian.rule import ADVERSARIAL, WARMUP, Reading, Rule, numbers
from gad_verl.guardian.settings import RuleConfig, limited


@dataclass
class EndOfTextConfig(RuleConfig):
    """Fields of :class:`EndOfText`."""

    difference: float = limited(0.2, 0, 1)
    accuracy: float = limited(0.85, 0, 1)


class EndOfText(Rule):
    """One side ends its texts, the other is cut, and the discriminator is nearly always right: it reads the last token.

    Looks at the warmup too: a student that has learned to end its texts has none of it left after a few steps.
    Threshold of the accuracy: above the healthy band 0.70 to 0.85; a replication with a leak saw 0.96 to 0.99.
    Threshold of the difference: rule of thumb, not measured.
    """

    config: EndOfTextConfig
    name = "end_of_text"
    stages = frozenset({WARMUP, ADVERSARIAL})

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        found = numbers(metrics, "gad/student_finished_rate", "gad/teacher_finished_rate", "disc/accuracy")
        if found is None:
            return None
        student, teacher, accuracy = found
        bad = abs(student - teacher) >= self.config.difference and accuracy >= self.config.accuracy
        figures = {"student_finished_rate": student, "teacher_finished_rate": teacher, "accuracy": accuracy}
        return Reading(bad, figures)

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"{figures['student_finished_rate']:.2f} of the student's texts and "
            f"{figures['teacher_finished_rate']:.2f} of the teacher's end by themselves (limit "
            f"{self.config.difference:g} apart), and the discriminator's accuracy is {figures['accuracy']:.3f} "
            f"(limit {self.config.accuracy:g})"
        )

    @property
    def remedy(self) -> str:
        return (
            "It needs nothing but the end-of-text token. Where the teacher's texts are cut: raise "
            "data.max_response_length or set gad.teacher_overlong=drop. Where the student does not end: a longer "
            "warmup, and look at its stop tokens (generation_config.json). gad-verl data leaks with "
            "--tokenizer counts them."
        )
