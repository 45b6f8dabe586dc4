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
"""Batches of groups: rows ``[teacher, student_1 .. student_n]`` of one prompt stay together.

Shape letters: G groups, n student responses per prompt, R = G * (n + 1) rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu


@dataclass(frozen=True)
class SequenceGroup:
    """Token ids of one prompt's responses, prompt included.

    Args:
        teacher_ids: Prompt and teacher response.
        student_ids: Prompt and student response of each session; None where the rollout failed.
        weight: Weight of each of the group's pairs.
        prompt_length: Tokens of the prompt, with which all of these sequences begin; 0 where that is not so.
    """

    teacher_ids: list[int]
    student_ids: list[list[int] | None] = field(default_factory=list)
    weight: float = 1.0
    prompt_length: int = 0

    def rows(self) -> list[list[int]]:
        """Teacher, then students; a placeholder of one token for a failed rollout."""
        return [self.teacher_ids, *(PLACEHOLDER if ids is None else ids for ids in self.student_ids)]

    def row_lengths(self) -> list[int]:
        """Tokens of each of :meth:`rows`."""
        return [len(row) for row in self.rows()]

    def pair_weights(self) -> list[float]:
        """Weight of each student's pair; 0 for a failed rollout."""
        return [0.0 if ids is None else self.weight for ids in self.student_ids]


PLACEHOLDER = [0]


def padding_group(num_students: int) -> SequenceGroup:
    """A group without a pair: fills up ranks and micro-batches."""
    return SequenceGroup(teacher_ids=PLACEHOLDER, student_ids=[None] * num_students)


def check_groups(groups: Sequence[SequenceGroup], num_students: int) -> None:
    """Raise ValueError unless there is a group, and each has ``num_students`` sessions (None for a failed rollout)."""
    if not groups:
        raise ValueError("a batch needs at least one group")
    for group in groups:
        if len(group.student_ids) != num_students:
            raise ValueError(f"a group has {len(group.student_ids)} student responses, expected {num_students}")


def _row_tensors(rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    input_ids = [torch.tensor(ids, dtype=torch.long) for ids in rows]
    return {
        "input_ids": torch.nested.as_nested_tensor(input_ids, layout=torch.jagged),
        "position_ids": torch.nested.as_nested_tensor([torch.arange(len(ids)) for ids in rows], layout=torch.jagged),
        # verl's engine counts tokens of a loss; the pair loss has its own count, num_pairs.
        "loss_mask": torch.nested.as_nested_tensor([torch.ones_like(ids) for ids in input_ids], layout=torch.jagged),
    }


def build_group_batch(groups: Sequence[SequenceGroup], num_students: int) -> TensorDict:
    """Rows of all groups as verl's engines read them, with the weight of each pair.

    Args:
        groups: Groups with ``num_students`` sessions each.
        num_students: n.

    Returns:
        TensorDict of R rows: ``input_ids``, ``position_ids``, ``loss_mask`` (nested, jagged), ``pair_weight`` (R,)
        float32 (0 on teacher rows), ``prompt_length`` (R,), and the non-tensor keys ``force_group_size`` = n + 1,
        ``num_pairs`` (sum of the weights of the WHOLE batch) and ``temperature``.

    Raises:
        ValueError: If there is no group, or a group has another number of sessions.
    """
    check_groups(groups, num_students)
    pair_weight = torch.tensor([[0.0, *group.pair_weights()] for group in groups], dtype=torch.float32).flatten()
    prompt_length = torch.tensor([group.prompt_length for group in groups]).repeat_interleave(num_students + 1)
    return tu.get_tensordict(
        {
            **_row_tensors([row for group in groups for row in group.rows()]),
            "pair_weight": pair_weight,
            "prompt_length": prompt_length,
        },
        {
            "force_group_size": num_students + 1,
            "num_pairs": float(pair_weight.double().sum().item()),
            "temperature": 1.0,
        },
    )


def build_row_batch(rows: Sequence[Sequence[int]], score_gradients: torch.Tensor | None = None) -> TensorDict:
    """Single sequences as verl's engines read them.

    Args:
        rows: Token ids of R sequences.
        score_gradients: (R,) gradient of the batch's loss with respect to each row's score
            (:func:`gad_verl.core.bradley_terry_score_gradients`); None to score only.

    Returns:
        TensorDict of R rows with the nested fields of :func:`build_group_batch` and ``score_gradient`` (R,) float32.
    """
    if not rows:
        raise ValueError("a batch needs at least one row")
    tensors = _row_tensors(rows)
    if score_gradients is not None:
        tensors["score_gradient"] = score_gradients.to(torch.float32)
    return tu.get_tensordict(tensors, {"temperature": 1.0})


def split_group_scores(scores: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(R,) scores of rows to teacher (G,) and student (G, n) scores, n = ``group_size`` - 1."""
    grouped = scores.view(-1, group_size)
    return grouped[:, 0], grouped[:, 1:]
