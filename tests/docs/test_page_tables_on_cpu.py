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

"""A table on a page is whole: a blank line in its middle makes lines of bars out of what stands below it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "recipes").rglob("*.md")])


def headless(text: str) -> list[str]:
    """First lines of rows that no header stands above."""
    lines = [line.strip() for line in text.splitlines()]
    begins = [number for number, line in enumerate(lines) if line.startswith("|") and not lines[number - 1][:1] == "|"]
    return [
        lines[number] for number in begins if set(lines[number + 1] if number + 1 < len(lines) else "x") - set("|-: ")
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_tables_of_a_page_are_whole(page: Path) -> None:
    assert headless(page.read_text(encoding="utf-8")) == []


def test_a_table_that_is_cut_is_found() -> None:
    whole = "text\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |\n"
    assert headless(whole) == []
    assert headless(whole.replace("| 3", "\n| 3")) == ["| 3 | 4 |"]
