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
"""Instructions that a rule can check: the kinds of constraints of IFEval (arXiv 2311.07911), under its names.

Written from the descriptions of the kinds, not from its code; where a description leaves room (what counts as a word, a
sentence, a paragraph), the docstring of the rule says what is taken. ``language:response_language`` is left out: it is
no rule but a classifier.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import regex

from gad_verl.data.overlap import UNSPACED
from gad_verl.errors import GadDataError

Rule = Callable[..., bool]

RULES: dict[str, Rule] = {}
_LEAST, _LESS = "at least", "less than"
# A letter or digit of a script that puts spaces between words.
_SPACED = rf"[^\W_{UNSPACED}]\p{{M}}*"
_WORD = regex.compile(rf"[{UNSPACED}]\p{{M}}*|(?:{_SPACED})+(?:['’](?:{_SPACED})+)*")
_COMMAS = frozenset(",，、،")


def _rule(name: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES[name] = function
        return function

    return register


def _compared(count: int, relation: str | None, limit: int) -> bool:
    if relation not in (_LEAST, _LESS, None):
        raise ValueError(f"relation must be {_LEAST!r} or {_LESS!r}; got {relation!r}")
    return count < limit if relation == _LESS else count >= limit


def words(text: str) -> list[str]:
    """Runs of letters, digits and apostrophes; in a script without spaces each character."""
    return _WORD.findall(unicodedata.normalize("NFC", text))


def sentences(text: str) -> list[str]:
    """Parts that end with . ! or ? before white space or the end, with their like in other scripts, and line breaks;
    those with a word count."""
    return [part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？｡।])\s*|\n+", text) if words(part)]


def paragraphs(text: str, separator: str = r"\n\s*\n") -> list[str]:
    """Parts between separators that are not empty."""
    return [part.strip() for part in re.split(separator, text) if part.strip()]


def _times(text: str, keyword: str) -> int:
    """As a whole word: no letter of a script with spaces touches one of its own."""
    neighbour = rf"[^\W{UNSPACED}]"
    before, after = (
        "" if re.match(f"[{UNSPACED}]", end) else f"(?{look}!{neighbour})"
        for end, look in ((keyword[:1], "<"), (keyword[-1:], ""))
    )
    return len(re.findall(f"{before}{re.escape(keyword)}{after}", text, re.IGNORECASE))


def _keywords(found: object) -> list[str]:
    if isinstance(found, str) or not all(isinstance(one, str) and one for one in found):  # type: ignore[attr-defined]
        raise TypeError(f"words must be a list of texts; got {found!r}")
    return list(found)  # type: ignore[call-overload]


@_rule("keywords:existence")
def has_keywords(text: str, keywords: list[str]) -> bool:
    """Each keyword occurs as a whole word, whatever its case."""
    return all(_times(text, keyword) > 0 for keyword in _keywords(keywords))


@_rule("keywords:frequency")
def keyword_frequency(text: str, keyword: str, frequency: int, relation: str | None = None) -> bool:
    """A keyword occurs at least, or less than, so many times."""
    return _compared(_times(text, keyword), relation, frequency)


@_rule("keywords:forbidden_words")
def lacks_words(text: str, forbidden_words: list[str]) -> bool:
    """None of the words occurs as a whole word."""
    return not any(_times(text, word) for word in _keywords(forbidden_words))


@_rule("keywords:letter_frequency")
def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str | None = None) -> bool:
    """A letter occurs at least, or less than, so many times, in either case."""
    return _compared(text.lower().count(letter.lower()), let_relation, let_frequency)


@_rule("length_constraints:number_words")
def number_of_words(text: str, num_words: int, relation: str | None = None) -> bool:
    """At least, or less than, so many words."""
    return _compared(len(words(text)), relation, num_words)


@_rule("length_constraints:number_sentences")
def number_of_sentences(text: str, num_sentences: int, relation: str | None = None) -> bool:
    """At least, or less than, so many sentences."""
    return _compared(len(sentences(text)), relation, num_sentences)


@_rule("length_constraints:number_paragraphs")
def number_of_paragraphs(text: str, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs, separated by a line with ``***``."""
    return len(paragraphs(text, r"(?m:^[^\S\n]*\*\*\*[^\S\n]*$)")) == num_paragraphs


@_rule("length_constraints:nth_paragraph_first_word")
def nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs with empty lines between, and the n-th, from 1, begins with a word."""
    found = paragraphs(text)
    if len(found) != num_paragraphs or not 1 <= nth_paragraph <= len(found):
        return False
    wanted = words(first_word.lower())
    return wanted != [] and words(found[nth_paragraph - 1].lower())[: len(wanted)] == wanted


@_rule("detectable_content:number_placeholders")
def number_of_placeholders(text: str, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets."""
    return len(re.findall(r"\[[^\[\]\n]+\]", text)) >= num_placeholders


@_rule("detectable_content:postscript")
def has_postscript(text: str, postscript_marker: str = "P.S.") -> bool:
    """A line begins with the marker, whatever its case and the spaces in it."""
    marker = r"\s*".join(re.escape(letter) for letter in postscript_marker.replace(" ", ""))
    return re.search(rf"^[^\S\n]*{marker}", text, re.IGNORECASE | re.MULTILINE) is not None


@_rule("detectable_format:number_bullet_lists")
def number_of_bullets(text: str, num_bullets: int) -> bool:
    """Exactly so many lines that begin with ``*`` or ``-`` and a space."""
    return len(re.findall(r"^[^\S\n]*[*-][^\S\n]+\S", text, re.MULTILINE)) == num_bullets


@_rule("detectable_format:constrained_response")
def is_one_of_three(text: str) -> bool:
    """One of "My answer is yes.", "... no.", "... maybe." stands in it."""
    return any(f"My answer is {word}." in text for word in ("yes", "no", "maybe"))


@_rule("detectable_format:number_highlighted_sections")
def number_of_highlights(text: str, num_highlights: int) -> bool:
    """At least so many parts between asterisks, single or double, each with a word."""
    double = re.findall(r"\*\*([^*\n]+)\*\*", text)
    single = re.findall(r"(?<!\*)\*([^*\s][^*\n]*)\*(?!\*)", re.sub(r"\*\*[^*\n]+\*\*", "", text))
    return sum(bool(part.strip()) for part in double + single) >= num_highlights


@_rule("detectable_format:multiple_sections")
def number_of_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections that begin with the word and a number."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s+\d+", text)) >= num_sections


@_rule("detectable_format:json_format")
def is_json(text: str) -> bool:
    """All of it is JSON, in a fenced block or not."""
    inner = re.fullmatch(r"\s*```(?:json)?\s*(.*?)```\s*", text, re.DOTALL | re.IGNORECASE)
    try:
        json.loads(inner.group(1) if inner else text)
    except (ValueError, RecursionError):
        return False
    return True


@_rule("detectable_format:title")
def has_title(text: str) -> bool:
    """A title in double angular brackets, with a word."""
    return any(words(title) for title in re.findall(r"<<([^\n<>]+)>>", text))


@_rule("combination:two_responses")
def has_two_responses(text: str) -> bool:
    """Two different answers with six asterisks between."""
    parts = [part.strip() for part in text.split("******")]
    if parts and not parts[0]:
        parts = parts[1:]
    if parts and not parts[-1]:
        parts = parts[:-1]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


@_rule("combination:repeat_prompt")
def repeats_prompt(text: str, prompt_to_repeat: str) -> bool:
    """It begins with the prompt, whatever the case."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


@_rule("startend:end_checker")
def ends_with(text: str, end_phrase: str) -> bool:
    """It ends with the phrase, whatever its case; quotes around the answer do not count."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@_rule("startend:quotation")
def is_quoted(text: str) -> bool:
    """All of it stands in double quotes."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


@_rule("change_case:capital_word_frequency")
def capital_words(text: str, capital_frequency: int, capital_relation: str | None = None) -> bool:
    """At least, or less than, so many words in capitals alone."""
    return _compared(sum(word.isupper() for word in words(text)), capital_relation, capital_frequency)


@_rule("change_case:english_capital")
def is_upper(text: str) -> bool:
    """Every letter is a capital, and there is one."""
    return text.isupper()


@_rule("change_case:english_lowercase")
def is_lower(text: str) -> bool:
    """No letter is a capital, and there is one."""
    return text.islower()


@_rule("punctuation:no_comma")
def has_no_comma(text: str) -> bool:
    """There is no comma."""
    return _COMMAS.isdisjoint(text)


def _typed(kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a rule in the types that it takes: some files keep whole numbers as decimals.

    A rule may look at an argument only where an answer makes it; what is wrong with one is to be said before that.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    for name, value in given.items():
        wanted = RULES[kind].__annotations__.get(name)
        if wanted is int:
            if isinstance(value, bool) or not isinstance(value, Real) or value % 1 != 0:
                raise TypeError(f"{name} must be a whole number")
            given[name] = int(value)
        elif wanted in (str, str | None) and not isinstance(value, str):
            raise TypeError(f"{name} must be a text")
    return given


def follows(text: str, kind: str, arguments: Mapping[str, Any]) -> bool:
    """Whether an answer follows an instruction; an empty one follows none.

    Args:
        text: The answer.
        kind: A key of :data:`RULES`.
        arguments: Of the rule; those that are None are left out, as in IFEval's files.

    Raises:
        GadDataError: The kind is unknown, or the arguments are not those of the rule.
    """
    if kind not in RULES:
        raise GadDataError(f"no rule checks {kind!r}; those that are there: {', '.join(sorted(RULES))}")
    try:
        passed = RULES[kind](text, **_typed(kind, arguments))
    except (TypeError, ValueError, AttributeError, re.error) as error:
        given = {name: value for name, value in arguments.items() if value is not None}
        raise GadDataError(f"the rule {kind} cannot be asked with {given}: {error}") from None
    return bool(text.strip()) and passed
