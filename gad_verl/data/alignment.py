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
"""Which characters of a text each token covers, to carry values from one tokenization of a text to another."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gad_verl.core.token_credit import PHRASE, SENTENCE, value_credit

# A unit ends behind its mark, closing quotes and brackets, and the white space that follows. Chinese and Japanese write
# none: their marks (and those of Hindi) stand for themselves.
_CLOSING = "[\"\u201d\u2019'\u00bb)\\]\u300d\u300f\uff09]*"


def _ends_of_units(marks: str, wide_marks: str) -> "re.Pattern[str]":
    return re.compile(f"(?:[{marks}]+{_CLOSING}(?=\\s|$)|[{wide_marks}]+{_CLOSING}|\n)\\s*")


_WIDE_SENTENCE = "\u3002\uff01\uff1f\uff61\u0964"
_UNIT_ENDS = {
    SENTENCE: _ends_of_units(".!?\u2026", _WIDE_SENTENCE),
    PHRASE: _ends_of_units(".!?\u2026,;:", f"{_WIDE_SENTENCE}\uff0c\u3001\uff1b\uff1a"),
}


def token_ends(tokenizer: Any, token_ids: Sequence[int], text: str, extra: int) -> list[int] | None:
    """Position in ``text`` behind each token.

    Args:
        tokenizer: A fast tokenizer of transformers.
        token_ids: Tokens of the text, followed by ``extra`` tokens that stand for none of it (EOS).
        text: The text.
        extra: Their number; they end behind the text, so that none of them is mistaken for its last token.

    Returns:
        One position per token, or None where the tokens are not those that the tokenizer makes of the text (a sampled
        text may be spelled by other tokens) or it is no fast one.
    """
    if not getattr(tokenizer, "is_fast", False):
        return None
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    count = len(token_ids) - extra
    if list(encoded["input_ids"]) != list(token_ids[:count]):
        return None
    return [end for _, end in encoded["offset_mapping"]] + [len(text) + 1] * extra


def carry_values(values: Tensor, ends: Sequence[int], target_ends: Sequence[int], start: float) -> Tensor:
    """Values of one tokenization at the tokens of another.

    A token of the target gets the value at the last token that ends where it ends or before, and ``start`` where there
    is none. The last one gets the last value: the score of the sequence is never lost.

    Args:
        values: (T,).
        ends: T positions in the text, not falling.
        target_ends: Positions of the target's tokens.
        start: Value before the first token.
    """
    carried = values.new_full((len(target_ends),), start)
    for place, position in enumerate(target_ends):
        last = bisect_right(ends, position) - 1
        if last >= 0:
            carried[place] = values[last]
    if len(target_ends):
        carried[-1] = values[-1]
    return carried


def unit_ends(text: str, ends: Sequence[int], unit: str) -> list[int]:
    """Tokens with which the sentences or phrases of a text end.

    Args:
        text: The text.
        ends: Position behind each token.
        unit: ``sentence`` (ends at . ! ? and line breaks) or ``phrase`` (also at , ; :).

    Returns:
        Rising positions in ``ends``; what follows the last of them is one more unit.
    """
    found: list[int] = []
    for match in _UNIT_ENDS[unit].finditer(text):
        # The white space behind a unit may belong to the next token.
        mark = match.start() + len(match.group().rstrip()) if match.group().strip() else match.end()
        token = next((place for place, end in enumerate(ends) if end >= mark), None)
        if token is not None and (not found or token > found[-1]):
            found.append(token)
    return found


def credit_of_response(
    values: Tensor,
    prompt_value: float,
    reader_ends: Sequence[int] | None,
    student_ends: Sequence[int] | None,
    same_tokens: bool,
) -> Tensor | None:
    """Credit of each token of the student: its share of the score.

    Args:
        values: Discriminator's values at its tokens of the response.
        prompt_value: Its value at the end of the prompt.
        reader_ends, student_ends: :func:`token_ends` of both tokenizations.
        same_tokens: Whether both have the same tokens.

    Returns:
        Credit that sums to the score less ``prompt_value``; None where the tokenizations cannot be aligned.
    """
    if same_tokens:
        return value_credit(values, prompt_value)
    if reader_ends is None or student_ends is None or len(reader_ends) != len(values):
        return None
    if not reader_ends or not student_ends:
        return None
    return value_credit(carry_values(values, reader_ends, student_ends, prompt_value), prompt_value)
