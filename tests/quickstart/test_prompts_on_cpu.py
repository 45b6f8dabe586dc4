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
"""The prompts: a fixed split without repetition."""

from collections import Counter

from prompts import load_prompts, load_subjects

FILLER = set(
    "a an the is are do does i me you for of in on to what why how who can tell explain define please have always "
    "wondered best way someone difference between compare differ not same and name three list few give some examples "
    "suggest tip any advice would recommend need help with describe about like picture words used purpose anyone "
    "that it one from at by out".split()
)


def content_words(text: str) -> frozenset[str]:
    words = {word.strip("?.:,").lower() for word in text.split()}
    return frozenset(words - FILLER)


def test_split_sizes_and_indices() -> None:
    prompts = load_prompts()
    assert len(load_prompts("train")) == 336
    assert len(load_prompts("val")) == 64
    assert [prompt.index for prompt in prompts] == list(range(400))
    assert set(Counter(prompt.kind for prompt in load_prompts("val")).values()) == {8}


def test_split_is_fixed() -> None:
    assert load_prompts() == load_prompts()
    assert load_prompts("val")[0].text == "Define a glacier."


def test_no_prompt_occurs_twice() -> None:
    texts = [prompt.text.lower() for prompt in load_prompts()]
    assert len(set(texts)) == len(texts)


def test_no_near_duplicates_across_the_split() -> None:
    for held_out in load_prompts("val"):
        words = content_words(held_out.text)
        assert words, held_out.text
        for known in load_prompts("train"):
            other = content_words(known.text)
            overlap = len(words & other) / len(words | other)
            assert overlap < 0.5, f"{held_out.text!r} is close to {known.text!r}"


def test_prompts_are_short_and_clean() -> None:
    for prompt in load_prompts():
        assert prompt.text[-1] in ".?"
        assert len(prompt.text.split()) <= 16
        assert "{" not in prompt.text and "  " not in prompt.text


def test_every_prompt_is_one_wording_of_its_subject() -> None:
    subjects = load_subjects()
    assert len(subjects) == len({(subject.kind, subject.name) for subject in subjects}) == 400
    for prompt, subject in zip(load_prompts(), subjects, strict=True):
        assert prompt.text in subject.texts and prompt.kind == subject.kind
        assert all(subject.name in text for text in subject.texts)
    texts = [text for subject in subjects for text in subject.texts]
    assert len(set(texts)) == len(texts) == 50 * (7 * 4 + 3)
