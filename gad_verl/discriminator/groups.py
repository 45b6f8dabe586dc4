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
"""Batches of groups: rows ``[teacher_1 .. teacher_k, student_1 .. student_n]`` of one prompt stay together.

Shape letters: G groups, k teacher and n student responses per prompt, m rows that repeat others with noise (gradient
penalty), R = G * (k + n + m) rows.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from gad_verl.data.prompt_images import PromptImages
from gad_verl.discriminator.plan import BatchPlan
from gad_verl.discriminator.row_tensors import row_tensors

PLACEHOLDER = [0]


@dataclass(frozen=True)
class SequenceGroup:
    """Token ids of one prompt's responses, prompt included.

    Args:
        teacher_ids: Prompt and teacher response, of one teacher response or several.
        student_ids: Prompt and student response of each session; None where the discriminator reads nothing of it.
        prompt_length: Tokens of the prompt, with which all of these sequences begin; 0 where that is not so.
        teacher_weights: Share of each teacher response in the group's pairs.
        trains: Whether the discriminator learns from the group; else it is scored only.
        student_trains: The same of each student response; None means all of them.
        ends: Of each teacher response, then of each session: positions in its sequence whose values are averaged to its
            score (none of a session that is not read); None takes the value at the last token of all of them.
        images: Of the prompt, which all of these sequences have in common then; None for a prompt of text.

    Raises:
        ValueError: Without a teacher response, or without a weight for each.
    """

    teacher_ids: tuple[list[int], ...]
    student_ids: list[list[int] | None]
    prompt_length: int = 0
    teacher_weights: tuple[float, ...] = (1.0,)
    trains: bool = True
    student_trains: tuple[bool, ...] | None = None
    ends: tuple[list[int], ...] | None = None
    images: PromptImages | None = None

    def __post_init__(self) -> None:
        if not self.teacher_ids or len(self.teacher_weights) != len(self.teacher_ids):
            raise ValueError(
                f"a group needs a teacher response, and a weight for each: got {len(self.teacher_ids)} responses, "
                f"{len(self.teacher_weights)} weights"
            )

    def rows(self, num_teachers: int = 1) -> list[list[int]]:
        """Teachers, then students; a placeholder of one token where nothing is read, and up to ``num_teachers``."""
        missing = [PLACEHOLDER] * (num_teachers - len(self.teacher_ids))
        return [*self.teacher_ids, *missing, *(PLACEHOLDER if ids is None else ids for ids in self.student_ids)]

    def valid_students(self) -> list[float]:
        """1 for each session that the discriminator reads, 0 for the others."""
        return [0.0 if ids is None else 1.0 for ids in self.student_ids]

    def pair_weights(self) -> list[float]:
        """Weight of each student response in the loss: 0 where it is not read, or it or the group does not train."""
        if not self.trains:
            return [0.0] * len(self.student_ids)
        if self.student_trains is None:
            return self.valid_students()
        return [weight * trains for weight, trains in zip(self.valid_students(), self.student_trains, strict=True)]

    def rows_ends(self, num_teachers: int) -> list[list[int]]:
        """Of each row of :meth:`rows` the positions whose values make its score; none means the last one."""
        if self.ends is None:
            return [[]] * (num_teachers + len(self.student_ids))
        count = len(self.teacher_ids)
        return [*self.ends[:count], *[[]] * (num_teachers - count), *self.ends[count:]]

    def padded_teacher_weights(self, num_teachers: int) -> list[float]:
        """Weight of each teacher response, 0 up to ``num_teachers``."""
        return [*self.teacher_weights, *[0.0] * (num_teachers - len(self.teacher_weights))]


@dataclass(frozen=True)
class GroupLayout:
    """Which row of a group is what: equal for all groups of a batch.

    Args:
        num_teachers: k.
        num_students: n.
        noisy_students: Student responses that are repeated with noise for a gradient penalty, after the teachers, which
            all are; None repeats no row.
    """

    num_teachers: int
    num_students: int
    noisy_students: int | None = None

    @property
    def noisy_rows(self) -> list[int]:
        """Rows of a group of which a copy with noise follows, in the order of the copies."""
        return [] if self.noisy_students is None else [*range(self.num_teachers + self.noisy_students)]

    @property
    def clean_size(self) -> int:
        """Rows of a group without the copies."""
        return self.num_teachers + self.num_students

    @property
    def group_size(self) -> int:
        """Rows of a group."""
        return self.clean_size + len(self.noisy_rows)

    def sources(self, group: SequenceGroup) -> list[int]:
        """Row of the group whose score each row takes: the first one with the same tokens; a copy takes its own."""
        rows, of_length = group.rows(self.num_teachers), defaultdict[int, list[int]](list)
        sources = []
        for place, row in enumerate(rows):
            # Rows of another length are not compared at all, and lists that differ are soon told apart.
            before = of_length[len(row)]
            source = next((earlier for earlier in before if rows[earlier] == row), place)
            if source == place:
                before.append(place)
            sources.append(source)
        return sources + [*range(self.clean_size, self.group_size)]

    def rows(self, group: SequenceGroup) -> list[list[int]]:
        """All rows of a group as they are read: a placeholder for one whose tokens came before in the group.

        Identical texts get identical scores only where they are read once: in bfloat16 the neighbours of a row in its
        micro-batch change its score.
        """
        rows, sources = group.rows(self.num_teachers), self.sources(group)
        read = [row if sources[place] == place else PLACEHOLDER for place, row in enumerate(rows)]
        return read + [rows[position] for position in self.noisy_rows]

    def score_weights(self, group: SequenceGroup) -> list[list[float]] | None:
        """Of each row of :meth:`rows` the share of each token's value in its score; None means the last token's."""
        if group.ends is None:
            return None
        ends, sources = group.rows_ends(self.num_teachers), self.sources(group)
        read = [ends[place] if sources[place] == place else [] for place in range(self.clean_size)]
        every = read + [ends[position] for position in self.noisy_rows]
        return [shares(len(row), places) for row, places in zip(self.rows(group), every, strict=True)]

    def weights(self, group: SequenceGroup) -> list[float]:
        """Weight of each row: of a teacher, of a student, and of a copy (0 where the penalty leaves it out)."""
        clean = group.padded_teacher_weights(self.num_teachers) + group.pair_weights()
        noisy = [1.0 if clean[position] > 0 and group.trains else 0.0 for position in self.noisy_rows]
        return clean + noisy

    def lengths(self, groups: Sequence[SequenceGroup]) -> list[list[int]]:
        """Tokens of each row of each group, as they are read."""
        return [[len(row) for row in self.rows(group)] for group in groups]

    def noisy_total(self, groups: Sequence[SequenceGroup]) -> float:
        """Copies that count in the penalty, over all groups."""
        return float(sum(sum(self.weights(group)[self.clean_size :]) for group in groups))

    @classmethod
    def of(cls, groups: Sequence[SequenceGroup], num_students: int, noisy_students: int | None = None) -> "GroupLayout":
        """The layout that holds all ``groups``; ``noisy_students`` None means no gradient penalty.

        Raises:
            ValueError: If there is no group, or one has another number of sessions than ``num_students``.
        """
        if not groups:
            raise ValueError("a batch needs at least one group")
        for group in groups:
            if len(group.student_ids) != num_students:
                raise ValueError(f"a group has {len(group.student_ids)} student responses, expected {num_students}")
        num_teachers = max(len(group.teacher_ids) for group in groups)
        return cls(num_teachers, num_students, None if noisy_students is None else min(noisy_students, num_students))


def shares(length: int, places: Sequence[int]) -> list[float]:
    """Share of the value of each of ``length`` tokens: equal ones at ``places``, or all of it at the last token."""
    found = [0.0] * length
    for place in places or (length - 1,):
        found[place] += 1.0 / max(1, len(places))
    return found


def padding_group(num_students: int) -> SequenceGroup:
    """A group without a pair: fills up ranks and micro-batches."""
    return SequenceGroup(teacher_ids=(PLACEHOLDER,), student_ids=[None] * num_students, trains=False)


def noise_seeds(num_groups: int, layout: GroupLayout, seed: int) -> torch.Tensor:
    """Seed of the noise of each row, (G, group size); 0 means none.

    A seed belongs to a row of the batch as it was given, not to a micro-batch or rank: any plan draws the same noise.
    """
    seeds = torch.zeros(num_groups, layout.group_size, dtype=torch.long)
    copies = len(layout.noisy_rows)
    if copies:
        numbers = torch.arange(num_groups * copies).view(num_groups, copies)
        seeds[:, layout.clean_size :] = (seed * 1_000_003 + numbers) % (2**31 - 1) + 1
    return seeds


def build_group_batch(
    groups: Sequence[SequenceGroup],
    num_students: int,
    layout: GroupLayout | None = None,
    seeds: torch.Tensor | None = None,
) -> TensorDict:
    """Rows of all groups as verl's engines read them, with the weight of each row.

    Args:
        groups: Groups with ``num_students`` sessions each.
        num_students: n.
        layout: Rows of a group; None means that of ``groups`` without copies.
        seeds: (G, group size) seed of each row's noise (:func:`noise_seeds`); read where the layout has copies.

    Returns:
        TensorDict of R rows: ``input_ids`` (nested, jagged, int32; the rest is ``row_tensors.complete_rows``), where a
        group has ``ends`` ``score_weight`` (nested, jagged, float32, the share of each value in the score),
        ``row_weight`` (R,) float32, ``row_source`` (R,) distance to the row whose score each takes
        (:func:`take_sources`), ``prompt_length`` (R,) where prompts are in common, ``noise_seed`` (R,) with copies.
        Non-tensor keys: ``force_group_size``, ``num_teachers``, ``noisy_students`` (-1 without copies), ``num_pairs``
        and ``num_noisy`` (sums of the weights of the WHOLE batch) and ``temperature``.

    Raises:
        ValueError: If there is no group, a group has another number of sessions, or copies have no seeds.
    """
    layout = GroupLayout.of(groups, num_students) if layout is None else layout
    row_weight = torch.tensor([layout.weights(group) for group in groups], dtype=torch.float32)
    rows = [row for group in groups for row in layout.rows(group)]
    tensors = {
        **row_tensors(rows, score_weights_of(groups, layout), images_of(groups, layout)),
        "row_weight": row_weight.flatten(),
        "row_source": torch.tensor([layout.sources(group) for group in groups]).flatten()
        - torch.arange(layout.group_size).repeat(len(groups)),
    }
    if layout.noisy_students is not None:
        if seeds is None:
            raise ValueError("copies with noise need the seeds of their noise")
        # Noise on the prompt's embeddings: the prompt of a copy is no common one.
        tensors["noise_seed"] = seeds.flatten()
    else:
        prompt_length = torch.tensor([group.prompt_length for group in groups])
        tensors["prompt_length"] = prompt_length.repeat_interleave(layout.group_size)
    return tu.get_tensordict(
        tensors,
        {
            "force_group_size": layout.group_size,
            "num_teachers": layout.num_teachers,
            "noisy_students": -1 if layout.noisy_students is None else layout.noisy_students,
            "num_pairs": num_pairs(row_weight, layout),
            "num_noisy": layout.noisy_total(groups),
            "temperature": 1.0,
        },
    )


def score_weights_of(groups: Sequence[SequenceGroup], layout: GroupLayout) -> list[list[float]] | None:
    """Of all rows of groups the shares of their tokens' values; None where all scores are those of last tokens."""
    if all(group.ends is None for group in groups):
        return None
    found = []
    for group in groups:
        found += layout.score_weights(group) or [shares(len(row), ()) for row in layout.rows(group)]
    return found


def images_of(groups: Sequence[SequenceGroup], layout: GroupLayout) -> list[PromptImages | None] | None:
    """Of all rows of groups the images of their prompts, none for placeholders; None where no group has any."""
    if all(group.images is None for group in groups):
        return None
    found: list[PromptImages | None] = []
    for group in groups:
        # Their files stay here.
        images = None if group.images is None else replace(group.images, files=())
        found += [None if row == PLACEHOLDER else images for row in layout.rows(group)]
    return found


def take_sources(data: TensorDict, values: torch.Tensor) -> torch.Tensor:
    """Values (R,) of the rows of a batch or a micro-batch, each that of the row whose score it takes.

    Args:
        data: Whole groups (:func:`build_group_batch`); the values of single rows stay as they are.
        values: (R,).
    """
    if "row_source" not in data.keys():
        return values
    return values[data["row_source"].to(values.device) + torch.arange(len(values), device=values.device)]


@dataclass(frozen=True)
class DistinctRows:
    """The rows of groups, each of which is read once in its group.

    Args:
        rows: The distinct rows, group by group.
        places: Position of each in the list of all rows of all groups.
        take: (R,) position in ``rows`` of each row of all groups.
        score_weights: Of the rows (:func:`score_weights_of`).
        images: Of the rows (:func:`images_of`).
    """

    rows: list[list[int]]
    places: list[int]
    take: torch.Tensor
    score_weights: list[list[float]] | None = None
    images: list[PromptImages | None] | None = None

    @classmethod
    def of(cls, groups: Sequence[SequenceGroup], layout: GroupLayout) -> "DistinctRows":
        """Of groups of a layout."""
        size = layout.group_size
        rows = [row for group in groups for row in layout.rows(group)]
        sources = [number * size + source for number, group in enumerate(groups) for source in layout.sources(group)]
        places = [place for place, source in enumerate(sources) if source == place]
        number_of = {place: number for number, place in enumerate(places)}
        take = torch.tensor([number_of[source] for source in sources])
        weights, images = score_weights_of(groups, layout), images_of(groups, layout)
        return cls(
            [rows[place] for place in places],
            places,
            take,
            None if weights is None else [weights[place] for place in places],
            None if images is None else [images[place] for place in places],
        )

    def batch(
        self, plan: BatchPlan, score_gradients: torch.Tensor | None = None, seeds: torch.Tensor | None = None
    ) -> TensorDict:
        """The rows in the order of a plan; gradients and seeds as :func:`build_row_batch` takes them, in that order."""
        weights = None if self.score_weights is None else plan.padded(self.score_weights, [1.0])
        images = None if self.images is None else plan.padded(self.images, None)
        return build_row_batch(plan.padded(self.rows, PLACEHOLDER), score_gradients, seeds, weights, images)

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Values (R,) of all rows, summed over those that are read as one."""
        return values.new_zeros(len(self.rows)).index_add(0, self.take, values)


def num_pairs(row_weight: torch.Tensor, layout: GroupLayout) -> float:
    """Sum of the weights of all pairs, from the weights of the rows (G, group size)."""
    weights = row_weight.double()
    teachers = weights[:, : layout.num_teachers].sum(dim=1)
    students = weights[:, layout.num_teachers : layout.clean_size].sum(dim=1)
    return float((teachers * students).sum().item())


def build_row_batch(
    rows: Sequence[Sequence[int]],
    score_gradients: torch.Tensor | None = None,
    seeds: torch.Tensor | None = None,
    score_weights: Sequence[Sequence[float]] | None = None,
    images: Sequence[PromptImages | None] | None = None,
) -> TensorDict:
    """Single sequences as verl's engines read them.

    Args:
        rows: Token ids of R sequences.
        score_gradients: (R,) gradient of the batch's loss with respect to each row's score
            (:func:`gad_verl.discriminator.loss.group_score_gradients`); None to score only.
        seeds: (R,) seed of each row's noise, 0 for none; None means no noise.
        score_weights: Of each row the shares of its tokens' values in its score; None takes the last token's.
        images: Of each row those of its prompt; None where no row has any.

    Returns:
        TensorDict of R rows with ``input_ids`` as of :func:`build_group_batch`, and ``score_gradient`` (R,) float32.
    """
    if not rows:
        raise ValueError("a batch needs at least one row")
    tensors = row_tensors(rows, score_weights, images)
    if score_gradients is not None:
        tensors["score_gradient"] = score_gradients.to(torch.float32)
    if seeds is not None:
        tensors["noise_seed"] = seeds
    return tu.get_tensordict(tensors, {"temperature": 1.0})


def split_group_scores(scores: torch.Tensor, layout: GroupLayout) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(R,) values of rows to those of teachers (G, k), students (G, n) and copies (G, m)."""
    grouped = scores.view(-1, layout.group_size)
    return (
        grouped[:, : layout.num_teachers],
        grouped[:, layout.num_teachers : layout.clean_size],
        grouped[:, layout.clean_size :],
    )
