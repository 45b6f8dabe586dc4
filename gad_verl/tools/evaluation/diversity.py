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
"""How varied texts are: distinct n-grams over all of them, repetition inside of each."""

from collections import Counter
from collections.abc import Iterable

from gad_verl.data.overlap import ngrams, words

# Four words in a row seldom come twice in one text unless it goes round in circles.
REPETITION_N = 4


def distinct(texts: Iterable[str], n: int) -> float | None:
    """Distinct-n (Li et al. 2016): different n-grams of words over all n-grams, of all texts together.

    It falls as the amount of text grows: compare it at similar lengths only.

    Returns:
        Above 0, at most 1; None if no text has n words.
    """
    together: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        together.update(ngrams(words(text), n))
    return len(together) / together.total() if together else None


def self_repetition(text: str, n: int = REPETITION_N) -> float:
    """Share of the n-grams of words that have occurred in the same text before: 1 - different / all.

    0 for a text without repetition or with less than n words; near 1 for one that goes round in circles.
    """
    counts = ngrams(words(text), n)
    return 1 - len(counts) / counts.total() if counts else 0.0
