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
"""Text of both sides as token rows, for the discriminator and for the student's supervised steps."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from gad_verl.data.image_prompts import ImagePrompts
from gad_verl.data.images import image_files
from gad_verl.data.prompt_images import PromptImages
from gad_verl.data.tokens import EncodedResponse, Messages, SequenceBuilder
from gad_verl.discriminator.groups import SequenceGroup
from gad_verl.trainer.rollouts import RolloutGroup, Session, StepRollouts
from gad_verl.trainer.supervised import SupervisedRow, supervised_row_of
from gad_verl.trainer.thinking import ThinkingRows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedGroup:
    """A group as the discriminator reads it.

    Args:
        prompt_ids: The prompt.
        teachers: The teacher's responses, at least one.
        teacher_weights: Share of each of them in the pairs.
        students: The student's; None for a session that has no answer or did not come.
        ends: See :class:`gad_verl.discriminator.groups.SequenceGroup`.
        images: Of the prompt.
    """

    prompt_ids: list[int]
    teachers: tuple[EncodedResponse, ...]
    teacher_weights: tuple[float, ...]
    students: tuple[EncodedResponse | None, ...]
    ends: tuple[list[int], ...] | None = None
    images: PromptImages | None = None

    @property
    def teacher(self) -> EncodedResponse:
        """The first of the teacher's responses."""
        return self.teachers[0]

    def sequences(self, trains: bool = True, student_trains: Sequence[bool] | None = None) -> SequenceGroup:
        """Prompt and response of each row.

        Args:
            trains: False for a group that is scored only.
            student_trains: The same of each student response; None means all of them.
        """
        return SequenceGroup(
            teacher_ids=tuple(self.prompt_ids + teacher.token_ids for teacher in self.teachers),
            student_ids=[None if student is None else self.prompt_ids + student.token_ids for student in self.students],
            prompt_length=len(self.prompt_ids),
            teacher_weights=self.teacher_weights,
            trains=trains,
            student_trains=None if student_trains is None else tuple(student_trains),
            ends=self.ends,
            images=self.images,
        )


class Encoding:
    """Both sides pass through ONE function (``SequenceBuilder.response``): identical texts give identical ids.

    Args:
        student: Builder of the student's tokenizer, which decodes the rollouts.
        reader: Builder of the discriminator's tokenizer; the same object where they share one.
        thinking: The supervised rows of a student that hides its thoughts; None where all of a response is its answer.
        images: Reads prompts with images; None for a student without eyes.
    """

    def __init__(
        self,
        student: SequenceBuilder,
        reader: SequenceBuilder,
        thinking: ThinkingRows | None = None,
        images: ImagePrompts | None = None,
    ) -> None:
        self.student, self.reader, self._thinking, self._images = student, reader, thinking, images
        self._has_compared_prompts = False

    def encode(self, groups: Sequence[RolloutGroup]) -> list[EncodedGroup]:
        """Each group as the discriminator reads it."""
        self._compare_prompts(groups)
        prompts = [self._prompt_of(group) for group in groups]
        return [
            EncodedGroup(
                prompt_ids=prompt_ids,
                images=images,
                teachers=self._teacher_responses(group),
                teacher_weights=tuple(teacher.weight for teacher in group.teachers),
                students=tuple(None if one is None else self._student_response(one) for one in group.answers),
            )
            for group, (prompt_ids, images) in zip(groups, prompts, strict=True)
        ]

    def _teacher_responses(self, group: RolloutGroup) -> tuple[EncodedResponse, ...]:
        if group.encoded_teacher is not None:
            return (group.encoded_teacher,)
        return tuple(self.student.response_for(self.reader, one.text, one.finished) for one in group.teachers)

    def _prompt_of(self, group: RolloutGroup) -> tuple[list[int], PromptImages | None]:
        """A prompt as the discriminator reads it; one with images as the rollout has read it, pixels and all."""
        if group.image_inputs is None:
            return self.reader.prompt(group.messages), None
        assert self._images is not None, "the check before a run refuses images for a student without eyes"
        files = image_files(group.messages)
        return group.prompt_ids, self._images.of_rollout(group.prompt_ids, group.image_inputs, files)

    def _students_prompt(self, messages: Messages) -> tuple[list[int], PromptImages | None]:
        if self._images is not None and image_files(messages):
            return self._images.read(messages)
        return self.student.prompt(messages), None

    def _student_response(self, session: Session) -> EncodedResponse:
        if session.encoded is not None:
            return session.encoded
        assert session.answer_ids is not None
        return self.student.student_response(session.answer_ids, self.reader)

    def text(self, session: Session) -> str:
        """What the student answered; all that it wrote, where it hides no thoughts or has no answer."""
        ids = session.response_ids if session.answer_ids is None else session.answer_ids
        return self.student.student_text(ids)[0]

    def prompt_text(self, group: RolloutGroup) -> str:
        """What was asked, as the student's template writes it."""
        ids = group.prompt_ids
        return self.student.decode(ids if self._images is None else self._images.shortened(ids))

    def teacher_text(self, group: RolloutGroup) -> str:
        """The teacher's text that the student's is held against."""
        return group.teacher_text

    def supervised_row(self, messages: Messages, text: str, finished: bool) -> SupervisedRow:
        """The student's row for a teacher's text, with an end-of-text token if its author finished it."""
        prompt, images = self._students_prompt(messages)
        response = self.student.response(text, finished)
        if self._thinking is not None:
            return self._thinking.behind_empty_block(prompt, response)
        return supervised_row_of(prompt, response, images=images)

    def supervised_rows(self, rollouts: StepRollouts, encoded: Sequence[EncodedGroup]) -> list[SupervisedRow]:
        """The student's rows for the teacher's texts of a step; what is encoded already is not encoded again.

        A prompt whose rollouts all failed has a text all the same.
        """
        if self._thinking is not None:
            rows = [
                self._thinking.row(group, self.student.response(group.teacher_text, group.teacher_finished))
                for group in rollouts.groups
            ]
            return rows + self._rows_of_lost(rollouts)
        rows = [self._row_of(group, one) for group, one in zip(rollouts.groups, encoded, strict=True)]
        return rows + self._rows_of_lost(rollouts)

    def _row_of(self, group: RolloutGroup, encoded: EncodedGroup) -> SupervisedRow:
        if self.reader is self.student and len(encoded.teachers) == 1:
            return supervised_row_of(encoded.prompt_ids, encoded.teacher, images=encoded.images)
        if encoded.images is None:
            return self.supervised_row(group.messages, group.teacher_text, group.teacher_finished)
        # The prompt is the student's; pixels are made once.
        response = self.student.response(group.teacher_text, group.teacher_finished)
        return supervised_row_of(encoded.prompt_ids, response, images=encoded.images)

    def _rows_of_lost(self, rollouts: StepRollouts) -> list[SupervisedRow]:
        return [self.supervised_row(messages, one.text, one.finished) for messages, one in rollouts.lost]

    def _compare_prompts(self, groups: Sequence[RolloutGroup]) -> None:
        """Once: the chat template is the same in every step."""
        if self._has_compared_prompts:
            return
        self._has_compared_prompts = True
        if any(group.prompt_ids != self._students_prompt(group.messages)[0] for group in groups):
            logger.warning(
                "the rollout renders prompts differently from gad_verl (system prompt, tools or chat template?): the "
                "warmup trains the student on other prompt tokens than it is asked with"
            )
