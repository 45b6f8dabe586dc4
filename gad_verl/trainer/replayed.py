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
"""Past groups in the discriminator's batches: which are drawn, whose place they take, and how it fares on them."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gad_verl.config import ReplayConfig
from gad_verl.core import score_statistics
from gad_verl.core.replay import REPLACE, ReplayBuffer, age_band, replay_count
from gad_verl.data.image_prompts import ImagePrompts
from gad_verl.discriminator.groups import SequenceGroup
from gad_verl.discriminator.worker_group import DiscriminatorOutput

Packed = dict[str, Any]


def pack_group(group: SequenceGroup) -> Packed:
    """A group in the form in which it is remembered and saved: token ids as int32 tensors, images as files.

    Pixels are many times as large as the files that they are read from.
    """

    def tensor(ids: list[int] | None) -> torch.Tensor | None:
        return None if ids is None else torch.tensor(ids, dtype=torch.int32)

    weights = replace(group, trains=True).pair_weights()
    files = () if group.images is None else group.images.files
    return {
        "teachers": [tensor(ids) for ids in group.teacher_ids],
        "teacher_weights": list(group.teacher_weights),
        # What did not train then does not train later.
        "students": [tensor(ids if weight else None) for ids, weight in zip(group.student_ids, weights, strict=True)],
        "prompt_length": group.prompt_length,
        "ends": group.ends,
        "images": [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files],
    }


def unpack_group(packed: Packed, num_students: int, prompts: ImagePrompts | None = None) -> SequenceGroup:
    """The group again.

    Args:
        packed: What :func:`pack_group` made of it.
        num_students: Sessions that it gets: surplus ones are left out, missing ones are not read.
        prompts: Reads images again; needed where the group has any.
    """
    students = [None if ids is None else ids.tolist() for ids in packed["students"][:num_students]]
    students += [None] * (num_students - len(students))
    ends, count = packed.get("ends"), len(packed["teachers"])
    if ends is not None:
        # What is not read has no places, though it had some when it was remembered.
        of_students = [*ends[count:], *[[]] * num_students]
        read = [[] if ids is None else places for ids, places in zip(students, of_students, strict=False)]
        ends = (*ends[:count], *read)
    images, files = None, [file.numpy().tobytes() for file in packed.get("images", ())]
    if files:
        assert prompts is not None, "a group with images is remembered by a run that reads images"
        images = prompts.of_files(packed["teachers"][0][: packed["prompt_length"]].tolist(), files)
    return SequenceGroup(
        teacher_ids=tuple(ids.tolist() for ids in packed["teachers"]),
        student_ids=students,
        prompt_length=packed["prompt_length"],
        teacher_weights=tuple(packed["teacher_weights"]),
        ends=ends,
        images=images,
    )


def remember(buffer: ReplayBuffer[Packed], step: int, fresh: Sequence[SequenceGroup]) -> None:
    """Keep those groups of a step that may train the discriminator; a buffer that keeps nothing packs nothing."""
    if buffer.remembers:
        buffer.add(step, [pack_group(group) for group in fresh if group.trains])


@dataclass(frozen=True)
class MixedBatch:
    """What the discriminator reads in one update.

    Args:
        groups: Fresh groups in the order of the step, then past ones.
        num_fresh: Of the first kind.
        ages: Steps since each of the past ones was fresh.
    """

    groups: list[SequenceGroup]
    num_fresh: int
    ages: tuple[int, ...] = ()

    def report(self, output: DiscriminatorOutput) -> dict[str, float]:
        """How the discriminator fares on past pairs; empty where there are none.

        Args:
            output: Its scores of all groups, of before the update.

        Returns:
            ``replayed_groups``, ``replay_share`` (of the pairs that train), ``replay_accuracy``, and by bands of age
            ``replay_accuracy_age_*`` and ``replay_margin_age_*``.
        """
        if not self.ages:
            return {}
        pairs = [sum(group.pair_weights()) for group in self.groups]
        share = sum(pairs[self.num_fresh :]) / max(1.0, sum(pairs))
        report = {"replayed_groups": float(len(self.ages)), "replay_share": share}
        rows = range(self.num_fresh, len(self.groups))
        report |= {f"replay_{name}": value for name, value in _fares(output, rows, "accuracy")}
        of_band: dict[str, list[int]] = defaultdict(list)
        for row, age in zip(rows, self.ages, strict=True):
            of_band[age_band(age)].append(row)
        for band, some in of_band.items():
            found = dict(_fares(output, some, "accuracy", "margin_mean"))
            if found:
                report[f"replay_accuracy_age_{band}"] = found["accuracy"]
                report[f"replay_margin_age_{band}"] = found["margin_mean"]
        return report


def _fares(output: DiscriminatorOutput, rows: Sequence[int], *names: str) -> list[tuple[str, float]]:
    some = list(rows)
    found = score_statistics(output.teacher_scores[some], output.student_scores[some], output.weights[some])
    return [(name, found[name]) for name in names if name in found]


class Replay:
    """The memory of past groups and how it is used.

    Args:
        config: ``gad.replay``.
        updates_of_step: Batches of fresh groups in a step, numbered through the run.
        prompts: Reads the images of past groups again; None for a student without eyes.
    """

    def __init__(self, config: ReplayConfig, updates_of_step: int = 1, prompts: ImagePrompts | None = None) -> None:
        self._config, self._prompts = config, prompts
        self._buffer: ReplayBuffer[Packed] = ReplayBuffer(
            config.capacity_steps * updates_of_step, config.order, config.seed, config.recency_rate
        )

    def mix(self, step: int, number: int, fresh: Sequence[SequenceGroup], num_students: int) -> MixedBatch:
        """Fresh groups with past ones beside them or in their place.

        Args:
            step: Training step.
            number: Of the update in the step: each draws anew.
            fresh: Groups of the step.
            num_students: Sessions of each.
        """
        config, seed_step = self._config, step * 1000 + number
        trains = [place for place, group in enumerate(fresh) if group.trains]
        count = replay_count(len(trains), config.fraction, config.mode)
        drawn = self._buffer.draw(count, seed_step, step)
        groups = list(fresh)
        if config.mode == REPLACE:
            # Still scored: their responses need rewards.
            for place in random.Random(f"{config.seed} replaced {seed_step}").sample(trains, len(drawn)):
                groups[place] = replace(groups[place], trains=False)
        past = [unpack_group(packed, num_students, self._prompts) for _, packed in drawn]
        return MixedBatch(groups + past, len(fresh), tuple(step - of_step for of_step, _ in drawn))

    def remember(self, step: int, fresh: Sequence[SequenceGroup]) -> None:
        """Keep those groups of a step that may train the discriminator."""
        remember(self._buffer, step, fresh)

    def state_dict(self) -> dict[str, Any]:
        """Content."""
        return self._buffer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned."""
        self._buffer.load_state_dict(state)
