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
"""The blocks of code of a page of the documentation, what a comment above says of them, and the commands in them."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.DOTALL | re.MULTILINE
)
_NEEDS = re.compile(r"\A# (needs .+)")
_MARK = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?:    [^\n]*\n)+")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        page: Its page.
        line: Number of its first line.
        language: What the fence says; empty for a block that is only indented.
        text: Without the indentation of the list that it stands in.
        not_run: Why no test runs or checks it: from a comment ``<!-- not run: ... -->`` right above it, or from a first
            line ``# needs ...``.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def page_blocks(page: Path) -> list[Block]:
    """All blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    found = [_block(page, text, fence) for fence in _FENCE.finditer(text)]
    # The same number of lines without the fences: what is indented in them is no block of its own.
    plain = _FENCE.sub(lambda fence: "-\n" * fence.group().count("\n") + "-", text)
    for indented in _INDENTED.finditer(plain):
        line = plain[: indented.start()].count("\n") + 1
        before = [part for part in plain[: indented.start()].splitlines() if part.strip()]
        # Below an item of a list an indented paragraph is text.
        in_list = bool(before) and re.match(r" *([-*]|\d+\.) |  ", before[-1]) is not None
        if not in_list:
            found.append(Block(page, line, "", textwrap.dedent(indented.group()), None))
    return sorted(found, key=lambda block: block.line)


def _block(page: Path, text: str, fence: re.Match[str]) -> Block:
    mark = _MARK.search(text[: fence.start()]) or _NEEDS.match(textwrap.dedent(fence["text"]))
    line = text[: fence.start()].count("\n") + 2
    return Block(page, line, fence["language"], textwrap.dedent(fence["text"]), mark[1] if mark else None)


def commands(script: str) -> Iterator[list[str]]:
    """The commands of a script of bash, each as its words, without redirections and what joins them.

    Variables become their default, or 1; arrays are left out.
    """
    script = script.replace("\\\n", " ")
    script = re.sub(r"(?<= )2>(&1| ?\S+)", "", script)
    script = re.sub(r"\$\(\(.*?\)\)", "1", script)
    script = re.sub(r"\"\$\{\w+\[@\]\}\"", "", script)
    script = re.sub(r"\$\{\w+:-([^{}$]*)\}", r"\1", script)
    script = re.sub(r"\$\{\w+(:-[^}]*\}?)?\}|\$\w+", "1", script)
    for line in script.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
        words.whitespace_split = True
        command: list[str] = []
        redirected = False
        for word in words:
            if word in (";", "|", "&&", "||", "&"):
                if command:
                    yield command
                command = []
            elif set(word) <= set("<>&") and word:
                redirected = True
            elif redirected:
                redirected = False
            elif not command and word in ("do", "then", "else", "done", "fi", "time"):
                continue
            else:
                command.append(word)
        if command:
            yield command
