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
"""Answers that are encoded where they are made, and their way to the trainer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import build_other_tokenizer, build_tokenizer

from gad_verl.data.answers import (
    Answer,
    AnswerEncoder,
    pack_answer,
    pack_teacher,
    shared_ids,
    unpack_answer,
    unpack_teacher,
)
from gad_verl.data.thinking import CHAT, USUAL_MARKS
from gad_verl.data.thoughts import ReadResponse, ThoughtReader
from gad_verl.data.tokens import EncodedResponse, SequenceBuilder
from gad_verl.errors import GadDataError

STUDENT = SequenceBuilder(build_tokenizer(), 64, 40)
OTHER = SequenceBuilder(build_other_tokenizer(), 64, 40)
IDS = st.lists(st.integers(0, 2**20), max_size=12)


@given(IDS)
def test_shared_ids_are_those_of_the_tensor(ids: list[int]) -> None:
    assert shared_ids(torch.tensor(ids, dtype=torch.int32)) == ids


def test_an_id_is_one_object_wherever_it_comes() -> None:
    one, other = shared_ids(torch.tensor([70_001, 5, 70_001])), shared_ids(torch.tensor([70_001]))
    assert one[0] is one[2] is other[0]


@given(
    response=IDS,
    answer=st.none() | IDS,
    encoded=st.none() | st.builds(EncodedResponse, IDS, st.booleans(), st.booleans()),
    numbers=st.tuples(st.integers(0, 99), st.integers(0, 99), st.booleans()),
    hides=st.booleans(),
    same=st.tuples(st.booleans(), st.booleans()),
)
@settings(max_examples=300)
def test_what_is_packed_comes_out(
    response: list[int],
    answer: list[int] | None,
    encoded: EncodedResponse | None,
    numbers: tuple[int, int, bool],
    hides: bool,
    same: tuple[bool, bool],
) -> None:
    if not hides or (same[0] and answer is not None):
        answer = response
    if encoded is not None and same[1] and answer is not None:
        encoded = EncodedResponse(list(answer), encoded.finished, encoded.cut)
    read = ReadResponse(answer, *numbers) if hides else None
    packed = pack_answer(Answer(read, encoded), response)
    assert packed.dtype == torch.int32 and packed.dim() == 1
    found = unpack_answer(packed, response, hides)
    assert found == Answer(read, encoded) and found.answer_ids(response) == answer


@pytest.mark.parametrize("reader", [STUDENT, OTHER], ids=["own", "other"])
@given(text=st.text(max_size=60), finished=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_text_is_encoded_as_the_trainer_does(reader: SequenceBuilder, text: str, finished: bool) -> None:
    ids = [*STUDENT.text_ids(text), *([STUDENT.eos_token_id] if finished else [])]
    answer = AnswerEncoder(STUDENT, reader).encode([], ids)
    assert answer == Answer(None, STUDENT.student_response(ids, reader))
    packed = pack_answer(answer, ids)
    assert unpack_answer(packed, ids, False) == answer
    if answer.encoded is not None and answer.encoded.token_ids == ids:
        # What the sampled ids say travels once.
        assert len(packed) == 7


@pytest.mark.parametrize(
    "text", ["<think>ab</think>\n\nyes", "<think>ab", "<think>ab</think>", "yes", ""], ids=lambda text: text[:12]
)
@pytest.mark.parametrize("finished", [True, False])
def test_thoughts_are_taken_off(text: str, finished: bool) -> None:
    thoughts = ThoughtReader(STUDENT, USUAL_MARKS)
    prompt = STUDENT.prompt(CHAT)
    ids = [*STUDENT.marked_ids(text), *([STUDENT.eos_token_id] if finished else [])]
    answer = AnswerEncoder(STUDENT, OTHER, thoughts).encode(prompt, ids)
    assert answer.read == thoughts.read(prompt, ids)
    assert (answer.encoded is None) == (answer.read.answer_ids is None)
    assert unpack_answer(pack_answer(answer, ids), ids, True) == answer


@given(encoded=st.none() | st.builds(EncodedResponse, IDS, st.booleans(), st.booleans()))
def test_a_teachers_text_that_is_packed_comes_out(encoded: EncodedResponse | None) -> None:
    packed = pack_teacher(encoded)
    assert packed.dtype == torch.int32 and packed.dim() == 1 and len(packed) >= 1
    assert unpack_teacher(packed) == encoded


@pytest.mark.parametrize("reader", [STUDENT, OTHER], ids=["own", "other"])
@given(text=st.text(min_size=1, max_size=60).filter(str.strip), cut=st.none() | st.booleans(), listed=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_only_text_of_a_teacher_is_encoded(
    reader: SequenceBuilder, text: str, cut: bool | None, listed: bool
) -> None:
    marks = {} if cut is None else {"finish_reason": "length" if cut else "stop"}
    row = {"index": 3, "text": [text] if listed else text, "extra_info": marks}
    encoder = AnswerEncoder(STUDENT, reader)
    assert encoder.encode_teacher(row, "text") == STUDENT.response_for(reader, text, not cut)
    # Between several the trainer chooses, at each visit anew.
    assert encoder.encode_teacher({**row, "text": [text, "another"]}, "text") is None


def test_a_row_without_text_is_named() -> None:
    with pytest.raises(GadDataError, match="row 3, column text"):
        AnswerEncoder(STUDENT, STUDENT).encode_teacher({"index": 3, "text": ""}, "text")
