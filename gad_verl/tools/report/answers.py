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
"""What held-out prompts were answered by several students: figures and texts side by side, as the page shows them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of words.

    Args:
        title: Above it.
        columns: Names of its columns, without that of the first one.
        rows: Name and cells.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Answer:
    """An answer of one writer; ``cut`` where it reached the limit."""

    writer: str
    text: str
    cut: bool = False


@dataclass(frozen=True)
class Asked:
    """A prompt with the answers to it, the teacher's first."""

    prompt: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Answers:
    """The section of a page.

    Args:
        about: What was asked of whom, in a sentence.
        tables: Figures, and paired differences.
        notes: What makes them less comparable.
        asked: Some prompts.
    """

    about: str
    tables: Sequence[Table]
    notes: Sequence[str]
    asked: Sequence[Asked]
