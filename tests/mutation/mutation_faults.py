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
"""Named faults: changes written by hand, each of which a test must notice.

A list of faults is a JSON file::

    [
      {
        "name": "no sorting",
        "file": "package/module.py",
        "old": "return sorted(rows)",
        "new": "return rows",
        "meaning": "rows are not in the order of their prompts"
      }
    ]
"""

import ast
import json
from dataclasses import dataclass, fields
from pathlib import Path


class FaultListError(ValueError):
    """A list of faults does not fit the files it names."""


@dataclass(frozen=True)
class Fault:
    """One change.

    Attributes:
        name: Unique in its list.
        file: Path from the root.
        old: Text that stands exactly once in the file.
        new: Text to put there.
        meaning: What it stands for.
    """

    name: str
    file: str
    old: str
    new: str
    meaning: str

    def apply(self, text: str) -> str:
        """The file's text with the fault.

        Raises:
            FaultListError: If the old text is not exactly once in the file, or the new one makes no Python.
        """
        count = text.count(self.old)
        if count != 1 or self.old == self.new:
            found = "the same as its new text" if count == 1 else f"{count} times in {self.file}"
            raise FaultListError(f"fault {self.name!r}: its old text is {found}; it has to be there once: {self.old!r}")
        changed = text.replace(self.old, self.new)
        try:
            compile(changed, self.file, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise FaultListError(f"fault {self.name!r}: {self.file} is no Python with its new text: {error}") from error
        return changed

    def statements(self, text: str) -> tuple[int, ...]:
        """First lines of the statements in which the fault lies."""
        # What both texts have in common at their ends is not changed.
        begin = 0
        while begin < min(len(self.old), len(self.new)) and self.old[begin] == self.new[begin]:
            begin += 1
        end = len(self.old)
        while end > begin and len(self.new) - len(self.old) + end > begin:
            if self.old[end - 1] != self.new[len(self.new) - len(self.old) + end - 1]:
                break
            end -= 1
        at = text.index(self.old)
        first = text.count("\n", 0, at + begin) + 1
        last = text.count("\n", 0, at + max(begin, end - 1)) + 1
        return statements_between(text, first, last)


def statements_between(text: str, first: int, last: int) -> tuple[int, ...]:
    """First lines of the innermost statements that share a line with those from ``first`` to ``last``."""
    spans = [(node.lineno, node.end_lineno) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]
    lines: set[int] = set()
    for line in range(first, last + 1):
        around = [(begin, end) for begin, end in spans if begin <= line <= end]
        if around:
            # The innermost one begins last.
            lines.add(max(around)[0])
    return tuple(sorted(lines))


def read_faults(root: Path, file: Path) -> list[Fault]:
    """Read a list and hold it against the files.

    Raises:
        FaultListError: If it is no such list, or a fault does not fit its file.
    """
    wanted = {field.name for field in fields(Fault)}
    entries = json.loads(file.read_text(encoding="utf-8"))
    faults = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or set(entry) != wanted:
            raise FaultListError(f"{file}, entry {number}: it has to have exactly the keys {', '.join(sorted(wanted))}")
        fault = Fault(**entry)
        if not (root / fault.file).is_file():
            raise FaultListError(f"fault {fault.name!r}: there is no file {fault.file} under {root}")
        fault.apply((root / fault.file).read_text(encoding="utf-8"))
        faults.append(fault)
    names = [fault.name for fault in faults]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FaultListError(f"{file}: names occur twice: {', '.join(twice)}")
    return faults
