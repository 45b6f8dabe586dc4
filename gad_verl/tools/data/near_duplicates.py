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
"""Groups of near-duplicate texts, by MinHash (datasketch) over character 5-grams.

The groups depend on the set of texts alone, not on their order: the same pairs are found and checked in any order, and
a group is a connected component of them.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

SHINGLE = 5
PERMUTATIONS = 128
# Texts that share a bucket are compared pair by pair up to this number; larger buckets are joined without a look.
BUCKET_LIMIT = 4000
# Chance that a pair exactly at the threshold is found.
RECALL = 0.999
# Standard errors of the estimate by which a pair may fall short of the threshold.
MARGIN = 3.0

_SPACE = re.compile(r"\s+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def normal_form(text: str) -> str:
    """Text for comparisons: NFKC, lower case, one blank for any white space."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def _combine(columns: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """One hash of 64 bits for each row of the columns."""
    hashes = np.uint64(0)
    with np.errstate(over="ignore"):
        for column in columns:
            hashes = (hashes ^ column) * _MULTIPLIER
            hashes = hashes ^ (hashes >> np.uint64(29))
    return hashes


def shingles(text: str) -> NDArray[np.uint64]:
    """Distinct hashes (32 bits) of all character 5-grams; a shorter text is one shingle."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(codes) == 0:
        return np.zeros(1, dtype=np.uint64)
    size = min(SHINGLE, len(codes))
    count = len(codes) - size + 1
    return np.unique(_combine([codes[offset : offset + count] for offset in range(size)]) >> np.uint64(32))


def rows_per_band(threshold: float) -> int:
    """Most rows per band that still find a pair at the threshold with :data:`RECALL`."""
    fitting = [
        rows for rows in range(1, PERMUTATIONS + 1) if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL
    ]
    return max(fitting, default=1)


def signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """MinHash signatures, one row a text."""
    from datasketch import MinHash

    # The shingles are hashes already. The permutations are drawn once, by a fixed seed.
    sketch = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)
    result = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    for number, text in enumerate(tqdm(texts, desc="Hashing", unit="prompt", delay=2, mininterval=1)):
        sketch.clear()
        sketch.update_batch(shingles(text).tolist())
        result[number] = sketch.hashvalues
    return result


@dataclass(frozen=True)
class Groups:
    """Groups of near-duplicates.

    Args:
        labels: Number of the group of each text.
        unchecked: Buckets that were joined without comparing their texts.
    """

    labels: NDArray[np.int64]
    unchecked: int


def _bucket_pairs(members: NDArray[np.int64], sketches: NDArray[np.uint32], threshold: float) -> list[NDArray]:
    """Pairs of a bucket whose estimated similarity reaches the threshold."""
    pairs = []
    for place in range(len(members) - 1):
        rest = members[place + 1 :]
        similarity = (sketches[rest] == sketches[members[place]]).mean(axis=1)
        close = rest[similarity >= threshold]
        if len(close):
            pairs.append(np.stack([np.full(len(close), members[place]), close], axis=1))
    return pairs


def group_near_duplicates(texts: Sequence[str], threshold: float) -> Groups:
    """Put every two texts whose 5-grams have a Jaccard similarity of ``threshold`` or more into one group.

    The similarity is estimated from 128 hashes (standard error 0.035 at 0.8). Pairs up to three standard errors below
    the threshold are joined too, so that none above it is missed: too large a group does no harm, a leak does.

    Args:
        texts: Distinct texts in normal form.
        threshold: Between 0 and 1; 1 leaves every text alone.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(texts)
    if threshold >= 1 or count < 2:
        return Groups(np.arange(count), 0)
    sketches = signatures(texts)
    width = rows_per_band(threshold)
    pairs: list[NDArray] = []
    unchecked = 0
    margin = MARGIN * (threshold * (1 - threshold) / PERMUTATIONS) ** 0.5
    for start in range(0, PERMUTATIONS - width + 1, width):
        keys = _combine(sketches[:, start : start + width].astype(np.uint64).T)
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]])
        sizes = np.diff(np.r_[starts, count])
        for bucket in np.flatnonzero(sizes > 1):
            members = order[starts[bucket] : starts[bucket] + sizes[bucket]]
            if len(members) > BUCKET_LIMIT:
                unchecked += 1
                pairs.append(np.stack([np.full(len(members) - 1, members[0]), members[1:]], axis=1))
            else:
                pairs.extend(_bucket_pairs(members, sketches, threshold - margin))
    edges = np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)
    graph = coo_array((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return Groups(connected_components(graph, directed=False)[1].astype(np.int64), unchecked)
