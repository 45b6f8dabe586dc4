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

from dataclasses import dataclass, field

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from gad_verl.errors import GadConfigError


@dataclass(frozen=True)
class SequenceGroup:
    """Token ids of one prompt's responses, prompt included.

    Args:
        teacher_ids: Prompt and teacher response.
        student_ids: Prompt and student response of each session; None where the rollout failed.
        weight: Weight of each of the group's pairs.
    """

    teacher_ids: list[int]
    student_ids: list[list[int] | None] = field(default_factory=list)
    weight: float = 1.0


# Stands for a failed rollout or fills a rank: one token, weight 0.
_PLACEHOLDER = [0]


def build_group_batch(
    groups: list[SequenceGroup],
    num_students: int,
    multiple_of: int = 1,
    max_tokens_per_micro_batch: int | None = None,
    max_tokens_key: str = "discriminator.ppo_max_token_len_per_gpu",
) -> TensorDict:
    """Rows of all groups as verl's engines read them, with the weight of each pair.

    Args:
        groups: Groups with ``num_students`` sessions each.
        num_students: n; shorter groups are not allowed (put None for a failed rollout).
        multiple_of: The number of groups is raised to a multiple of this (ranks, micro-batch size) by groups of
            weight 0.
        max_tokens_per_micro_batch: A group with more tokens fits no micro-batch; None does not check.
        max_tokens_key: Configuration key named by the error.

    Returns:
        TensorDict of R rows: ``input_ids``, ``position_ids``, ``loss_mask`` (nested, jagged), ``pair_weight`` (R,)
        float32 (0 on teacher rows), and the non-tensor keys ``force_group_size`` = n + 1, ``num_pairs`` (sum of the
        weights of the WHOLE batch) and ``temperature``.

    Raises:
        ValueError: If there is no group, or a group has another number of sessions.
        GadConfigError: If a group fits no micro-batch; names its length and the key to raise.
    """
    if not groups:
        raise ValueError("a batch needs at least one group")
    rows: list[list[int]] = []
    weights: list[float] = []
    for group in groups:
        if len(group.student_ids) != num_students:
            raise ValueError(f"a group has {len(group.student_ids)} student responses, expected {num_students}")
        students = [_PLACEHOLDER if ids is None else ids for ids in group.student_ids]
        tokens = len(group.teacher_ids) + sum(len(ids) for ids in students)
        if max_tokens_per_micro_batch is not None and tokens > max_tokens_per_micro_batch:
            raise GadConfigError(
                f"a group of one teacher and {num_students} student responses has {tokens} tokens, but a micro-batch "
                f"of the discriminator holds {max_tokens_per_micro_batch}: raise {max_tokens_key} to at least "
                f"{tokens}, or lower data.max_response_length or actor_rollout_ref.rollout.n"
            )
        rows += [group.teacher_ids, *students]
        weights += [0.0, *(0.0 if ids is None else group.weight for ids in group.student_ids)]
    missing = -len(groups) % multiple_of
    rows += [_PLACEHOLDER] * (missing * (num_students + 1))
    weights += [0.0] * (missing * (num_students + 1))
    pair_weight = torch.tensor(weights, dtype=torch.float32)
    input_ids = [torch.tensor(ids, dtype=torch.long) for ids in rows]
    return tu.get_tensordict(
        {
            "input_ids": torch.nested.as_nested_tensor(input_ids, layout=torch.jagged),
            "position_ids": torch.nested.as_nested_tensor(
                [torch.arange(len(ids)) for ids in rows], layout=torch.jagged
            ),
            # verl's engine counts tokens of a loss; the pair loss has its own count, num_pairs.
            "loss_mask": torch.nested.as_nested_tensor(
                [torch.ones_like(ids) for ids in input_ids], layout=torch.jagged
            ),
            "pair_weight": pair_weight,
        },
        {
            "force_group_size": num_students + 1,
            "num_pairs": float(pair_weight.double().sum().item()),
            "temperature": 1.0,
        },
    )


def split_group_scores(scores: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(R,) scores of rows to teacher (G,) and student (G, n) scores, n = ``group_size`` - 1."""
    grouped = scores.view(-1, group_size)
    return grouped[:, 0], grouped[:, 1:]
