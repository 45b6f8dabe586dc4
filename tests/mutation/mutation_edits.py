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
"""Changes of a text, named by the nodes of its syntax tree."""

import ast
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One piece of text to put in; see ``mutation_kinds.Mutant``."""

    line: int
    statement: int
    place: str
    kind: str
    start: int
    end: int
    new: str


class Edits:
    """Collects changes of a text. Places are counted in bytes, as the syntax tree does.

    Attributes:
        changes: The collected ones.
        statement: First line of the statement that is looked at.
        place: Names of the classes and functions around it.
    """

    def __init__(self, text: str) -> None:
        self.changes: list[Change] = []
        self.statement = 1
        self.place: list[str] = []
        self._data = text.encode()
        self._starts = [0]
        for line in self._data.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """First byte of a node and the byte after its last."""
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def text(self, node: ast.AST) -> str:
        """A node as it is written."""
        start, end = self.span(node)
        return self._data[start:end].decode()

    def between(self, left: ast.AST, right: ast.AST) -> str:
        """What stands between two nodes."""
        return self._data[self.span(left)[1] : self.span(right)[0]].decode()

    def add(self, kind: str, start: int, end: int, new: str) -> None:
        """Put in a text instead of some bytes."""
        if self._data[start:end].decode() != new:
            line = self._data.count(b"\n", 0, start) + 1
            place = ".".join(self.place) or "module"
            self.changes.append(Change(line, self.statement, place, kind, start, end, new))

    def replace(self, kind: str, node: ast.AST, new: str) -> None:
        """Put in a text instead of a node."""
        self.add(kind, *self.span(node), new)

    def replace_between(self, kind: str, left: ast.AST, right: ast.AST, pattern: str, new: str) -> None:
        """Exchange an operator: the only thing between its operands beside parentheses, blanks and comments."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = re.sub(rb"#[^\n]*", lambda found: b" " * len(found.group()), self._data[start:end])
        found = re.search(pattern.encode(), gap)
        if found:
            self.add(kind, start + found.start(), start + found.end(), new)
