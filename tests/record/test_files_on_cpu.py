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
"""Files appear whole or not at all, and lines that a kill cut off are left out."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_verl.record.files import read_json_lines, replaced, write_atomically

OBJECTS = st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=4), st.integers(), max_size=3)


@settings(max_examples=50, deadline=None)
@given(objects=st.lists(OBJECTS, max_size=5), share=st.floats(0, 1))
def test_lines_cut_anywhere(tmp_path_factory: pytest.TempPathFactory, objects: list[dict], share: float) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    content = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in objects).encode()
    cut = round(share * len(content))
    path.write_bytes(content[:cut])
    found = [value for _, _, value in read_json_lines(path)]
    # Every whole line, and the last one too where only its line break is gone.
    assert found == objects[: len(found)] and len(found) - content[:cut].count(b"\n") in (0, 1)


def test_damaged_lines_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\nbroken\n[1]\n{"b": "\xe2\x80\xa8"}\n{"c')
    assert [(number, value) for number, _, value in read_json_lines(path)] == [
        (1, {"a": 1}),
        (3, None),
        (4, None),
        (5, {"b": "\u2028"}),
    ]
    assert read_json_lines(tmp_path / "missing") == []


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_leaves_what_was_there(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "out"
    if not folder:
        write_atomically(path, "before")

    def write(temporary: Path, text: str) -> None:
        if folder:
            temporary.mkdir()
            temporary = temporary / "file"
        temporary.write_text(text)

    with pytest.raises(KeyboardInterrupt), replaced(path) as temporary:
        write(temporary, "half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == ([] if folder else [path])
    assert folder or path.read_text() == "before"
    with replaced(path) as temporary:
        write(temporary, "after")
    assert (path / "file" if folder else path).read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_surrogate_pair_is_written_as_a_question_mark(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "x\ud800y")
    write_atomically(tmp_path / "b", b"\xff")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "x?y" and (tmp_path / "b").read_bytes() == b"\xff"
