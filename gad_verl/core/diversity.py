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
"""How varied the rollouts of a step are, from token ids: what the guardian's rules on collapse read.

The n-grams are numbered and counted in numpy. sacrebleu gives the same self-BLEU, and takes too long for every step:
docs/guardian.md has both times.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

# BLEU counts n-grams up to this length.
BLEU_ORDER = 4

# Four tokens in a row seldom come twice in one text unless it goes round in circles.
REPETITION_ORDER = 4

# Self-BLEU and repetition look at no more groups than this, evenly spread over the batch.
MOST_GROUPS = 32

Ids = Sequence[int]
Group = TypeVar("Group")
_Array = NDArray[np.int64]


def _flat(responses: Sequence[Ids]) -> tuple[_Array, _Array]:
    """All tokens one after another, and the response each belongs to."""
    lengths = [len(ids) for ids in responses]
    tokens = np.fromiter(chain.from_iterable(responses), dtype=np.int64, count=sum(lengths))
    return tokens, np.repeat(np.arange(len(responses)), lengths)


def _ngram_counts(responses: Sequence[Ids], highest: int) -> Iterator[_Array]:
    """For n = 1 .. ``highest``: how often each n-gram occurs in each response, shape (responses, different n-grams)."""
    tokens, owners = _flat(responses)
    kinds, base = np.unique(tokens, return_inverse=True)
    starts, numbered = np.arange(len(tokens)), base
    for n in range(1, highest + 1):
        if n > 1:
            # An n-gram lies in one response: it begins and ends in the same.
            inside = starts + n - 1 < len(tokens)
            inside[inside] = owners[starts[inside]] == owners[starts[inside] + n - 1]
            starts = starts[inside]
            longer = numbered[inside] * len(kinds) + base[starts + n - 1]
            numbered = np.unique(longer, return_inverse=True)[1]
        width = int(numbered.max()) + 1 if len(numbered) else 0
        places = owners[starts] * width + numbered
        yield np.bincount(places, minlength=len(responses) * width).reshape(len(responses), width)


def _closest_lengths(lengths: _Array) -> _Array:
    """Of each response, the length of the other one that is nearest; of two equally near, the shorter."""
    distances = np.abs(lengths[:, None] - lengths[None, :])
    np.fill_diagonal(distances, np.iinfo(np.int64).max // 2)
    nearest = distances.min(axis=1, keepdims=True)
    return np.where(distances == nearest, lengths[None, :], np.iinfo(np.int64).max).min(axis=1)


def self_bleu(responses: Sequence[Ids]) -> float:
    """Mean BLEU-4 of each response with all the others as references (Zhu et al. 2018): 1 where all are the same.

    As sacrebleu's sentence BLEU with the effective order and its default smoothing ("exp").

    Args:
        responses: Token ids of at least two responses to one prompt.

    Returns:
        Between 0 and 1. Two empty responses count as the same.

    Raises:
        ValueError: With fewer than two responses.
    """
    if len(responses) < 2:
        raise ValueError(f"self-BLEU compares at least two responses; got {len(responses)}")
    count = len(responses)
    lengths = np.array([len(ids) for ids in responses], dtype=np.int64)
    logs, orders, halvings = np.zeros(count), np.zeros(count), np.zeros(count)
    matched_any = np.zeros(count, dtype=bool)
    for counts in _ngram_counts(responses, BLEU_ORDER):
        if counts.shape[1] == 0:
            break
        # An n-gram counts as often as the one reference has it that has it most often.
        top = np.partition(counts, count - 2, axis=0)
        highest, second = top[-1], top[-2]
        # Without itself: where a response has the most, the next most (as many, where two have the most).
        others = np.where(counts == highest, second, highest)
        matched, total = np.minimum(counts, others).sum(axis=1), counts.sum(axis=1)
        has = total > 0
        matched_any |= matched > 0
        halvings += has & (matched == 0)
        shares = np.where(matched > 0, matched, 0.5**halvings) / np.maximum(total, 1)
        logs += np.where(has, np.log(shares), 0.0)
        orders += has
    closest = _closest_lengths(lengths)
    brevity = np.minimum(1.0, np.exp(1 - closest / np.maximum(lengths, 1)))
    scores = np.where(matched_any, brevity * np.exp(logs / np.maximum(orders, 1)), 0.0)
    scores[lengths == 0] = float((lengths == 0).sum() > 1)
    return float(scores.mean())


def repetition(ids: Ids, n: int = REPETITION_ORDER) -> float:
    """Share of the n-grams that have occurred in the same text before: 1 - different / all.

    0 with fewer than n tokens.
    """
    total = len(ids) - n + 1
    if total < 1:
        return 0.0
    return 1 - len({tuple(ids[start : start + n]) for start in range(total)}) / total


def distinct(responses: Sequence[Ids], n: int = 2) -> float | None:
    """Distinct-n (Li et al. 2016): different n-grams over all n-grams of all responses; None if none has n tokens.

    It falls as the amount of text grows: compare it at similar lengths only.
    """
    ends = np.cumsum([len(ids) for ids in responses], dtype=np.int64)
    count = int(ends[-1]) - n + 1 if len(ends) else 0
    if count < 1:
        return None
    # The only one of these that sees all tokens of a batch at once: few bytes for each of them.
    tokens = np.fromiter(chain.from_iterable(responses), dtype=np.int32, count=int(ends[-1]))
    # An n-gram lies in one response: it spans no end.
    inside = np.ones(count, dtype=bool)
    for back in range(1, n):
        spans = ends - back
        inside[spans[(spans >= 0) & (spans < count)]] = False
    size = int(tokens.max()) + 1
    numbered = tokens[:count].astype(np.int64)
    for place in range(1, n):
        if place > 1:
            # Small numbers again, before they are multiplied once more.
            numbered = np.unique(numbered, return_inverse=True)[1]
        numbered *= size
        numbered += tokens[place : place + count]
    numbered = numbered[inside]
    if not len(numbered):
        return None
    # Sorting is several times as fast as numpy's own count of different values, which hashes.
    numbered.sort()
    return (1 + np.count_nonzero(numbered[1:] != numbered[:-1])) / len(numbered)


def spread_out(groups: Sequence[Group], most: int = MOST_GROUPS) -> list[Group]:
    """At most so many groups, evenly spread: the same ones for the same batch."""
    count = len(groups)
    return list(groups) if count <= most else [groups[place * count // most] for place in range(most)]


def rollout_diversity(students: Sequence[Sequence[Ids]], teachers: Sequence[Ids]) -> dict[str, float]:
    """Diversity of the rollouts of a step.

    Args:
        students: Token ids of the responses to each prompt; failed ones are left out.
        teachers: Token ids of the teacher's text to each prompt.

    Returns:
        ``distinct_2`` (of all responses together), ``self_bleu`` (mean over the groups with two responses or more),
        ``repetition`` and ``teacher_repetition`` (means over texts); each only where there is something to count.
        All but the first look at :data:`MOST_GROUPS` groups.
    """
    result: dict[str, float] = {}
    distinct_2 = distinct([ids for group in students for ids in group])
    if distinct_2 is not None:
        result["distinct_2"] = distinct_2
    pairs = [group for group in students if len(group) >= 2]
    if pairs:
        bleus = [self_bleu(group) for group in spread_out(pairs)]
        result["self_bleu"] = sum(bleus) / len(bleus)
    sides = {"repetition": [ids for group in spread_out(students) for ids in group]}
    sides["teacher_repetition"] = spread_out(teachers)
    for name, texts in sides.items():
        if texts:
            result[name] = sum(repetition(ids) for ids in texts) / len(texts)
    return result
