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
"""A response as the discriminator reads it, made where the response is made, and its way to the trainer.

The agent loops are several processes that wait for the rollout most of the time; the trainer is one, and every rank
waits for it. So the texts are encoded there, and travel beside the sampled ids as one row of integers. The teacher's
text goes the same way, once a prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gad_verl.data.endings import EXTRA_INFO, cut_texts
from gad_verl.data.schema import teacher_texts
from gad_verl.data.thoughts import ReadResponse, ThoughtReader
from gad_verl.data.tokens import EncodedResponse, SequenceBuilder

# Columns of TransferQueue.
ENCODED = "gad_encoded"
ENCODED_TEACHER = "gad_encoded_teacher"

# In the place of a number of ids: there is nothing, or they are those that the row has already.
_NOTHING, _SAME = -1, -2
_HEADER = 7

_numbers: list[int] = []


def shared_ids(ids: torch.Tensor) -> list[int]:
    """``ids.tolist()`` with one object for each id instead of one for each token: 8 bytes a token and not 40.

    Args:
        ids: (T,) token ids, none of them negative.
    """
    if len(ids) == 0:
        return []
    top = int(ids.max())
    if top >= len(_numbers):
        _numbers.extend(range(len(_numbers), top + 1))
    return list(map(_numbers.__getitem__, ids.tolist()))


@dataclass(frozen=True)
class Answer:
    """What is read of a response.

    Args:
        read: The response taken apart, where the student hides its thoughts; else None.
        encoded: What the discriminator reads; None where there is no answer.
    """

    read: ReadResponse | None
    encoded: EncodedResponse | None

    def answer_ids(self, response_ids: list[int]) -> list[int] | None:
        """Ids of the answer, of a response as it was sampled."""
        return response_ids if self.read is None else self.read.answer_ids


@dataclass(frozen=True)
class AnswerEncoder:
    """Reads responses of the student for the discriminator.

    Args:
        student: Builder of the student's tokenizer.
        reader: Builder of the discriminator's; the same object where they share one.
        thoughts: Of a student that hides its thoughts; else None.
    """

    student: SequenceBuilder
    reader: SequenceBuilder
    thoughts: ThoughtReader | None = None

    def encode(self, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> Answer:
        """Read a response.

        Args:
            prompt_ids: What it answers, as the rollout was asked.
            response_ids: As sampled.
        """
        ids: list[int] | None = list(response_ids)
        read = None if self.thoughts is None else self.thoughts.read(prompt_ids, response_ids)
        if read is not None:
            ids = read.answer_ids
        return Answer(read, None if ids is None else self.student.student_response(ids, self.reader))

    def encode_teacher(self, row: Mapping[str, Any], teacher_key: str) -> EncodedResponse | None:
        """The teacher's text of a row of data; None where the trainer chooses between several.

        Args:
            row: Columns of the row.
            teacher_key: Name of the column of the teacher's texts.

        Raises:
            GadDataError: If the column holds no text.
        """
        where = f"row {int(row['index'])}, column {teacher_key}"
        texts = teacher_texts(row[teacher_key], where)
        if len(texts) > 1:
            return None
        (cut,) = cut_texts({EXTRA_INFO: row.get(EXTRA_INFO)}, 1, where)
        return self.student.response_for(self.reader, texts[0], not cut)


def pack_answer(answer: Answer, response_ids: Sequence[int]) -> torch.Tensor:
    """An answer as one row of int32: seven numbers, then those ids that the sampled ones do not tell."""
    sampled, read, encoded = list(response_ids), answer.read, answer.encoded
    of_answer = sampled if read is None else read.answer_ids
    ids = None if encoded is None else encoded.token_ids
    count, more = _counted(of_answer, sampled)
    count_read, more_read = _counted(ids, of_answer)
    header = [
        0 if read is None else read.num_thoughts,
        0 if read is None else read.lead,
        int(read is not None and read.inside),
        int(encoded is not None and encoded.finished),
        int(encoded is not None and encoded.cut),
        count,
        count_read,
    ]
    return torch.tensor([*header, *more, *more_read], dtype=torch.int32)


def unpack_answer(packed: torch.Tensor, response_ids: list[int], hides_thoughts: bool) -> Answer:
    """What :func:`pack_answer` packed; lists are shared with ``response_ids`` where they hold the same ids.

    Args:
        packed: (at least 7,) int32.
        response_ids: As sampled.
        hides_thoughts: Whether the student hides its thoughts.
    """
    thoughts, lead, inside, finished, cut, count, count_read = packed[:_HEADER].tolist()
    begin = _HEADER + max(0, count)
    answer_ids = _taken(packed[_HEADER:begin], count, response_ids)
    ids = _taken(packed[begin:], count_read, answer_ids)
    return Answer(
        ReadResponse(answer_ids, thoughts, lead, bool(inside)) if hides_thoughts else None,
        None if ids is None else EncodedResponse(ids, bool(finished), bool(cut)),
    )


def pack_teacher(encoded: EncodedResponse | None) -> torch.Tensor:
    """The teacher's text as one row of int32: two numbers and its ids; one number if it is not encoded here."""
    if encoded is None:
        return torch.tensor([_NOTHING], dtype=torch.int32)
    return torch.tensor([int(encoded.finished), int(encoded.cut), *encoded.token_ids], dtype=torch.int32)


def unpack_teacher(packed: torch.Tensor) -> EncodedResponse | None:
    """What :func:`pack_teacher` packed, (at least 1,) int32."""
    if len(packed) == 1:
        return None
    finished, cut = packed[:2].tolist()
    return EncodedResponse(shared_ids(packed[2:]), bool(finished), bool(cut))


def _counted(ids: list[int] | None, known: list[int] | None) -> tuple[int, list[int]]:
    if ids is None:
        return _NOTHING, []
    return (_SAME, []) if ids == known else (len(ids), ids)


def _taken(packed: torch.Tensor, count: int, known: list[int] | None) -> list[int] | None:
    if count == _NOTHING:
        return None
    return known if count == _SAME else shared_ids(packed)
