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
"""One function for both sides: identical texts give identical ids."""

import random
import unicodedata
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_verl.data.alignment import credit_of_response, token_ends, unit_ends
from gad_verl.data.tokens import EncodedResponse, SequenceBuilder, stop_token_ids
from gad_verl.errors import GadConfigError, GadDataError

MAX_RESPONSE = 16
# Ordinary text, characters of several bytes, and the character that a broken one decodes to.
TEXTS = st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from("aé日😀\ufffd \n")), max_size=24)


def build_merging_tokenizer() -> Any:
    """Byte-level BPE WITH merges, trained on random text: a cut text may be encoded differently from its whole."""
    from tiny_model import CHAT_TEMPLATE
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(0)
    texts = ["".join(rng.choice("aab cdé日😀 \n") for _ in range(100)) for _ in range(60)]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=380, initial_alphabet=alphabet, show_progress=False)
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=trained,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_fallback_tokenizer() -> Any:
    """As those of Llama-2, Mistral and Gemma: characters that it does not know are tokens of one byte each."""
    from tiny_model import CHAT_TEMPLATE
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    known = ["<unk>", *(f"<0x{number:02X}>" for number in range(256)), *"\u2581abc", "\u2581a", "ab"]
    merges = [("\u2581", "a"), ("a", "b")]
    tokenizer = Tokenizer(
        models.BPE({token: number for number, token in enumerate(known)}, merges, byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture(scope="module", params=["bytes", "merges", "loaded", "fallback"])
def any_tokenizer(request: pytest.FixtureRequest, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Without and with merges, as transformers loads it for a Qwen2 model (with its Unicode normalization), and one
    that falls back to bytes."""
    if request.param == "bytes":
        return tokenizer
    if request.param == "fallback":
        return build_fallback_tokenizer()
    merging = build_merging_tokenizer()
    if request.param == "merges":
        return merging
    from transformers import Qwen2Config, Qwen2Tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    merging.save_pretrained(folder)
    Qwen2Config().save_pretrained(folder)
    return Qwen2Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def builder(tokenizer: Any) -> SequenceBuilder:
    """Byte-level: a text of k ASCII characters has k tokens."""
    return SequenceBuilder(tokenizer, max_prompt_length=64, max_response_length=MAX_RESPONSE)


def encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def without(tokenizer: Any, **changes: Any) -> Any:
    """A stand-in for the tokenizer with some attributes replaced."""
    return SimpleNamespace(**{"eos_token_id": 1, "chat_template": "x", "name_or_path": "some/model"} | changes)


# ------------------------------ stop tokens ------------------------------


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (None, {7}),
        (SimpleNamespace(), {7}),
        (SimpleNamespace(eos_token_id=None), {7}),
        (SimpleNamespace(eos_token_id=7), {7}),
        (SimpleNamespace(eos_token_id=8), {7, 8}),
        (SimpleNamespace(eos_token_id=[8, 9, 7]), {7, 8, 9}),
        (SimpleNamespace(eos_token_id=(0,)), {0, 7}),
    ],
)
def test_stop_token_ids(more: Any, expected: set[int]) -> None:
    assert stop_token_ids(without(None, eos_token_id=7), more) == expected


def test_an_eos_of_id_zero_counts() -> None:
    assert stop_token_ids(without(None, eos_token_id=0)) == {0}
    assert SequenceBuilder(without(None, eos_token_id=0), 4, 4).eos_token_id == 0


@pytest.mark.parametrize("stop_ids", [None, frozenset({3})])
def test_no_eos_raises(stop_ids: frozenset[int] | None) -> None:
    broken = without(None, eos_token_id=None)
    with pytest.raises(GadConfigError, match="some/model.*no EOS.*eos_token"):
        stop_token_ids(broken)
    with pytest.raises(GadConfigError, match="no EOS"):
        SequenceBuilder(broken, 4, 4, stop_ids)


def test_no_chat_template_raises() -> None:
    for nothing in (None, ""):
        with pytest.raises(GadConfigError, match="some/model.*no chat template"):
            SequenceBuilder(without(None, chat_template=nothing), 4, 4)


# ------------------------------ responses ------------------------------


@given(text=TEXTS)
@settings(max_examples=200, deadline=None)
def test_teacher_equals_finished_student(any_tokenizer: Any, text: str) -> None:
    builder = SequenceBuilder(any_tokenizer, 64, MAX_RESPONSE)
    ids, eos = encode(any_tokenizer, text), any_tokenizer.eos_token_id
    teacher = builder.response(text)
    assert builder.student_response([*ids, eos]) == teacher
    assert len(teacher.token_ids) <= MAX_RESPONSE
    assert teacher.finished is not teacher.cut
    assert teacher.cut == (len(ids) >= MAX_RESPONSE)
    # Exactly one EOS if finished, none if cut.
    assert teacher.token_ids.count(eos) == (1 if teacher.finished else 0)
    if teacher.finished:
        assert teacher.token_ids == [*ids, eos]


@given(text=TEXTS.filter(lambda text: len(text.encode()) >= MAX_RESPONSE))
@settings(max_examples=200, deadline=None)
def test_cut_teacher_equals_cut_student(any_tokenizer: Any, text: str) -> None:
    builder = SequenceBuilder(any_tokenizer, 64, MAX_RESPONSE)
    ids = encode(any_tokenizer, text)
    if len(ids) < MAX_RESPONSE:
        return
    student, teacher = builder.student_response(ids[:MAX_RESPONSE]), builder.response(text)
    assert student == teacher and teacher.cut and not teacher.finished
    # Encoding what is left once more changes nothing.
    assert builder.response(builder.decode(teacher.token_ids), finished=False) == teacher


@given(ids=st.lists(st.integers(0, 255), max_size=MAX_RESPONSE), finished=st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_sampled_bytes_pass(builder: SequenceBuilder, ids: list[int], finished: bool) -> None:
    eos = builder.eos_token_id
    response = builder.student_response(ids[: MAX_RESPONSE - 1] + [eos] if finished else ids)
    assert len(response.token_ids) <= MAX_RESPONSE
    assert response.finished is not response.cut
    assert response.token_ids.count(eos) == (1 if response.finished else 0)
    if not finished:
        assert response.cut


@pytest.mark.parametrize(("length", "finished"), [(MAX_RESPONSE - 1, True), (MAX_RESPONSE, False), (17, False)])
def test_lengths_around_the_limit(builder: SequenceBuilder, length: int, finished: bool) -> None:
    text = "abcdefghijklmnopqrs"[:length]
    ids = encode(builder.tokenizer, text)
    assert len(ids) == length
    expected = [*ids, builder.eos_token_id] if finished else ids[:MAX_RESPONSE]
    assert builder.response(text) == EncodedResponse(expected, finished=finished, cut=not finished)
    assert len(builder.response(text).token_ids) == MAX_RESPONSE
    sampled = [*ids, builder.eos_token_id][:MAX_RESPONSE]
    assert builder.student_response(sampled) == builder.response(text)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_cut_inside_a_character(builder: SequenceBuilder, missing: int) -> None:
    text = "x" * (MAX_RESPONSE - missing) + "😀 and more"  # four bytes, of which 1, 2 or 3 fit
    sampled = encode(builder.tokenizer, text)[:MAX_RESPONSE]
    teacher, student = builder.response(text), builder.student_response(sampled)
    assert teacher == student == EncodedResponse(sampled[: MAX_RESPONSE - missing], finished=False, cut=True)


@given(text=st.text(alphabet="မြန်ab日😀é ", min_size=20, max_size=40), limit=st.integers(6, 24))
@settings(max_examples=150, deadline=None)
def test_a_cut_loses_no_more_than_the_broken_character(any_tokenizer: Any, text: str, limit: int) -> None:
    builder = SequenceBuilder(any_tokenizer, 64, limit)
    ids = encode(any_tokenizer, text)
    if len(ids) < limit:
        return
    teacher = builder.response(text)
    kept = builder.decode(teacher.token_ids)
    whole = unicodedata.normalize("NFC", text).removeprefix(" ")
    assert kept and whole.startswith(kept.removeprefix(" "))
    # With the next character there would be more than fits; one token may stand for a few characters.
    broken = [place for place in range(1, 5) if builder.decode(ids[: limit - place + 1]).count("\ufffd") == 0]
    assert len(kept) >= len(builder.decode(ids[: limit - broken[0] + 1]))
    assert builder.student_response(ids[:limit]) == teacher
    assert builder.student_text(ids[:limit]) == (kept, False)


def test_a_cut_inside_a_run_of_bytes_keeps_the_run() -> None:
    builder = SequenceBuilder(build_fallback_tokenizer(), 64, MAX_RESPONSE)
    text = "မြန်မာ" * 4
    ids = encode(builder.tokenizer, text)
    # One token of the beginning, and five characters of three bytes each: the cut falls on the end of a character.
    for limit in (16, 15, 14):
        builder = SequenceBuilder(builder.tokenizer, 64, limit)
        assert builder.decode(builder.response(text).token_ids) == text[: (limit - 1) // 3]
        assert builder.student_response(ids[:limit]) == builder.response(text)


def test_every_stop_token_ends_alike(tokenizer: Any) -> None:
    stops = frozenset({tokenizer.eos_token_id, tokenizer.pad_token_id})
    builder = SequenceBuilder(tokenizer, 64, MAX_RESPONSE, stops)
    ids = encode(tokenizer, "hello")
    expected = builder.response("hello")
    for stop in stops:
        assert builder.student_response([*ids, stop]) == expected
        assert builder.student_text([*ids, stop]) == ("hello", True)
    # Only a known stop token finishes a text.
    assert not SequenceBuilder(tokenizer, 64, MAX_RESPONSE).student_text([*ids, tokenizer.pad_token_id])[1]


def test_a_stop_token_inside_stays_visible(tokenizer: Any, builder: SequenceBuilder) -> None:
    ids = [*encode(tokenizer, "a"), tokenizer.pad_token_id, *encode(tokenizer, "b"), tokenizer.eos_token_id]
    assert builder.student_text(ids) == ("a<|endoftext|>b", True)
    assert builder.student_response(ids) == builder.response("a<|endoftext|>b")


def test_empty_text(builder: SequenceBuilder) -> None:
    eos = builder.eos_token_id
    assert builder.response("") == EncodedResponse([eos], finished=True, cut=False)
    assert builder.student_response([eos]) == builder.response("")
    assert builder.student_response([]) == EncodedResponse([], finished=False, cut=True)


def test_reader_with_another_tokenizer(tokenizer: Any, builder: SequenceBuilder) -> None:
    reader = SequenceBuilder(build_merging_tokenizer(), 64, MAX_RESPONSE)
    text = "aab caab c"
    ids = encode(tokenizer, text)
    response = builder.student_response([*ids, tokenizer.eos_token_id], reader)
    assert response == reader.response(text) and len(response.token_ids) < len(ids)
    # The student's text was cut by the limit of the student, not of the reader: unfinished all the same.
    assert not builder.student_response(ids, reader).finished


@given(text=TEXTS, tight=st.booleans(), cut=st.booleans())
@settings(max_examples=200, deadline=None)
def test_readers_with_other_tokenizers_cannot_tell_the_sides_apart(
    tokenizer: Any, text: str, tight: bool, cut: bool
) -> None:
    """A student that copies the teacher gives what the teacher gives, whoever spells the text in fewer tokens."""
    tokenizers = [tokenizer, build_merging_tokenizer()]
    mine, other = tokenizers if tight else tokenizers[::-1]
    student, reader = (SequenceBuilder(one, 64, MAX_RESPONSE) for one in (mine, other))
    ids = encode(mine, text)
    sampled = (ids if cut else [*ids, mine.eos_token_id])[:MAX_RESPONSE]
    finished = not cut and len(ids) < MAX_RESPONSE
    teacher = student.response_for(reader, text, not cut)
    assert student.student_response(sampled, reader) == teacher
    # Whether it is finished is the student's to say, whether an end-of-text token is there the reader's.
    assert teacher.finished == finished
    assert (teacher.token_ids[-1:] == [other.eos_token_id]) == (not teacher.cut)
    assert teacher.cut >= (not finished)


# ------------------------------ prompts ------------------------------


def test_prompt_is_cut_from_the_left(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what is one and one?"}]
    whole = SequenceBuilder(tokenizer, 1000, 8).prompt(messages)
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(whole) == text and text.endswith("<|im_start|>assistant\n")
    for limit in (1, 5, len(whole) - 1, len(whole), len(whole) + 1):
        assert SequenceBuilder(tokenizer, limit, 8).prompt(messages) == whole[-limit:]


def test_chat_template_kwargs_reach_the_template() -> None:
    tokenizer = build_merging_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}{% if thinking %}!{% endif %}"
    messages = [{"role": "user", "content": "ab"}]
    plain = SequenceBuilder(tokenizer, 64, 8).prompt(messages)
    # Those that would change the kind of the result are ignored.
    kwargs = {"thinking": True, "tokenize": True, "return_dict": True, "add_generation_prompt": False}
    thinking = SequenceBuilder(tokenizer, 64, 8, chat_template_kwargs=kwargs).prompt(messages)
    assert tokenizer.decode(plain) == "ab" and tokenizer.decode(thinking) == "ab!"


def test_a_template_that_renders_nothing_raises() -> None:
    tokenizer = build_merging_tokenizer()
    tokenizer.chat_template = "{{ '' }}"
    with pytest.raises(GadDataError, match="renders no token"):
        SequenceBuilder(tokenizer, 64, 8).prompt([{"role": "user", "content": "a"}])


# ------------------------------ ends of tokens and units ------------------------------


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("你好。今天天气很好。我们去公园吧。", "sentence", ["你好。", "今天天气很好。", "我们去公园吧。"]),
        ("你好，今天，好。", "phrase", ["你好，", "今天，", "好。"]),
        ("「はい。」と言った。", "sentence", ["「はい。」", "と言った。"]),
        ("It is 2.5 m. Yes, e.g. so", "sentence", ["It is 2.5 m.", " Yes, e.g.", " so"]),
        ("यह है। वह भी।", "sentence", ["यह है।", " वह भी।"]),
    ],
)
def test_units_end_at_the_marks_of_their_script(text: str, unit: str, expected: list[str]) -> None:
    ends = [*range(1, len(text) + 1), len(text) + 1]
    found = [0, *(ends[place] for place in unit_ends(text, ends, unit))]
    parts = [text[begin:end] for begin, end in zip(found, found[1:], strict=False)]
    assert parts + ([text[found[-1] :]] if found[-1] < len(text) else []) == expected


def test_credit_of_the_end_stays_with_the_end(tokenizer: Any) -> None:
    """A student that stops with another token than the reader's: the tokens differ, and the text does not."""
    ids = encode(tokenizer, "the hat")
    values = torch.arange(len(ids) + 1, dtype=torch.float64) ** 2
    ends = token_ends(tokenizer, [*ids, tokenizer.eos_token_id], "the hat", extra=1)
    other = token_ends(tokenizer, [*ids, tokenizer.pad_token_id], "the hat", extra=1)
    same = credit_of_response(values, 0.5, None, None, same_tokens=True)
    assert torch.equal(credit_of_response(values, 0.5, ends, other, same_tokens=False), same)
