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
"""Work of forward and backward passes in multiply-adds, from shapes alone. Measured: docs/performance.md."""

from collections.abc import Sequence
from dataclasses import dataclass


def shared_lengths(row_lengths: Sequence[int], prompt_length: int) -> list[int]:
    """Tokens that each row takes from the prompt; 0 for placeholders, which are shorter than it."""
    return [prompt_length if length >= prompt_length else 0 for length in row_lengths]


def packed_length(row_lengths: Sequence[int], prompt_length: int) -> int:
    """Tokens of a packed group."""
    return prompt_length + sum(row_lengths) - sum(shared_lengths(row_lengths, prompt_length))


@dataclass(frozen=True)
class CostModel:
    """Work of a forward pass in multiply-adds.

    An attention that is given a mask computes masked pairs too. Rows of one length need no mask beside the causal one,
    of which kernels skip the empty half. Measured and predicted: docs/performance.md.

    Args:
        per_token: Of the matrices, per token: the number of their parameters.
        per_pair: Of attention, per pair of query and key: twice the width of all heads of all layers.
    """

    per_token: float
    per_pair: float

    def work(self, sequences: int, tokens: int, causal: bool = False) -> float:
        """Of ``sequences`` rows of ``tokens`` tokens; ``causal`` if no other mask is needed."""
        pairs = tokens**2 / 2 if causal else tokens**2
        return sequences * (self.per_token * tokens + self.per_pair * pairs)

    def separate(self, lengths: Sequence[Sequence[int]], padded: bool) -> float:
        """Of the rows of all groups by themselves; the arguments are those of :meth:`sharing_pays`."""
        flat = [length for group in lengths for length in group]
        if not padded:
            return self.work(1, sum(flat))
        return self.work(len(flat), max(flat), causal=min(flat) == max(flat))

    def shared(self, lengths: Sequence[Sequence[int]], prompt_lengths: Sequence[int]) -> float:
        """Of the packed groups."""
        packed = [packed_length(group, prompt) for group, prompt in zip(lengths, prompt_lengths, strict=True)]
        return self.work(len(packed), max(packed))

    def sharing_pays(self, lengths: Sequence[Sequence[int]], prompt_lengths: Sequence[int], padded: bool) -> bool:
        """Whether packed groups cost less than separate rows.

        Args:
            lengths: Row lengths of each group.
            prompt_lengths: One per group.
            padded: Separate rows are padded to the longest of the micro-batch; else they are one sequence with a
                block mask (``use_remove_padding``).
        """
        return self.shared(lengths, prompt_lengths) < self.separate(lengths, padded)
