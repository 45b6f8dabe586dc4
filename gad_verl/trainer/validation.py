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

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from gad_verl.core import score_statistics
from gad_verl.data.overlap import rouge_l
from gad_verl.discriminator.worker_group import DiscriminatorOutput
from gad_verl.trainer.encoding import EncodedGroup, Encoding
from gad_verl.trainer.rollouts import RolloutGroup

_REPORTED = ("accuracy", "margin_mean", "margin_std", "teacher_score_mean", "student_score_mean", "num_pairs")


@dataclass
class ValidationRecord:
    """Collects the groups of all batches of one validation."""

    outputs: list[DiscriminatorOutput] = field(default_factory=list)
    rouge_l: list[float] = field(default_factory=list)
    teacher_lengths: list[int] = field(default_factory=list)
    student_lengths: list[int] = field(default_factory=list)
    students_finished: list[bool] = field(default_factory=list)
    thoughts_closed: list[bool] = field(default_factory=list)

    def add_scores(self, output: DiscriminatorOutput) -> None:
        """What the discriminator said of one batch."""
        self.outputs.append(output)

    def add_texts(self, groups: Sequence[RolloutGroup], encoded: Sequence[EncodedGroup], encoding: Encoding) -> None:
        """Texts and lengths (in tokens of the discriminator) of one batch."""
        for group, one in zip(groups, encoded, strict=True):
            reads = [session.read for session in group.sessions if session is not None]
            self.thoughts_closed += [read.answer_ids is not None for read in reads if read is not None]
            for session, student in zip(group.answers, one.students, strict=True):
                if session is not None and student is not None:
                    self.rouge_l.append(rouge_l(encoding.teacher_text(group), encoding.text(session)))
                    self.teacher_lengths.append(len(one.teacher.own_ids))
                    self.student_lengths.append(len(student.own_ids))
                    self.students_finished.append(student.finished)

    def metrics(self) -> dict[str, float]:
        """Metrics under ``val-gad/``; empty if nothing was collected."""
        result: dict[str, float] = {}
        if self.outputs:
            statistics = score_statistics(
                torch.cat([one.teacher_scores for one in self.outputs]),
                torch.cat([one.student_scores for one in self.outputs]),
                torch.cat([one.weights for one in self.outputs]),
            )
            result |= {f"val-gad/{name}": statistics[name] for name in _REPORTED if name in statistics}
        if self.rouge_l:
            count = len(self.rouge_l)
            result["val-gad/rouge_l"] = sum(self.rouge_l) / count
            result["val-gad/student_length_mean"] = sum(self.student_lengths) / count
            result["val-gad/teacher_length_mean"] = sum(self.teacher_lengths) / count
            result["val-gad/length_ratio"] = sum(self.student_lengths) / sum(self.teacher_lengths)
            result["val-gad/student_finished_rate"] = sum(self.students_finished) / count
        if self.thoughts_closed:
            result["val-gad/thinking_closed_rate"] = sum(self.thoughts_closed) / len(self.thoughts_closed)
        return result
