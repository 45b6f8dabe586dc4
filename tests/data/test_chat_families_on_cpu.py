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
"""Tokenizers and templates in the manner of many families: what is read of a prompt and a text."""

from types import SimpleNamespace
from typing import Any

import pytest
from chat_families import CHAT_FAMILIES, ChatFamily, build_chat_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.data.tokens import SequenceBuilder, stop_token_ids
from gad_verl.errors import GadDataError

TEXTS = st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from("the aé日😀\n ")), max_size=20)
CHAT = [{"role": "user", "content": "the other one"}]
SYSTEM = {"role": "system", "content": "be brief"}
TOKENIZERS = {name: build_chat_tokenizer(family) for name, family in CHAT_FAMILIES.items()}
SPECIAL = {name: set(tokenizer.all_special_ids) for name, tokenizer in TOKENIZERS.items()}

every_family = pytest.mark.parametrize("name", CHAT_FAMILIES)


def builder_of(name: str, **kwargs: Any) -> SequenceBuilder:
    """As the trainer makes it: with all ends that the generation configuration names."""
    family, tokenizer = CHAT_FAMILIES[name], TOKENIZERS[name]
    ends = SimpleNamespace(eos_token_id=tokenizer.convert_tokens_to_ids(list(family.stops)))
    return SequenceBuilder(tokenizer, 4096, 64, stop_token_ids(tokenizer, ends), kwargs)


def family_of(name: str) -> ChatFamily:
    return CHAT_FAMILIES[name]


@every_family
def test_a_prompt_is_what_the_template_renders_and_waits_for_an_answer(name: str) -> None:
    family, builder = family_of(name), builder_of(name)
    for messages in ([SYSTEM, *CHAT], CHAT) if family.takes_system else (CHAT,):
        text = builder.render(messages)
        assert text.startswith(family.begins)
        assert text.endswith(family.ends)
        assert all(message["content"] in text for message in messages)
        ids = builder.prompt(messages)
        # Turns are tokens of their own, not their spelling, and none was added beside the template's.
        marks = [token for token in family.special + family.stops if token in text]
        assert sum(number in SPECIAL[name] for number in ids) == sum(text.count(mark) for mark in marks)
        assert builder.decode(ids).replace(" ", "") == text.replace(" ", "")


@every_family
def test_a_system_message_is_there_or_refused_in_the_templates_words(name: str) -> None:
    builder = builder_of(name)
    if family_of(name).takes_system:
        assert builder.prompt([SYSTEM, *CHAT]) != builder.prompt(CHAT)
    else:
        with pytest.raises(GadDataError, match="System role not supported"):
            builder.prompt([SYSTEM, *CHAT])


@pytest.mark.parametrize(
    ("name", "arguments", "ends"),
    [(name, *switch) for name, family in CHAT_FAMILIES.items() for switch in family.switches],
)
def test_switches_of_a_template_reach_the_prompt(name: str, arguments: dict[str, Any], ends: str) -> None:
    switched = builder_of(name, **arguments)
    assert switched.render(CHAT).endswith(ends)
    default = builder_of(name).render(CHAT)
    assert (switched.render(CHAT) == default) == (arguments == {"enable_thinking": True})


@every_family
@given(text=TEXTS)
def test_a_teachers_text_ends_with_the_tokenizers_end_and_no_other(name: str, text: str) -> None:
    """Of several stop tokens it is the tokenizer's own, once, at the end; the rows share the prompt's tokens."""
    builder, tokenizer = builder_of(name), TOKENIZERS[name]
    prompt, response = builder.prompt(CHAT), builder.response(text)
    row = [*prompt, *response.token_ids]
    assert row[: len(prompt)] == builder.prompt(CHAT)
    if response.finished:
        assert row[-1] == tokenizer.eos_token_id
        assert not SPECIAL[name] & set(response.token_ids[:-1])
        assert row[-1] in builder.stop_ids


@every_family
@given(text=TEXTS)
def test_whatever_ends_a_students_answer_its_row_is_the_teachers(name: str, text: str) -> None:
    """Three stop tokens are one end: the discriminator must not tell sides by which of them was drawn."""
    builder, tokenizer = builder_of(name), TOKENIZERS[name]
    own = builder.response(text)
    sampled = own.token_ids[:-1] if own.finished else own.token_ids
    text = builder.decode(sampled)
    teacher = builder.response(text)
    if not teacher.finished or builder.response(text).token_ids[:-1] != sampled:
        return
    for stop in family_of(name).stops:
        student = builder.student_response([*sampled, tokenizer.convert_tokens_to_ids(stop)])
        assert student == teacher
    assert not builder.student_response(sampled).finished


@every_family
def test_a_text_that_spells_a_turn_stays_text(name: str) -> None:
    """A teacher who writes the marks of a template writes text; a token of its own would be a mark of a side."""
    builder = builder_of(name)
    for token in family_of(name).special + family_of(name).stops:
        ids = builder.response(f"a {token} b").token_ids
        assert not SPECIAL[name] & set(ids[:-1])
        assert builder.decode(ids[:-1]) == f"a {token} b"


@every_family
def test_a_family_reads_the_students_of_another(name: str) -> None:
    """The discriminator of another family: its rows are the text's, whichever tokenizer the student has."""
    reader = builder_of(name)
    for other in CHAT_FAMILIES:
        writer = builder_of(other)
        sampled = writer.response("the answer").token_ids
        assert writer.student_response(sampled, reader) == reader.response("the answer")
