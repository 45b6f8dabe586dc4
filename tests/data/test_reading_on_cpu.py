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
"""Files as rows: their columns are those of all rows, wherever one first appears."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_verl.data import reading
from gad_verl.data.reading import open_file
from gad_verl.errors import GadDataError

ROWS = st.lists(st.dictionaries(st.text(max_size=3), st.integers(), max_size=4), min_size=1, max_size=8)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@given(rows=ROWS, times=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_columns_are_those_of_all_rows(folder: Path, suffix: str, rows: list[dict[str, Any]], times: int) -> None:
    rows = [rows[0]] * times * 3 + rows
    source = open_file(write(folder / f"rows.{suffix}", rows))
    assert source.columns == list(dict.fromkeys(name for row in rows for name in row))
    assert list(source.rows()) == rows


def test_a_file_that_was_not_touched_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Any] = []

    def loads(text: Any) -> Any:
        parsed.append(text)
        return json.loads(text)

    path = write(tmp_path / "rows.jsonl", [{"a": 1}] * 150 + [{"late": 1}])
    monkeypatch.setattr(reading, "json", type("Json", (), {"loads": staticmethod(loads)}))
    assert open_file(path).columns == ["a", "late"] and len(parsed) == 151
    assert open_file(path).columns == ["a", "late"] and len(parsed) == 151
    # What one caller does with its list is nothing to the next.
    open_file(path).columns.append("mine")
    assert open_file(path).columns == ["a", "late"]
    write(path, [{"a": 1}] * 150 + [{"other": 1}])
    assert open_file(path).columns == ["a", "other"]
    status = path.stat()
    write(path, [{"a": 1}] * 150 + [{"later": 1}])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert open_file(path).columns == ["a", "later"]


def test_what_is_broken_further_down_is_told_by_the_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"a": 1}] * 150)
    good = path.read_bytes()
    path.write_bytes(good + b'{"half\n' + b"5\n" + b'{"late": 1}\n' + b'{"b": "\xe9"}\n' + b'{"after": 1}\n')
    source = open_file(path)
    assert source.columns == ["a", "late"]
    with pytest.raises(GadDataError, match="line 154: not UTF-8"):
        list(source.rows())
    path.write_bytes(b'{"b": "\xe9"}\n' + good)
    with pytest.raises(GadDataError, match="line 1: not UTF-8"):
        open_file(path)
    path.write_bytes(b"5\n" * 120 + good)
    with pytest.raises(GadDataError, match="JSONL has one JSON object a line"):
        open_file(path)


@given(names=st.lists(st.sampled_from("abcd"), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_columns_of_one_name_are_told_apart_by_nobody(folder: Path, names: list[str]) -> None:
    table, lines = folder / "doubled.parquet", folder / "doubled.csv"
    parquet.write_table(pa.Table.from_arrays([pa.array([place]) for place in range(len(names))], names), table)
    lines.write_text(f"{','.join(names)}\n{','.join(map(str, range(len(names))))}\n", encoding="utf-8")
    doubled = ", ".join(repr(name) for name in dict.fromkeys(names) if names.count(name) > 1)
    for path in (table, lines):
        if doubled:
            with pytest.raises(GadDataError, match=f"{path.name} has several columns of one name: {doubled}. Rename"):
                open_file(path)
        else:
            assert open_file(path).columns == names
