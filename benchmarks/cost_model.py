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
"""The cost model: work of forward and backward passes from shapes alone. docs/performance.md explains it."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemes import Shape

from gad_verl.discriminator.shared_prompt import CostModel


@dataclass(frozen=True)
class Work:
    """Multiply-adds of a model, per token and per pair of query and key.

    Args:
        per_token: Parameters of the matrices.
        per_pair: Twice the width of all heads of all layers.
        checkpointing: Whether the forward runs again in the backward.
    """

    per_token: float
    per_pair: float
    checkpointing: bool = False

    @classmethod
    def of_qwen2(cls, hidden: int, layers: int, checkpointing: bool) -> "Work":
        """Of the random model of the benchmarks: one key-value head of 32, a feed-forward of twice the width."""
        attention = 2 * hidden * hidden + 2 * hidden * 32
        return cls(layers * (attention + 3 * hidden * 2 * hidden), 2 * layers * hidden, checkpointing)

    def forward(self, rows: Sequence[int], remove_padding: bool) -> float:
        """Of one micro-batch: padded to its longest row, or one sequence with a block mask."""
        return CostModel(self.per_token, self.per_pair).separate([rows], padded=not remove_padding)

    def update(self, rows: Sequence[int], remove_padding: bool) -> float:
        """Forward and backward: the backward costs two forwards, a third with gradient checkpointing."""
        return (4 if self.checkpointing else 3) * self.forward(rows, remove_padding)

    def schemes(self, shape: Shape, remove_padding: bool) -> dict[str, float]:
        """Of the schemes A, B and C on one micro-batch."""
        students = [shape.student_row] * (shape.prompts * shape.rollouts)
        teachers = [shape.teacher_row] * shape.prompts
        repeated = [shape.teacher_row] * (shape.prompts * shape.rollouts)
        scoring = self.forward(students, remove_padding)
        once = self.update(students + teachers, remove_padding)
        return {
            "a": scoring + self.update(students + repeated, remove_padding),
            "b": scoring + once,
            "c": once,
        }


def update_tokens(shape: Shape, remove_padding: bool) -> dict[str, int]:
    """Tokens whose activations an update holds, padding included."""
    count, longest = shape.prompts * shape.rollouts, max(shape.student_row, shape.teacher_row)
    if remove_padding:
        students = count * shape.student_row
        return {
            "a": students + count * shape.teacher_row,
            "b": students + shape.prompts * shape.teacher_row,
            "c": students + shape.prompts * shape.teacher_row,
        }
    rows = {"a": 2 * count, "b": count + shape.prompts, "c": count + shape.prompts}
    return {scheme: number * longest for scheme, number in rows.items()}
