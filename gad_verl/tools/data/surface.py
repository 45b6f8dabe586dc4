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
"""Surface features of texts: what a discriminator could tell teacher from student by without reading either.

A feature is a number per text. Single features have a name that says what they are, because they are reported.
"""

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gad_verl.data.content import is_blank
from gad_verl.data.refusals import is_refusal
from gad_verl.tools.data.cleaning import clean, has_marker, strip_template, strip_thinking

# A first word, last character or language gets a feature of its own if this share of all texts has it.
MIN_SHARE = 0.02
MAX_VALUES = 12
LENGTH_BINS = 8
# Bytes of letters below which no language is guessed: of English sentences with 20 to 40 letters one in eight was given
# another language, from 60 on one in a hundred. Scripts of three bytes a letter say as much in fewer of them.
LANGUAGE_BYTES = 60
# So many texts that are the same are no chance.
SAME_TEXTS = 4
# A shorter text was hardly cut by a limit.
CUT_WORDS = 20


@dataclass(frozen=True)
class Feature:
    """A feature.

    Args:
        name: What it is, in words.
        kind: Its kind; findings of one kind are reported together.
        is_share: Whether it is 0 or 1 per text, so that its mean is a share.
        is_value: Whether it is one of several values of which each text has one, such as a first token.
    """

    name: str
    kind: str
    is_share: bool = True
    is_value: bool = False


_WORD = re.compile(r"\w+|[^\w\s]")
_LETTERS = re.compile(r"[^\W\d_]+")
_EMOJI = re.compile("[\u2600-\u27bf\U0001f300-\U0001faff]")


def _has(pattern: str, flags: re.RegexFlag = re.MULTILINE) -> Callable[[str], bool]:
    compiled = re.compile(pattern, flags)
    return lambda text: compiled.search(text) is not None


_SHARES: tuple[tuple[Feature, Callable[[str], bool]], ...] = (
    (Feature("begins with white space", "white space around"), lambda text: text[:1].isspace()),
    (Feature("ends with white space", "white space around"), lambda text: text[-1:].isspace()),
    (Feature("ends with a new line", "white space around"), lambda text: text.endswith("\n")),
    (Feature("carriage returns", "white space inside"), lambda text: "\r" in text),
    (Feature("blanks before a line end", "white space inside"), _has(r"[ \t]\n")),
    (Feature("two blanks in a line", "white space inside"), _has(r"\S  +\S")),
    (Feature("tabs", "white space inside"), lambda text: "\t" in text),
    (Feature("empty lines", "white space inside"), lambda text: "\n\n" in text),
    (Feature("several empty lines in a row", "white space inside"), lambda text: "\n\n\n" in text),
    (
        Feature("ends with . ! or ?", "end"),
        lambda text: text.rstrip(" \n\t\"')*`\u201d\u2019")[-1:] in tuple(".!?\u3002\uff01\uff1f"),
    ),
    (Feature("begins with a capital letter", "beginning"), lambda text: text.lstrip()[:1].isupper()),
    (Feature("markdown headings", "markdown"), _has(r"^#{1,6} ")),
    (Feature("markdown bold", "markdown"), _has(r"\*\*\S")),
    (Feature("bullet lists", "markdown"), _has(r"^\s*[-*\u2022] ")),
    (Feature("numbered lists", "markdown"), _has(r"^\s*\d{1,3}[.)] ")),
    (Feature("code blocks", "markdown"), lambda text: "```" in text),
    (Feature("inline code", "markdown"), _has(r"(?<!`)`[^`\n]+`(?!`)")),
    (Feature("tables", "markdown"), _has(r"^\|.*\|\s*$")),
    (Feature("horizontal rules", "markdown"), _has(r"^(?:-{3,}|\*{3,})\s*$")),
    (Feature("links", "markdown"), _has(r"\[[^\]\n]+\]\([^)\n]+\)")),
    (Feature("formulas", "markdown"), _has(r"\\\(|\\\[|\$\$|\\frac")),
    (Feature("typographic quotes", "characters"), _has("[\u2018\u2019\u201c\u201d]")),
    (Feature("long dashes", "characters"), _has("[\u2013\u2014]")),
    (Feature("emoji", "characters"), lambda text: _EMOJI.search(text) is not None),
    (Feature("no-break or other odd blanks", "characters"), _has("[\u00a0\u2000-\u200b\u202f\u3000\ufeff]")),
    (Feature("broken characters (U+FFFD)", "characters"), lambda text: "\ufffd" in text),
    (Feature("Unicode not composed (NFC)", "characters"), lambda text: not unicodedata.is_normalized("NFC", text)),
    (Feature("template remains at an end", "template"), lambda text: strip_template(text).strip() != text.strip()),
    (Feature("special tokens as text", "template"), has_marker),
    (Feature("thinking block", "thinking"), lambda text: strip_thinking(text) != text),
    (Feature("refusal", "refusals"), is_refusal),
    (Feature("empty text", "length"), is_blank),
)

_NUMBERS: tuple[tuple[Feature, Callable[[str], float]], ...] = (
    (Feature("characters", "length", is_share=False), lambda text: len(text)),
    (Feature("words", "length", is_share=False), lambda text: len(text.split())),
    (Feature("lines", "length", is_share=False), lambda text: text.strip().count("\n") + 1),
    (
        Feature("share of non-ASCII characters", "characters", is_share=False),
        lambda text: sum(char > "\x7f" for char in text) / max(1, len(text)),
    ),
)


def _first_token(text: str) -> str:
    match = _WORD.search(text)
    return match[0] if match else ""


def _first_two(text: str) -> str:
    tokens = _WORD.findall(text[:200])[:2]
    return " ".join(tokens)


def _last_token(text: str) -> str:
    tokens = _WORD.findall(text[-200:])
    return tokens[-1] if tokens else ""


_CATEGORIES: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("first character", "beginning", lambda text: text[:1]),
    ("first token", "beginning", _first_token),
    ("first two tokens", "beginning", _first_two),
    ("last token", "end", _last_token),
    ("last character", "end", lambda text: text[-1:]),
)


def languages(texts: Sequence[str]) -> list[str | None]:
    """ISO 639-1 code of each text's language (py3langid); None for a short text, which has none that could be told."""
    import py3langid

    found = []
    for text in tqdm(texts, desc="Languages", unit="text", delay=2, mininterval=1):
        sample = text[:600]
        letters = len("".join(filter(str.isalpha, sample)).encode("utf-8", "replace"))
        found.append(str(py3langid.classify(sample)[0]) if letters >= LANGUAGE_BYTES else None)
    return found


def repeated(texts: Sequence[str]) -> list[bool]:
    """Whether :data:`SAME_TEXTS` texts or more are the same as this one, itself among them."""
    stripped = [text.strip() for text in texts]
    counts = Counter(stripped)
    return [counts[text] >= SAME_TEXTS for text in stripped]


def broken_words(texts: Sequence[str]) -> list[bool]:
    """Whether a text ends with the beginning of a word: one that no other text has, but as a part of longer ones."""
    words = [_LETTERS.findall(text.lower()) for text in texts]
    ends = [bool(text) and text[-1].isalpha() for text in texts]
    known = sorted({word for found, end in zip(words, ends, strict=True) for word in (found[:-1] if end else found)})

    def is_broken(word: str) -> bool:
        place = bisect_left(known, word)
        return place < len(known) and known[place] != word and known[place].startswith(word)

    return [end and len(found) >= CUT_WORDS and is_broken(found[-1]) for found, end in zip(words, ends, strict=True)]


@dataclass(frozen=True)
class FeatureTable:
    """Features of many texts.

    Args:
        features: What the columns are.
        values: A row a text, a column a feature; lengths as they are; NaN where a text is too short to tell.
        for_model: The same for the model: logarithms of lengths, lengths in bins besides, and the mean instead of NaN.
    """

    features: list[Feature]
    values: NDArray[np.float64]
    for_model: NDArray[np.float64]


def _one_hot(name: str, kind: str, found: Sequence[str]) -> tuple[list[Feature], list[NDArray[np.float64]]]:
    """A column for each frequent value."""
    column = np.array(found, dtype=object)
    # Ties by the value itself: the table must not depend on the order of the texts.
    frequent = sorted(Counter(found).items(), key=lambda item: (-item[1], item[0]))[:MAX_VALUES]
    kept = [value for value, count in frequent if value != "" and count >= max(3, MIN_SHARE * len(found))]
    features = [Feature(f"{name} {value!r}", kind, is_value=True) for value in kept]
    return features, [(column == value).astype(np.float64) for value in kept]


def feature_table(texts: Sequence[str], unfinished: Sequence[bool] | None = None) -> FeatureTable:
    """All features of the texts of both sides.

    Which values get a column is decided on all texts together, without looking at their side.

    Args:
        texts: Teacher's and student's.
        unfinished: Whether a text was cut by a limit on its length; None where that is not known of all.
    """
    features = [feature for feature, _ in _SHARES] + [feature for feature, _ in _NUMBERS]
    columns = [np.array([float(measure(text)) for text in texts]) for _, measure in (*_SHARES, *_NUMBERS)]
    # White space and template remains have features of their own: here they would only be found once more.
    bare = [clean(text, ("thinking", "template", "whitespace")).text for text in texts]
    for name, kind, pick in _CATEGORIES:
        more, one_hot = _one_hot(name, kind, [pick(text) for text in bare])
        features += more
        columns += one_hot
    spoken = languages(texts)
    more, one_hot = _one_hot("language", "language", [language or "" for language in spoken])
    unknown = np.array([language is None for language in spoken])
    features += more
    columns += [np.where(unknown, np.nan, column) for column in one_hot]
    for name, kind, found in (
        (f"the same text as {SAME_TEXTS - 1} others or more", "repeated texts", repeated(texts)),
        ("ends in the middle of a word", "finish", broken_words(texts)),
    ):
        features.append(Feature(name, kind))
        columns.append(np.array(found, dtype=np.float64))
    if unfinished is not None:
        features.append(Feature("stopped by the length limit", "finish"))
        columns.append(np.array(unfinished, dtype=np.float64))
    values = np.stack(columns, axis=1)
    for_model = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
    for number, feature in enumerate(features):
        if feature.kind == "length" and not feature.is_share:
            for_model[:, number] = np.log1p(values[:, number])
    return FeatureTable(features, values, np.hstack([for_model, _length_bins(values, features)]))


def _length_bins(values: NDArray[np.float64], features: Sequence[Feature]) -> NDArray[np.float64]:
    """Bins of the number of characters: a side that is always middling long differs in no mean."""
    place = next(number for number, feature in enumerate(features) if feature.name == "characters")
    lengths = values[:, place]
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, LENGTH_BINS + 1)[1:-1]))
    bins = np.digitize(lengths, edges)
    return (bins[:, None] == np.arange(len(edges) + 1)).astype(np.float64)
