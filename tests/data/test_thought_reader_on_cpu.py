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
"""What is read of a student that thinks: its answer, by the marks of several families."""

from dataclasses import dataclass
from typing import Any

import pytest
from chat_families import CHAT_FAMILIES, build_chat_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import build_tokenizer

from gad_verl.config import ThinkingConfig
from gad_verl.data.thinking import CHAT, KNOWN_MARKS, USUAL_MARKS, Marks, marks_of, opens_thoughts, without_thoughts
from gad_verl.data.thoughts import ThoughtReader
from gad_verl.data.tokens import SequenceBuilder


@dataclass(frozen=True)
class Manner:
    """How a family spells its thoughts."""

    marks: Marks
    added: tuple[str, ...] = ()
    special: tuple[str, ...] = ()
    family: str | None = None


MANNERS = {
    "added tokens": Manner(USUAL_MARKS, added=("<think>", "</think>")),
    "special tokens": Manner(KNOWN_MARKS[4], special=("[THINK]", "[/THINK]")),
    "plain text": Manner(USUAL_MARKS),
    "plain text, words with a mark for their space": Manner(USUAL_MARKS, family="instructions in brackets"),
    "one mark is plain text": Manner(USUAL_MARKS, added=("</think>",)),
    "channels": Manner(KNOWN_MARKS[-1], family="channels"),
    "opened in the prompt": Manner(USUAL_MARKS, added=("<think>", "</think>"), family="thinking begins in the prompt"),
}


def tokenizer_of(manner: Manner) -> Any:
    tokenizer = build_tokenizer() if manner.family is None else build_chat_tokenizer(CHAT_FAMILIES[manner.family])
    tokenizer.add_tokens(list(manner.added))
    if manner.special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(manner.special)})
    return tokenizer


READERS = {
    name: (builder := SequenceBuilder(tokenizer_of(manner), 400, 400), ThoughtReader(builder, manner.marks))
    for name, manner in MANNERS.items()
}
# No space at the ends: where words carry a mark for their space it is lost there with any text.
WORDS = st.lists(st.sampled_from("the a he that hat eat".split()), min_size=1, max_size=6).map(" ".join)
manners = pytest.mark.parametrize("name", MANNERS)


def sampled(builder: SequenceBuilder, text: str, ended: bool) -> list[int]:
    """Ids as a student samples them: its marks are tokens."""
    ids = builder.marked_ids(text)
    return [*ids, builder.eos_token_id] if ended else ids


@manners
@given(WORDS, WORDS, st.booleans(), st.sampled_from(["", "\n\n", " \n"]), st.booleans())
def test_equal_answers_are_read_alike_whatever_was_thought_before(
    name: str, thoughts: str, answer: str, ended: bool, space: str, lone: bool
) -> None:
    builder, reader = READERS[name]
    marks = MANNERS[name].marks
    prompt = builder.prompt(CHAT)
    # The prompt may have opened the thoughts, and a student may have forgotten to.
    opened = "" if lone or reader.begins_inside(prompt) else marks.open
    ids = sampled(builder, f"{opened}{thoughts}{marks.close}{space}{answer}", ended)
    found = reader.read(prompt, ids)
    assert found.answer_ids is not None
    assert builder.student_text(found.answer_ids) == (answer, ended)
    # What the discriminator reads of both sides is one and the same.
    assert builder.student_response(found.answer_ids) == builder.response(answer, ended)
    # All that stands before the answer, and nothing of it.
    assert builder.decode(ids[: found.lead]).rstrip() == f"{opened}{thoughts}{marks.close}"
    assert builder.decode(ids[found.lead :]).strip().startswith(answer)
    assert 0 < found.num_thoughts <= found.lead


@manners
@given(WORDS, st.booleans())
def test_thoughts_without_an_end_have_no_answer(name: str, thoughts: str, ended: bool) -> None:
    builder, reader = READERS[name]
    marks, prompt = MANNERS[name].marks, builder.prompt(CHAT)
    opened = "" if reader.begins_inside(prompt) else marks.open
    ids = sampled(builder, opened + thoughts, ended)
    found = reader.read(prompt, ids)
    assert found.answer_ids is None and found.lead == 0
    assert found.num_thoughts == len(ids) - ended
    # Cut right behind the thoughts there is no answer yet; ended there it is an empty one.
    ids = sampled(builder, opened + thoughts + marks.close + "\n\n", ended)
    found = reader.read(prompt, ids)
    assert found.answer_ids == ([builder.eos_token_id] if ended else None)
    assert found.lead == len(ids) - ended


@pytest.mark.parametrize("name", [name for name in MANNERS if name != "opened in the prompt"])
@given(WORDS, st.booleans())
def test_a_student_that_did_not_think_is_read_as_it_is(name: str, answer: str, ended: bool) -> None:
    builder, reader = READERS[name]
    ids = sampled(builder, answer, ended)
    found = reader.read(builder.prompt(CHAT), ids)
    assert (found.answer_ids, found.num_thoughts, found.lead) == (ids, 0, 0)
    assert reader.read(builder.prompt(CHAT), []).answer_ids is None


@manners
@given(WORDS, WORDS, WORDS)
def test_several_blocks(name: str, first: str, second: str, answer: str) -> None:
    builder, reader = READERS[name]
    marks, prompt = MANNERS[name].marks, builder.prompt(CHAT)
    opened = "" if reader.begins_inside(prompt) else marks.open
    text = f"{opened}{first}{marks.close}{answer}{marks.open}{second}{marks.close}{answer}"
    found = reader.read(prompt, sampled(builder, text, ended=True))
    assert found.answer_ids is not None and builder.student_text(found.answer_ids) == (answer + answer, True)


@manners
@given(st.binary(min_size=1, max_size=4))
def test_a_character_cut_in_two_is_no_part_of_an_answer(name: str, raw: bytes) -> None:
    builder, reader = READERS[name]
    marks, prompt = MANNERS[name].marks, builder.prompt(CHAT)
    opened = "" if reader.begins_inside(prompt) else marks.open
    text = opened + "the" + marks.close + raw.decode("utf-8", "ignore") + "\u20ac"
    ids = sampled(builder, text, ended=False)
    whole, cut = reader.read(prompt, ids), reader.read(prompt, ids[:-1])
    assert whole.answer_ids is not None
    expected = builder.student_text(whole.answer_ids)[0].removesuffix("\u20ac")
    if not expected.strip():
        assert cut.answer_ids is None
    else:
        assert cut.answer_ids is not None and builder.student_text(cut.answer_ids)[0] == expected


# ------------------------------ templates ------------------------------


@manners
def test_the_empty_block_is_written_as_far_as_the_prompt_does_not_hold_it(name: str) -> None:
    builder, reader = READERS[name]
    block, prompt = MANNERS[name].marks.empty_block, builder.prompt(CHAT)
    whole = builder.decode([*prompt, *reader.empty_block(prompt)])
    assert whole.endswith(block) and whole.count(MANNERS[name].marks.close) == 1
    assert reader.empty_block(builder.marked_ids(whole)) == []
    # Behind it the student does not think.
    found = reader.read(prompt, [*reader.empty_block(prompt), *sampled(builder, "hat", True)])
    assert found.answer_ids == builder.response("hat").token_ids


def test_marks_follow_the_template_and_the_configuration() -> None:
    for known in KNOWN_MARKS:
        assert marks_of(ThinkingConfig(), f"... {known.close} ...") == known
        assert marks_of(ThinkingConfig(), f"... {known.open} ...") == known
        assert marks_of(ThinkingConfig(open=known.open, close=known.close), "") == known
        assert opens_thoughts(f"assistant\n{known.open}\n") and not opens_thoughts(f"{known.open}\n{known.close}\n")
    assert marks_of(ThinkingConfig(), None) == USUAL_MARKS
    own = marks_of(ThinkingConfig(open="(", close=")", empty_block="()"), "</think>")
    assert own == Marks("(", ")", "()", "\n)\n\n")
    assert marks_of(ThinkingConfig(open="(", close=")"), "</think>").empty_block == "(\n\n)\n\n"
    # As they are copied from a template.
    assert marks_of(ThinkingConfig(open="<think>\n", close="\n</think>\n\n"), "") == USUAL_MARKS


def test_marks_of_ones_own_are_taken_off_the_prompts_of_answers() -> None:
    tokenizer = build_chat_tokenizer(CHAT_FAMILIES["thinking switch"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}A:<reason>\n"
    builder, marks = SequenceBuilder(tokenizer, 200, 32), Marks("<reason>", "</reason>", "", "</reason>")
    assert without_thoughts(builder).render(CHAT).endswith("<reason>")
    assert without_thoughts(builder, marks).render(CHAT).endswith("A:")


@pytest.mark.parametrize("family", CHAT_FAMILIES)
def test_nobody_but_the_student_is_asked_to_think(family: str) -> None:
    builder = SequenceBuilder(build_chat_tokenizer(CHAT_FAMILIES[family]), 200, 32)
    rendered, bare = builder.render(CHAT), without_thoughts(builder).render(CHAT)
    assert not opens_thoughts(bare)
    if family == "thinking switch":
        assert bare == rendered + "<think>\n\n</think>\n\n"
    elif opens_thoughts(rendered):
        assert rendered == bare + "<think>\n"
    else:
        assert bare == rendered
