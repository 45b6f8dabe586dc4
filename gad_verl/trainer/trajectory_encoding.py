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
"""Trajectories of both sides as token rows: :class:`gad_verl.trainer.encoding.Encoding` of runs with tools."""

from collections.abc import Sequence

from gad_verl.data.tokens import Messages
from gad_verl.data.tools import CallCount, CallReader
from gad_verl.data.trajectories import Trajectory, TrajectoryBuilder, turns_of
from gad_verl.data.trajectory_messages import messages_of
from gad_verl.errors import GadDataError
from gad_verl.trainer.encoding import EncodedGroup, Encoding
from gad_verl.trainer.rollouts import RolloutGroup, Session, StepRollouts
from gad_verl.trainer.scored import ScoredStep
from gad_verl.trainer.supervised import SupervisedRow


class TrajectoryEncoding(Encoding):
    """Both sides are put together of the same pieces (:mod:`gad_verl.data.trajectories`).

    Args:
        builder: Of trajectories.
        calls: Finds the student's calls.
        scores_turns: Whether the score is the mean over the ends of turns.
    """

    def __init__(self, builder: TrajectoryBuilder, calls: CallReader, scores_turns: bool) -> None:
        # The discriminator reads the student's tokens: the check before a run has seen that it has the tokenizer.
        super().__init__(builder.student, builder.student)
        self._builder, self._calls, self._scores_turns = builder, calls, scores_turns
        # Of the rollouts that were encoded last, by their ids: calls are looked for once, and of all of them together.
        self._counted: dict[tuple[int, ...], list[CallCount]] = {}

    def encode(self, groups: Sequence[RolloutGroup]) -> list[EncodedGroup]:
        """Each group as the discriminator reads it.

        Raises:
            GadDataError: The rollout renders a prompt otherwise than the teacher's rows have it.
        """
        self._require_same_prompts(groups)
        self._count_calls([one for group in groups for one in group.answers if one is not None])
        return [self._encoded(group) for group in groups]

    def _encoded(self, group: RolloutGroup) -> EncodedGroup:
        teachers = tuple(
            self._builder.shown(self._builder.teacher(group.messages, messages_of(one.text), one.finished))
            for one in group.teachers
        )
        students = tuple(None if one is None else self._builder.shown(self._own(one)) for one in group.answers)
        ends = None
        if self._scores_turns:
            rows: list[Trajectory | None] = [*teachers, *students]
            start = len(group.prompt_ids)
            ends = tuple([] if row is None else [start + end for end in row.ends] for row in rows)
        return EncodedGroup(
            prompt_ids=group.prompt_ids,
            teachers=teachers,
            teacher_weights=tuple(teacher.weight for teacher in group.teachers),
            students=students,
            ends=ends,
        )

    def _own(self, session: Session) -> Trajectory:
        counts = self.call_counts(session)
        return self._builder.own(session.response_ids, session.mask, not counts or counts[-1].parsed == 0)

    def _count_calls(self, sessions: Sequence[Session]) -> None:
        turns = [turns_of(one.response_ids, one.mask) for one in sessions]
        counts = iter(self._calls.count([turn for of_one in turns for turn in of_one]))
        self._counted = {
            tuple(one.response_ids): [next(counts) for _ in of_one] for one, of_one in zip(sessions, turns, strict=True)
        }

    def call_counts(self, session: Session) -> list[CallCount]:
        """Calls of each turn of a rollout."""
        key = tuple(session.response_ids)
        return self._counted[key] if key in self._counted else self._calls.count(turns_of(key, session.mask))

    def text(self, session: Session) -> str:
        """The trajectory, results and marks of the template included."""
        return self.student.student_text(session.response_ids)[0]

    def teacher_text(self, group: RolloutGroup) -> str:
        """The same of the teacher."""
        row = self._builder.teacher(group.messages, messages_of(group.teacher_text), group.teacher_finished)
        return self.student.student_text(row.token_ids)[0]

    def supervised_row(self, messages: Messages, text: str, finished: bool) -> SupervisedRow:
        """The student's row for a teacher's trajectory: what tools and template put in has no loss."""
        row = self._builder.teacher(messages, messages_of(text), finished)
        return SupervisedRow(self.student.prompt(messages), row.token_ids, row.mask)

    def supervised_rows(self, rollouts: StepRollouts, encoded: Sequence[EncodedGroup]) -> list[SupervisedRow]:
        rows = [
            self.supervised_row(group.messages, group.teacher_text, group.teacher_finished) for group in rollouts.groups
        ]
        return rows + self._rows_of_lost(rollouts)

    def _require_same_prompts(self, groups: Sequence[RolloutGroup]) -> None:
        for group in groups:
            if group.prompt_ids != self.student.prompt(group.messages):
                raise GadDataError(
                    f"row {group.index} of the training data: the rollout is asked with other tokens than the "
                    "teacher's trajectory follows in the discriminator, which would know both sides by them. The tools "
                    "and the chat template must be the same in all processes (actor_rollout_ref.rollout.multi_turn, "
                    "data.apply_chat_template_kwargs)"
                )

    def metrics(self, step: ScoredStep) -> dict[str, float]:
        """Turns of both sides, calls of the student, and how many of them are in vain."""
        sessions = [one for group in step.rollouts.groups for one in group.sessions if one is not None]
        counts = [self.call_counts(one) for one in sessions]
        if not counts:
            return {}
        turns = sum(len(of_turns) for of_turns in counts) / len(counts)
        calls = sum(count.calls for of_turns in counts for count in of_turns)
        invalid = sum(count.invalid for of_turns in counts for count in of_turns)
        teachers = [teacher for one in step.encoded for teacher in one.teachers]
        of_teacher = sum(len(one.ends) for one in teachers if isinstance(one, Trajectory)) / len(teachers)
        return {
            "gad/turns": turns,
            "gad/teacher_turns": of_teacher,
            "gad/turns_ratio": turns / of_teacher,
            "gad/calls": calls / len(counts),
            "gad/invalid_call_rate": invalid / calls if calls else 0.0,
        }
