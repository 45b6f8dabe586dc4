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
"""How much of the teacher's words a text shares. The one place for training's validation and ``gad-verl evaluate``.

Words are lower-case runs of letters and digits of any script; a character of a script that is written without spaces
(Chinese, Japanese, Thai ...) is a word of its own. On ASCII texts these are exactly the words of ``rouge-score``, whose
own tokenizer finds none in other scripts.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import regex

# Han, Kana, Bopomofo, Thai, Lao, Khmer, Myanmar: no spaces between words.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3100-\u312f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# A mark, such as a vowel sign of Devanagari, belongs to the letter before it.
_WORD = regex.compile(rf"[{UNSPACED}]\p{{M}}*|(?:[^\W_{UNSPACED}]\p{{M}}*)+")


def words(text: str) -> list[str]:
    """The words of a text, in order, however its letters with marks are spelled in Unicode."""
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


class _Words:
    """The interface of rouge-score's tokenizers."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    # Brings NLTK, half a second of every start: only where a text is compared.
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_Words())


def rouge_l(reference: str, text: str) -> float:
    """ROUGE-L F1 (Lin 2004): F1 of the longest common subsequence of words, between 0 and 1.

    Two texts without any word get 1 if they are equal and 0 otherwise.
    """
    if not words(reference) and not words(text):
        return float(reference.strip() == text.strip())
    return _scorer().score(reference, text)["rougeL"].fmeasure


def ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram occurs.

    Raises:
        ValueError: If n is below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n}")
    return Counter(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))


def ngram_f1(reference: str, text: str, n: int) -> float | None:
    """F1 of the n-grams of words: 2 |common| / (|of the text| + |of the reference|).

    ``|common|`` counts an n-gram as often as it occurs in both (clipped counts, as ROUGE-N does).

    Returns:
        Between 0 and 1; 0 if only one of the texts is long enough for an n-gram, None if neither is.
    """
    ours, theirs = ngrams(words(text), n), ngrams(words(reference), n)
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else None
