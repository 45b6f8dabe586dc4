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
"""Which part of a response is thoughts and which is the answer that a reader sees.

Works on positions alone, of tokens or of characters: where the marks stand is found by :func:`places`, what follows
from it by :func:`read_thoughts`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Half-open: from, to.
Span = tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """A response taken apart.

    Args:
        answer: What stands outside of thoughts, in order; None where the response ends inside of its thoughts, or was
            cut before its answer began.
        thoughts: The thoughts, their marks included, in order.
        lead: Behind the thoughts with which the response begins; 0 where it begins with none, or they never end.
        inside: Whether it ends inside of its thoughts.
    """

    answer: tuple[Span, ...] | None
    thoughts: tuple[Span, ...]
    lead: int
    inside: bool


def places(sequence: Sequence, mark: Sequence) -> list[Span]:
    """Where a mark stands in a sequence, from left to right and without overlap; a mark of nothing stands nowhere."""
    size = len(mark)
    if size == 0:
        return []
    if isinstance(sequence, str) and isinstance(mark, str):
        # Texts have a search of their own, which is far faster.
        found, begin = [], sequence.find(mark)
        while begin >= 0:
            found.append((begin, begin + size))
            begin = sequence.find(mark, begin + size)
        return found
    found, begin, last = [], 0, len(sequence) - size
    wanted = list(mark)
    while begin <= last:
        if sequence[begin] == wanted[0] and list(sequence[begin : begin + size]) == wanted:
            found.append((begin, begin + size))
            begin += size
        else:
            begin += 1
    return found


def _is_empty(begin: int, end: int) -> bool:
    return begin >= end


def read_thoughts(
    length: int,
    opens: Sequence[Span],
    closes: Sequence[Span],
    *,
    begins_inside: bool,
    ended: bool,
    is_blank: Callable[[int, int], bool] = _is_empty,
) -> Reading:
    """Take a response apart by the places of its marks.

    - Within thoughts another opening mark means nothing; the first closing mark ends them.
    - A closing mark without an opening one, as the first mark of a response, ends thoughts with which it began.
    - Any other lone closing mark is a part of the answer: it quotes the mark.
    - An opening mark behind the beginning of an answer, never closed, is a quote where the response ended by itself;
      where it was cut, it opened thoughts.

    Args:
        length: Of the response without its end-of-text token.
        opens, closes: Places of the marks (:func:`places`).
        begins_inside: Whether the prompt has opened the thoughts.
        ended: Whether the response ended by itself; else a limit cut it.
        is_blank: Whether what stands between two positions is white space, and so no beginning of an answer.
    """
    answer: list[Span] = []
    thoughts: list[Span] = []
    # Where the present part begins, and whether it is thoughts.
    begin, inside, lead, has_marks = 0, begins_inside, 0, begins_inside
    marks = sorted([*((start, end, True) for start, end in opens), *((start, end, False) for start, end in closes)])
    for start, end, is_open in marks:
        if start < begin:
            # Marks of which one holds the other.
            continue
        if inside and not is_open:
            thoughts.append((begin, end))
            if not answer:
                lead = end
            begin, inside = end, False
        elif not inside and is_open:
            if begin < start and (answer or not is_blank(begin, start)):
                answer.append((begin, start))
            begin, inside = start, True
        elif not inside and not has_marks:
            thoughts.append((0, end))
            begin = lead = end
        has_marks = True
    if inside and ended and answer:
        # What looked like an opening mark belongs to the answer that goes on there.
        if answer[-1][1] == begin:
            begin = answer.pop()[0]
        inside = False
    if inside:
        return Reading(None, (*thoughts, *([(begin, length)] if begin < length else [])), lead, True)
    if begin < length and (answer or not is_blank(begin, length)):
        answer.append((begin, length))
    return Reading(tuple(answer) if answer or ended else None, tuple(thoughts), lead, False)
