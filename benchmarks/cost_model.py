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
"""The cost model of the benchmarks: gad_verl's own, for the random models that they train."""

from collections.abc import Sequence
from dataclasses import dataclass

from gad_verl.core.cost_model import CostModel


@dataclass(frozen=True)
class Shape:
    """Sizes of a batch, in tokens; all rollouts have the same length.

    Args:
        prompts: G.
        rollouts: n.
        prompt, rollout, teacher: Tokens of the prompt, of a rollout and of the teacher's text.
    """

    prompts: int
    rollouts: int
    prompt: int
    rollout: int
    teacher: int

    @property
    def teacher_row(self) -> int:
        return self.prompt + self.teacher

    @property
    def student_row(self) -> int:
        return self.prompt + self.rollout


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


def of_qwen2(hidden: int, layers: int, checkpointing: bool) -> Work:
    """Work of the random model of the benchmarks: one key-value head of 32, a feed-forward of twice the width."""
    attention = 2 * hidden * hidden + 2 * hidden * 32
    return Work(layers * (attention + 3 * hidden * 2 * hidden), 2 * layers * hidden, checkpointing)
