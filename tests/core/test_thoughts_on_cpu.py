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
"""A response taken apart by the places of its marks."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.core.thoughts import places, read_thoughts

# One character is a mark each: "<" opens, ">" closes.
BODIES = st.text(alphabet="<>ab \n", max_size=24)


def visible(body: str, begins_inside: bool, ended: bool) -> str | None:
    """The same by regular expressions."""
    text = ("<" if begins_inside else "") + body
    first = re.search("[<>]", text)
    if first is not None and first.group() == ">":
        text = text[first.end() :]
    text = re.sub(r"<[^>]*>", "", text) if first is not None else text
    before, mark, _ = text.partition("<")
    if mark and not (ended and before.strip()):
        return None
    return text if ended or text.strip() else None


@given(BODIES, st.booleans(), st.booleans())
def test_the_answer_is_what_stands_outside_of_blocks(body: str, begins_inside: bool, ended: bool) -> None:
    found = read_thoughts(
        len(body),
        places(body, "<"),
        places(body, ">"),
        begins_inside=begins_inside,
        ended=ended,
        is_blank=lambda begin, end: not body[begin:end].strip(),
    )
    text = None if found.answer is None else "".join(body[begin:end] for begin, end in found.answer)
    if text is not None and not ended and not text.strip():
        text = None
    expected = visible(body, begins_inside, ended)
    # White space before the answer belongs to nobody.
    assert (None if text is None else text.lstrip()) == (None if expected is None else expected.lstrip())
    # No position belongs to both, and of a response with an answer all that is no white space belongs to one.
    spans = sorted([*(found.answer or ()), *found.thoughts])
    assert all(begin < end for begin, end in spans)
    assert all(one[1] <= other[0] for one, other in zip(spans, spans[1:], strict=False))
    covered = {place for begin, end in spans for place in range(begin, end)}
    assert found.answer is None or all(char.isspace() for place, char in enumerate(body) if place not in covered)
    # Behind the lead the answer begins, and before it there is none.
    assert not any(begin < found.lead for begin, _ in found.answer or ())
    assert found.lead == 0 or any(end == found.lead for _, end in found.thoughts)


@given(st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_places_of_tokens_are_those_of_a_text(ids: list[int], mark: list[int]) -> None:
    found = places(ids, mark)
    assert found == places("".join(map(str, ids)), "".join(map(str, mark)))
    assert all(ids[begin:end] == mark for begin, end in found)
    # Where it is not found it is not there.
    left = "".join(map(str, ids))
    assert len(found) == left.count("".join(map(str, mark)))


def test_a_mark_of_nothing_stands_nowhere() -> None:
    assert places([1, 2], []) == [] and places("ab", "") == []


@pytest.mark.parametrize(
    ("body", "begins_inside", "ended", "answer"),
    [
        ("<why>so", False, True, "so"),
        ("why>so", True, True, "so"),
        ("so", False, True, "so"),
        ("<why", False, True, None),
        ("<why", False, False, None),
        ("why", True, True, None),
        ("<why>", False, True, ""),
        ("<why>", False, False, None),
        ("<why> \n", False, False, None),
        ("<a>x<b>y", False, True, "xy"),
        ("<a>x<b", False, False, None),
        ("<a>x<b", False, True, "x<b"),
        ("<a><b", False, True, None),
        ("<a<b>x", False, True, "x"),
        ("<a>x>y", False, True, "x>y"),
        ("a>x>y", False, True, "x>y"),
    ],
)
def test_cases_by_hand(body: str, begins_inside: bool, ended: bool, answer: str | None) -> None:
    assert visible(body, begins_inside, ended) == answer
    found = read_thoughts(
        len(body),
        places(body, "<"),
        places(body, ">"),
        begins_inside=begins_inside,
        ended=ended,
        is_blank=lambda begin, end: not body[begin:end].strip(),
    )
    text = None if found.answer is None else "".join(body[begin:end] for begin, end in found.answer)
    assert text == answer
