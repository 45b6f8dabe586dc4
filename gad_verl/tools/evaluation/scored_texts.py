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
"""The texts over which the divergences to an open teacher are taken, as token ids of both models."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadDataError
from gad_verl.tools.evaluation.engines import check_positions
from gad_verl.tools.evaluation.figures import seen_teacher_text
from gad_verl.tools.evaluation.open_teacher import OpenTeacher, Reader
from gad_verl.tools.evaluation.responses import Response
from gad_verl.tools.evaluation.rows import Row
from gad_verl.tools.evaluation.scores import STUDENT, TEACHER


@dataclass(frozen=True)
class ScoredText:
    """One answer of one of the two, for both to read.

    Args:
        author: "student" or "teacher".
        prompt: Number of the prompt.
        sample: Number of the author's answer to it.
        finished: Whether it ends with an end-of-text token.
        prompt_ids: Of the prompt, for each reader.
        answer_ids: Of the answer, for each reader. Every end-of-text token is the reader's first one.
    """

    author: str
    prompt: int
    sample: int
    finished: bool
    prompt_ids: dict[str, list[int]]
    answer_ids: dict[str, list[int]]

    @property
    def key(self) -> tuple[str, int, int]:
        """Author, prompt and sample."""
        return self.author, self.prompt, self.sample

    @property
    def digest(self) -> str:
        """Changes with any token of prompt or answer."""
        return hashlib.sha256(json.dumps([self.prompt_ids, self.answer_ids]).encode()).hexdigest()[:16]


def scored_texts(
    rows: Sequence[Row], responses: Sequence[Response], teacher: OpenTeacher, student_limit: SequenceBuilder
) -> list[ScoredText]:
    """The student's responses, then the teacher's text of each row.

    With one vocabulary a response is the tokens that were sampled; otherwise each model reads the text in its own.

    Args:
        rows: The prompts.
        responses: Of the student.
        teacher: Whom it is compared with.
        student_limit: Cuts a teacher's text at the limit of the student's answers.

    Raises:
        GadDataError: If a response has no token ids.
        GadConfigError: If a text is too long for the teacher.
    """
    make = _by_tokens if teacher.exact else _by_text
    texts = list(make(rows, responses, teacher, student_limit))
    longest = max(len(text.prompt_ids[TEACHER]) + len(text.answer_ids[TEACHER]) for text in texts)
    check_positions(teacher.folder, longest, "--teacher-model")
    return texts


def _by_tokens(
    rows: Sequence[Row], responses: Sequence[Response], teacher: OpenTeacher, student_limit: SequenceBuilder
) -> Iterator[ScoredText]:
    reader = teacher.readers[STUDENT]
    for response in responses:
        if response.token_ids is None:
            raise GadDataError(
                "these responses were written without their token ids, which --teacher-model needs: evaluate the "
                "checkpoint again in another --output"
            )
        ids, ended = _to_first_end(response.token_ids, reader)
        yield _text(STUDENT, response.prompt, response.sample, ended, teacher, [ids, ids])
    for number, row in enumerate(rows):
        ids, ended = _to_first_end(student_limit.response(row.teacher, row.teacher_finished).token_ids, reader)
        yield _text(TEACHER, number, 0, ended, teacher, [ids, ids])


def _by_text(
    rows: Sequence[Row], responses: Sequence[Response], teacher: OpenTeacher, student_limit: SequenceBuilder
) -> Iterator[ScoredText]:
    answers: list[tuple[Any, ...]] = [(STUDENT, r.prompt, r.sample, r.finished, r.text) for r in responses]
    for number, row in enumerate(rows):
        cut = student_limit.response(row.teacher, row.teacher_finished).cut
        answers.append((TEACHER, number, 0, not cut, seen_teacher_text(row, student_limit)))
    readers = [teacher.readers[who] for who in (STUDENT, TEACHER)]
    for author, prompt, sample, finished, text in answers:
        both = [_to_first_end(r.builder.response(text, finished).token_ids, r)[0] for r in readers]
        yield _text(author, prompt, sample, finished, teacher, both)


def _text(
    author: str, prompt: int, sample: int, finished: bool, teacher: OpenTeacher, both: Sequence[list[int]]
) -> ScoredText:
    prompts = {who: reader.prompts[prompt] for who, reader in teacher.readers.items()}
    answers = dict(zip((STUDENT, TEACHER), both, strict=True))
    return ScoredText(author, prompt, sample, finished, prompts, answers)


def _to_first_end(token_ids: Sequence[int], reader: Reader) -> tuple[list[int], bool]:
    for place, token in enumerate(token_ids):
        if token in reader.ends:
            return [*token_ids[:place], reader.ends[0]], True
    return list(token_ids), False
