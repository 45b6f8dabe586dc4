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
"""From trajectories in TransferQueue to groups of texts, in an order that does not depend on who finished first."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from gad_verl.core.teacher_mix import TeacherMix, WeightedText
from gad_verl.data.schema import teacher_names, teacher_texts
from gad_verl.data.tokens import EncodedResponse, SequenceBuilder
from gad_verl.discriminator.groups import SequenceGroup


def parse_key(key: str) -> tuple[str, int, int]:
    """Prompt uid, session and output of verl's trajectory key ``{uid}_{session_id}_{index}``."""
    uid, session, output = key.rsplit("_", 2)
    return uid, int(session), int(output)


def rollout_order(keys: Sequence[str], indices: Sequence[int]) -> list[int]:
    """Positions of trajectories sorted by (data set index, uid, session, output): completion order plays no role."""
    return sorted(range(len(keys)), key=lambda position: (int(indices[position]), *parse_key(keys[position])))


@dataclass(frozen=True)
class RolloutGroup:
    """All responses to one prompt.

    Args:
        index: Row of the data set.
        messages: The prompt.
        teacher_text: The teacher text that the supervised stages train on.
        rows: Positions in the batch of each session's LAST output; None where the session failed.
        response_ids: Sampled ids of each session; None where it failed.
        prompt_ids: Ids of the prompt as the rollout was asked.
        teachers: The teacher texts that the discriminator compares with; none means ``teacher_text`` alone.
    """

    index: int
    messages: list[dict]
    teacher_text: str
    rows: list[int | None]
    response_ids: list[list[int] | None]
    prompt_ids: list[int]
    teachers: tuple[WeightedText, ...] = ()


def group_rollouts(
    keys: Sequence[str],
    indices: Sequence[int],
    messages: Sequence[list[dict]],
    teacher_values: Sequence[object],
    prompt_ids: Sequence[list[int]],
    response_ids: Sequence[list[int]],
    num_sessions: int,
    visit: int,
    step: int = 1,
    mix: TeacherMix | None = None,
    teacher_name_values: Sequence[object] | None = None,
) -> list[RolloutGroup]:
    """Collect the trajectories of each prompt.

    Args:
        keys: verl's trajectory keys, ordered by :func:`rollout_order`.
        indices, messages, teacher_values, prompt_ids, response_ids: One entry per key.
        num_sessions: Rollouts per prompt; missing ones are failed ones.
        visit: How often the data were seen; with several teacher texts, each visit uses the next one.
        step: Training step, for schedules of teachers.
        mix: Which of several teacher texts take part; None takes one per visit.
        teacher_name_values: Content of the column of the teachers' names, one entry per key.
    """
    mix = TeacherMix() if mix is None else mix
    positions: dict[str, dict[int, int]] = defaultdict(dict)
    outputs: dict[tuple[str, int], int] = {}
    for position, key in enumerate(keys):
        uid, session, output = parse_key(key)
        if outputs.get((uid, session), -1) < output:
            outputs[(uid, session)] = output
            positions[uid][session] = position
    groups = []
    for sessions in positions.values():
        first = next(iter(sessions.values()))
        index, where = int(indices[first]), f"row {indices[first]} of the training data"
        texts = teacher_texts(teacher_values[first], where)
        names = None
        if teacher_name_values is not None and mix.needs_names:
            names = teacher_names(teacher_name_values[first], len(texts), where)
        rows = [sessions.get(session) for session in range(num_sessions)]
        groups.append(
            RolloutGroup(
                index=index,
                messages=list(messages[first]),
                teacher_text=mix.choose_one(texts, names, index, step, visit).text,
                rows=rows,
                response_ids=[None if row is None else list(response_ids[row]) for row in rows],
                prompt_ids=list(prompt_ids[first]),
                teachers=tuple(mix.choose(texts, names, index, step, visit)),
            )
        )
    return groups


@dataclass(frozen=True)
class EncodedGroup:
    """A group as the discriminator reads it.

    Args:
        prompt_ids: The prompt.
        teachers: The teacher responses, at least one.
        students: The student's, None for failed rollouts.
        teacher_weights: Share of each teacher response in the pairs.
    """

    prompt_ids: list[int]
    teachers: tuple[EncodedResponse, ...]
    students: list[EncodedResponse | None]
    teacher_weights: tuple[float, ...] = (1.0,)

    @property
    def teacher(self) -> EncodedResponse:
        """The first teacher response."""
        return self.teachers[0]

    def sequences(self, trains: bool = True) -> SequenceGroup:
        """Prompt and response of each row; ``trains`` False for a group that is scored only."""
        return SequenceGroup(
            teacher_ids=tuple(self.prompt_ids + teacher.token_ids for teacher in self.teachers),
            student_ids=[None if student is None else self.prompt_ids + student.token_ids for student in self.students],
            prompt_length=len(self.prompt_ids),
            teacher_weights=self.teacher_weights,
            trains=trains,
        )


def encode_group(group: RolloutGroup, student: SequenceBuilder, reader: SequenceBuilder) -> EncodedGroup:
    """Encode both sides from text by ONE function (``SequenceBuilder.response``).

    Args:
        group: The texts.
        student: Builder of the student's tokenizer, which decodes the rollouts.
        reader: Builder of the discriminator's tokenizer.
    """
    teachers = [(choice.text, choice.weight) for choice in group.teachers] or [(group.teacher_text, 1.0)]
    return EncodedGroup(
        prompt_ids=reader.prompt(group.messages),
        teachers=tuple(reader.response(text) for text, _ in teachers),
        students=[None if ids is None else student.student_response(ids, reader) for ids in group.response_ids],
        teacher_weights=tuple(weight for _, weight in teachers),
    )
