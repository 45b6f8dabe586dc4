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
"""The check of data files: every kind of bad input is named with its file, row and column."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gad_verl.data.schema import check_file, check_messages, teacher_texts
from gad_verl.errors import GadDataError

CHAT = [{"role": "user", "content": "hello"}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the format of the suffix."""
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def good_rows(count: int = 3) -> list[dict[str, Any]]:
    return [{"prompt": CHAT, "teacher_response": f"teacher {number} ü", "other": number} for number in range(count)]


@pytest.fixture(params=["parquet", "jsonl", "json"])
def suffix(request: pytest.FixtureRequest) -> str:
    """Every format that verl reads."""
    return request.param


def failure(path: Path, prompt_key: str = "prompt", teacher_key: str = "teacher_response") -> str:
    """The message of the one error."""
    with pytest.raises(GadDataError) as error:
        check_file(path, prompt_key, teacher_key)
    return str(error.value)


def test_good_files_are_counted(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"train.{suffix}", good_rows(5))
    assert check_file(path, "prompt", "teacher_response") == 5
    assert check_file(str(path), "prompt", "teacher_response") == 5


def test_several_teacher_texts_and_other_keys(tmp_path: Path, suffix: str) -> None:
    rows = [{"content": [{"role": "system", "content": ""}, *CHAT], "answers": ["one", "two"][: 1 + n]} for n in (0, 1)]
    assert check_file(write(tmp_path / f"train.{suffix}", rows), "content", "answers") == 2


def test_many_rows_of_parquet_keep_their_numbers(tmp_path: Path) -> None:
    rows = good_rows(3000)
    rows[2999]["teacher_response"] = " "
    path = tmp_path / "train.parquet"
    pd.DataFrame(rows).to_parquet(path, row_group_size=700)
    assert f"{path}, row 2999, column 'teacher_response'" in failure(path)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("\u200b\ufeff", "empty"),
        (["fine", " \u2060\n"], "empty"),
        (None, "got NoneType"),
        ([], "empty; remove the row"),
        (["fine", ""], "empty"),
        (["fine", None], "got NoneType"),
    ],
)
def test_bad_teacher_texts(tmp_path: Path, suffix: str, value: Any, said: str) -> None:
    rows = good_rows()
    if isinstance(value, list):
        for row in rows:
            row["teacher_response"] = ["a", "b"]
    rows[1]["teacher_response"] = value
    path = write(tmp_path / f"train.{suffix}", rows)
    message = failure(path)
    assert f"{path}, row 1, column 'teacher_response'" in message and said in message


@pytest.mark.parametrize("value", [3, 1.5, True, {"text": "a"}, [1, 2], float("nan")])
def test_teacher_values_that_are_no_text(tmp_path: Path, value: Any) -> None:
    rows = good_rows()
    rows[2]["teacher_response"] = value
    message = failure(write(tmp_path / "train.jsonl", rows))
    assert "train.jsonl, row 2, column 'teacher_response'" in message and "expected" in message


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "non-empty list"),
        ([], "non-empty list"),
        ([{"role": "user"}], "'role' and 'content'"),
        ([{"content": "a"}], "'role' and 'content'"),
        ([{"role": "user", "content": None}], "must be text"),
        ([*CHAT, {"role": "assistant", "content": "hi"}], "must end before the answer"),
    ],
)
def test_bad_prompts(tmp_path: Path, suffix: str, value: Any, said: str) -> None:
    rows = good_rows()
    if suffix == "parquet" and value and ("role" not in value[0] or "content" not in value[0]):
        # A column of parquet has one type: the key is missing in every row.
        for row in rows:
            row["prompt"] = value
    rows[1]["prompt"] = value
    path = write(tmp_path / f"train.{suffix}", rows)
    message = failure(path)
    number = 0 if rows[0]["prompt"] == value else 1
    assert f"{path}, row {number}, column 'prompt'" in message and said in message


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("plain text", "list of chat messages"),
        (3, "non-empty list"),
        ({"role": "user", "content": "a"}, "non-empty list"),
        (["text"], "'role' and 'content'"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "must be text"),
        ([{"role": "user", "content": 3}], "got int"),
    ],
)
def test_prompts_of_another_type(tmp_path: Path, value: Any, said: str) -> None:
    rows = good_rows()
    rows[0]["prompt"] = value
    message = failure(write(tmp_path / "train.jsonl", rows))
    assert "train.jsonl, row 0, column 'prompt'" in message and said in message


def test_plain_text_prompts_in_parquet(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", [{"prompt": "hello", "teacher_response": "a"}])
    assert '[{"role": "user", "content": "..."}]' in failure(path)


@pytest.mark.parametrize(
    ("missing", "setting"), [("prompt", "data.prompt_key"), ("teacher_response", "gad.teacher_key")]
)
def test_missing_columns(tmp_path: Path, suffix: str, missing: str, setting: str) -> None:
    rows = [{key: value for key, value in row.items() if key != missing} for row in good_rows()]
    path = write(tmp_path / f"train.{suffix}", rows)
    message = failure(path)
    assert f"{path} has no column {missing!r}" in message and setting in message
    # It lists what there is.
    assert "other" in message


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_rows_that_lack_a_column_later(tmp_path: Path, suffix: str) -> None:
    rows = good_rows(150)
    del rows[140]["teacher_response"]
    assert "row 140, column 'teacher_response'" in failure(write(tmp_path / f"train.{suffix}", rows))


@pytest.mark.parametrize(
    ("value", "kind"),
    [('{"difficulty": 3}', "str"), ("", "str"), (["a"], "list"), (3, "int"), (1.5, "float"), (True, "bool")],
)
def test_extra_info_is_a_dict_or_nothing(tmp_path: Path, suffix: str, value: Any, kind: str) -> None:
    rows = [row | {"extra_info": None} for row in good_rows()]
    rows[1]["extra_info"] = value
    path = tmp_path / f"train.{suffix}"
    if suffix == "parquet":
        # pandas would make numbers of it that are no numbers where one is missing.
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        write(path, rows)
    said = failure(path)
    assert said.startswith(f"{path}, row 1, column 'extra_info': expected a dict, got {kind}")
    assert ("json.loads" in said) == (kind == "str") and "leave the column out" in said


def test_extra_info_may_lack_be_null_or_hold_anything(tmp_path: Path, suffix: str) -> None:
    rows = good_rows()
    rows[1]["extra_info"], rows[2]["extra_info"] = None, {"a": [1], "b": {"c": "d"}}
    assert check_file(write(tmp_path / f"train.{suffix}", rows), "prompt", "teacher_response") == 3
    empty = [row | {"extra_info": {}} for row in good_rows()]
    if suffix != "parquet":
        assert check_file(write(tmp_path / f"empty.{suffix}", empty), "prompt", "teacher_response") == 3


def test_no_such_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"missing.{suffix}"
    message = failure(path)
    assert str(path) in message and "no such data file" in message and "data.train_files" in message
    path.mkdir()
    assert "no such data file" in failure(path)


@pytest.mark.parametrize("name", ["train.csv", "train", "train.parquet.gz"])
def test_unknown_formats(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a", encoding="utf-8")
    assert ".parquet, .json, .jsonl" in failure(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"PAR1 this is none", b"{", b"\x00" * 64, b"\xff\xfe\x80broken"])
def test_damaged_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"train.{suffix}"
    path.write_bytes(content)
    assert str(path) in failure(path)


@pytest.mark.parametrize(
    ("suffix", "content"), [("jsonl", "[1]\n"), ("jsonl", "3\n"), ("json", '{"a": 1}'), ("json", "[3]")]
)
def test_json_of_another_form(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"train.{suffix}"
    path.write_text(content, encoding="utf-8")
    message = failure(path)
    assert str(path) in message and "expected a" in message and "object" in message


def test_files_without_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train.{suffix}"
    if suffix == "parquet":
        pd.DataFrame({"prompt": [], "teacher_response": []}).to_parquet(path)
    else:
        path.write_text("" if suffix == "jsonl" else "[]", encoding="utf-8")
    message = failure(path)
    assert str(path) in message and ("has no rows" in message or "is empty (0 bytes)" in message)


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "train.jsonl", good_rows(2))
    assert check_file("~/train.jsonl", "prompt", "teacher_response") == 2


def test_teacher_texts_of_arrays() -> None:
    import numpy as np

    assert teacher_texts("a", "here") == ["a"]
    assert teacher_texts(("a", "b"), "here") == ["a", "b"]
    assert teacher_texts(np.array(["a", "b"], dtype=object), "here") == ["a", "b"]


@pytest.mark.parametrize("check", [teacher_texts, check_messages])
def test_the_place_is_named(check: Callable[[Any, str], Any]) -> None:
    with pytest.raises(GadDataError, match="^row 7 of somewhere: "):
        check([], "row 7 of somewhere")
