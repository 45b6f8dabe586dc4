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
"""Which part of a sequence's score each token or phrase brought: differences of the discriminator's value.

The discriminator gives a value at every token; the score of the sequence is the value at the last one. The differences
of the values along the response sum to that score.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# What credit may be summed over (gad_verl.data.alignment finds where each ends).
SENTENCE, PHRASE, TURN = "sentence", "phrase", "turn"
UNITS = (SENTENCE, PHRASE, TURN)


def value_credit(values: Tensor, start: float = 0.0) -> Tensor:
    """Difference of the value at each token to the one before.

    Args:
        values: (T,) values along a response.
        start: Value before the first token. 0 makes the credit sum to the score; the value at the end of the prompt
            makes it sum to the score less that value, which is the same for all responses to a prompt.
    """
    before = torch.cat([values.new_full((1,), start), values[:-1]])
    return values - before


def sum_by_segment(credit: Tensor, ends: Sequence[int]) -> Tensor:
    """Move the credit of each segment to its last token; the sum stays.

    Args:
        credit: (T,).
        ends: Positions of the last token of each segment, rising; tokens after the last of them are one more segment.

    Raises:
        ValueError: If the positions do not rise or lie outside.
    """
    result = torch.zeros_like(credit)
    if len(credit) == 0:
        return result
    begin = 0
    for end in [*ends, len(credit) - 1]:
        if end == len(credit) - 1 and begin == len(credit):
            break
        if not begin <= end < len(credit):
            raise ValueError(f"ends of segments must rise within 0..{len(credit) - 1}; got {list(ends)}")
        result[end] = credit[begin : end + 1].sum()
        begin = end + 1
    return result


def mix_granularities(
    reward: float, credit: Tensor, ends: Sequence[int], sequence: float, phrase: float, token: float, last: int = -1
) -> Tensor:
    """Token-level rewards: the sequence's on the last token, those of phrases on their last tokens, those of tokens.

    Args:
        reward: Of the sequence.
        credit: (T,) credit that sum to the score.
        ends: Last tokens of the phrases (:func:`sum_by_segment`).
        sequence, phrase, token: Weights of the three.
        last: Position of the last token that was sampled.

    Returns:
        (T,) with sum ``sequence * reward + (phrase + token) * credit.sum()``.
    """
    result = token * credit + phrase * sum_by_segment(credit, ends)
    result[last] += sequence * reward
    return result
