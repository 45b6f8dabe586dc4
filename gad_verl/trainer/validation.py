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
"""What validation adds: the discriminator on held-out prompts, ROUGE-L against the teacher, lengths."""

from dataclasses import dataclass, field

import torch

from gad_verl.core import score_statistics
from gad_verl.data.overlap import rouge_l
from gad_verl.trainer.rollouts import EncodedGroup, RolloutGroup


@dataclass
class ValidationRecord:
    """Collects the groups of all validation batches of one validation."""

    teacher_scores: list[torch.Tensor] = field(default_factory=list)
    student_scores: list[torch.Tensor] = field(default_factory=list)
    weights: list[torch.Tensor] = field(default_factory=list)
    rouge_l: list[float] = field(default_factory=list)
    teacher_lengths: list[int] = field(default_factory=list)
    student_lengths: list[int] = field(default_factory=list)
    students_finished: list[bool] = field(default_factory=list)

    def add_scores(self, teacher: torch.Tensor, student: torch.Tensor, weights: torch.Tensor) -> None:
        """Scores (G,), (G, n) and weights (G, n) of one batch."""
        self.teacher_scores.append(teacher)
        self.student_scores.append(student)
        self.weights.append(weights)

    def add_texts(self, group: RolloutGroup, encoded: EncodedGroup, student_texts: list[str | None]) -> None:
        """Texts and lengths (in tokens of the discriminator) of one group."""
        for text, student in zip(student_texts, encoded.students, strict=True):
            if text is None or student is None:
                continue
            self.rouge_l.append(rouge_l(group.teacher_text, text))
            self.teacher_lengths.append(len(encoded.teacher.token_ids))
            self.student_lengths.append(len(student.token_ids))
            self.students_finished.append(student.finished)

    def metrics(self) -> dict[str, float]:
        """Metrics under ``val-gad/``; empty if nothing was collected."""
        result: dict[str, float] = {}
        if self.teacher_scores:
            statistics = score_statistics(
                torch.cat(self.teacher_scores), torch.cat(self.student_scores), torch.cat(self.weights)
            )
            names = ("accuracy", "margin_mean", "margin_std", "teacher_score_mean", "student_score_mean", "num_pairs")
            result |= {f"val-gad/{name}": statistics[name] for name in names if name in statistics}
        if self.rouge_l:
            count = len(self.rouge_l)
            result["val-gad/rouge_l"] = sum(self.rouge_l) / count
            result["val-gad/student_length_mean"] = sum(self.student_lengths) / count
            result["val-gad/teacher_length_mean"] = sum(self.teacher_lengths) / count
            result["val-gad/length_ratio"] = sum(self.student_lengths) / sum(self.teacher_lengths)
            result["val-gad/student_finished_rate"] = sum(self.students_finished) / count
        return result
