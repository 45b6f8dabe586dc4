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
"""What is to be known of an answer before one trains on it."""

from collections.abc import Collection

from gad_verl.data.content import is_blank
from gad_verl.data.refusals import is_refusal
from gad_verl.tools.api.requests import ChatAnswer

EMPTY, REFUSAL, LENGTH, FILTERED = MARKS = ("empty", "refusal", "length", "filtered")


def marks_of(answer: ChatAnswer) -> tuple[str, ...]:
    """The marks of an answer, of :data:`MARKS`.

    Shows nothing; refuses to answer; stopped by its length; stopped by a filter, which leaves nothing of it
    or half an answer.
    """
    if answer.finish_reason == "content_filter":
        return (FILTERED,)
    marks = []
    if is_blank(answer.text):
        marks.append(EMPTY)
    if answer.finish_reason == "refusal" or is_refusal(answer.text):
        marks.append(REFUSAL)
    if answer.finish_reason == "length":
        marks.append(LENGTH)
    return tuple(marks)


def is_useless(marks: Collection[str]) -> bool:
    """Whether nobody can train on an answer: it says nothing, or a filter has cut it."""
    return EMPTY in marks or FILTERED in marks
