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
"""``gad-verl data import``: layouts, counts of what is left out, cards, and a clear error for what cannot be read."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gad_verl import cli
from gad_verl.data.schema import check_file, teacher_names
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.data.layouts import LAYOUTS, find_layout
from gad_verl.tools.data.row_values import Unusable, WrongType
from gad_verl.tools.data.templates import ALPACA, load_template

Rows = list[dict[str, Any]]


def write_rows(path: Path, rows: Rows) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def run_import(source: Path, *options: str) -> tuple[int, Rows, dict[str, Any]]:
    output = source.with_name("out.parquet")
    code = cli.main(["data", "import", str(source), "--output", str(output), *options])
    if code:
        return code, [], {}
    card = json.loads(output.with_name("out.parquet.card.json").read_text(encoding="utf-8"))
    return code, parquet.read_table(output).to_pylist(), card


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must end with code 2 and one line, and must leave no file behind."""

    def run(folder: Path, *arguments: str) -> str:
        before = sorted(folder.rglob("*"))
        assert cli.main(["data", *map(str, arguments)]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("gad-verl: ") and "Traceback" not in error
        assert sorted(folder.rglob("*")) == before
        return error

    return run


PUBLISHED: dict[str, tuple[Rows, list[tuple[list[tuple[str, str]], str]]]] = {
    "gad": (
        [{"prompt": [{"role": "user", "content": "Hi?"}], "teacher_response": "Hé."}],
        [([("user", "Hi?")], "Hé.")],
    ),
    "lmsys": (
        [
            {
                "content": [{"role": "system", "content": "Be nice."}, {"role": "user", "content": "Hi?"}],
                "teacher_response": "Hello.",
            }
        ],
        [([("system", "Be nice."), ("user", "Hi?")], "Hello.")],
    ),
    "dolly": (
        [
            {"instruction": "Sum up.", "context": "Long text.", "response": "Text.", "category": "summarization"},
            {"instruction": "Why?", "context": "", "response": "So.", "category": "open_qa"},
        ],
        [([("user", "Sum up.\n\nLong text.")], "Text."), ([("user", "Why?")], "So.")],
    ),
    "selfinst": (
        [
            {
                "id": "user_oriented_task_0",
                "motivation_app": "Grammarly",
                "instruction": "Shorten.",
                "instances": [{"input": "a a", "output": "a"}, {"input": "", "output": "b"}],
            }
        ],
        [([("user", "Shorten.\n\na a")], "a"), ([("user", "Shorten.")], "b")],
    ),
    "alpaca": (
        [{"instruction": "Add.", "input": "1 2", "output": "3"}],
        [([("user", "Add.\n\n1 2")], "3")],
    ),
    "sharegpt": (
        [
            {
                "id": "x",
                "conversations": [
                    {"from": "system", "value": "S"},
                    {"from": "human", "value": "A?"},
                    {"from": "gpt", "value": "B."},
                    {"from": "human", "value": "C?"},
                    {"from": "gpt", "value": "D."},
                    {"from": "human", "value": "Thanks"},
                ],
            }
        ],
        [([("system", "S"), ("user", "A?"), ("assistant", "B."), ("user", "C?")], "D.")],
    ),
    "preference": (
        [
            {
                "conversations": [{"from": "human", "value": "Q?"}],
                "chosen": {"from": "gpt", "value": "Good."},
                "rejected": {"from": "gpt", "value": "Bad."},
            }
        ],
        [([("user", "Q?")], "Good.")],
    ),
    "plain": (
        [{"id": "7", "instruction": "Q?", "response": "A.", "teacher": "gpt-4", "source": "set"}],
        [([("user", "Q?")], "A.")],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("suffix", [".parquet", ".json", ".jsonl", ".csv"])
def test_every_layout_is_detected_in_every_format(name: str, suffix: str, tmp_path: Path) -> None:
    rows, expected = PUBLISHED[name]
    if suffix == ".csv":
        rows = [{key: json.dumps(v) if isinstance(v, list | dict) else v for key, v in row.items()} for row in rows]
    code, found, card = run_import(write_rows(tmp_path / f"in{suffix}", rows))
    assert code == 0 and card["choices"]["layout"] == name
    assert [([(m["role"], m["content"]) for m in row["prompt"]], row["teacher_response"]) for row in found] == expected
    assert check_file(tmp_path / "out.parquet", "prompt", "teacher_response") == len(expected)


def test_what_rows_say_about_themselves_is_kept_and_missing_parts_are_filled(tmp_path: Path) -> None:
    rows = PUBLISHED["plain"][0] + [{"id": None, "instruction": "R?", "response": "B."}]
    _, found, _ = run_import(write_rows(tmp_path / "questions.jsonl", rows), "--teacher", "other")
    assert [(row["teacher"], row["data_source"]) for row in found] == [("gpt-4", "set"), ("other", "questions")]
    assert [row["extra_info"]["index"] for row in found] == [0, 1]
    assert found[0]["extra_info"]["id"] == "7"


def test_columns_left_behind_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"instruction": "Q?", "input": "1 2", "response": "A.", "score": 3, "source": "set"}]
    _, found, card = run_import(write_rows(tmp_path / "in.jsonl", rows))
    assert found[0]["prompt"][0]["content"] == "Q?\n\n1 2"
    assert card["columns_left_behind"] == ["score"]
    assert "columns left behind: score" in capsys.readouterr().out


def test_no_published_column_is_left_behind() -> None:
    for name, (rows, _) in PUBLISHED.items():
        assert LAYOUTS[name].unused(list(rows[0])) == []


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([("human", "A?")], "no turn of the assistant"),
        ([("gpt", "B.")], "do not take turns"),
        ([("human", "A?"), ("human", "B?"), ("gpt", "C.")], "do not take turns"),
        ([("human", " "), ("gpt", "C.")], "an empty turn"),
        ([("human", "A?"), ("gpt", "\n")], "answer is empty"),
        ([("human", "A?"), ("system", "S"), ("human", "B?"), ("gpt", "C.")], "system turn in the middle"),
        ([("human", "A?"), ("function_call", "f()"), ("gpt", "C.")], "tools"),
        ([("human", "A?"), ("narrator", "so"), ("gpt", "C.")], "another role"),
    ],
)
def test_chats_that_no_template_takes_are_left_out(turns: list[tuple[str, str]], reason: str) -> None:
    row = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    with pytest.raises(Unusable, match=reason):
        list(LAYOUTS["sharegpt"].convert(row))


def test_rows_left_out_are_counted_by_reason_and_listed(tmp_path: Path) -> None:
    rows = [{"instruction": "Q?", "response": text} for text in ("A.", "", "  \n", None, "B.")]
    rows.append({"instruction": "Q?", "response": "half \ud83d"})
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    rejected = tmp_path / "rejected.jsonl"
    _, found, card = run_import(source, "--rejected", str(rejected))
    assert [row["teacher_response"] for row in found] == ["A.", "B."]
    listed = [json.loads(line) for line in rejected.read_text(encoding="utf-8").splitlines()]
    assert [one["row"] for one in listed] == [1, 2, 3, 5]
    assert sum(card["counts"]["rejected"].values()) == len(listed) == card["counts"]["read"] - card["counts"]["written"]
    assert {one["reason"] for one in listed} == set(card["counts"]["rejected"])


def test_card_counts_the_teachers_that_the_rows_hold(tmp_path: Path) -> None:
    """``--teacher`` is for rows that do not say: alone it may be the name of none."""
    names = ["gpt-4o", "gpt-4o", None, "", "o1"]
    rows = [{"prompt": f"Q{n}?", "teacher_response": "A.", "teacher": name} for n, name in enumerate(names)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    for options, own in (((), ""), (("--teacher", "default"), "default")):
        _, found, card = run_import(source, "--overwrite", *options)
        assert card["counts"]["teachers"] == {"gpt-4o": 2, own: 2, "o1": 1}
        assert card["counts"]["teachers"] == Counter(row["teacher"] or "" for row in found)
    several = [
        {"prompt": "Q?", "teacher_response": ["A.", "B."], "teacher": ["gpt-4o", None]},
        {"prompt": "R?", "teacher_response": ["C.", "D.", "E."], "teacher": "o1"},
        {"prompt": "S?", "teacher_response": "F."},
    ]
    _, found, card = run_import(write_rows(source, several), "--overwrite", "--teacher", "default")
    assert card["counts"]["teachers"] == {"gpt-4o": 1, "default": 2, "o1": 3}
    assert card["counts"]["teachers"] == Counter(name for row in found for name in row["teacher"])


def test_card_has_the_checksums_of_input_and_output(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", PUBLISHED["plain"][0])
    _, _, card = run_import(source, "--template", "alpaca", "--system-prompt", "Be nice.")
    assert card["inputs"][0]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert card["output"]["sha256"] == hashlib.sha256((tmp_path / "out.parquet").read_bytes()).hexdigest()
    assert card["choices"]["template"]["name"] == "alpaca" and card["choices"]["system_prompt"] == "Be nice."
    assert str(tmp_path) not in json.dumps(card)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", PUBLISHED["dolly"][0] * 10)
    checksums = {run_import(source, "--overwrite")[2]["output"]["sha256"] for _ in range(2)}
    assert len(checksums) == 1


def test_template_and_system_prompt(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", PUBLISHED["dolly"][0])
    _, found, _ = run_import(source, "--template", "alpaca", "--system-prompt", "S")
    first, second = ([m["content"] for m in row["prompt"]] for row in found)
    assert first[0] == "S" and first[1].endswith(
        "### Instruction:\nSum up.\n\n### Input:\nLong text.\n\n### Response:\n"
    )
    assert second[1].endswith("### Instruction:\nWhy?\n\n### Response:\n") and "Input" not in second[1]


def test_a_chats_own_system_message_stays(tmp_path: Path) -> None:
    _, found, _ = run_import(write_rows(tmp_path / "in.jsonl", PUBLISHED["lmsys"][0]), "--system-prompt", "S")
    assert [m["content"] for m in found[0]["prompt"]] == ["Be nice.", "Hi?"]


def test_braces_in_a_row_are_no_fields_of_the_template() -> None:
    assert ALPACA.render("{input} {instruction}", "{instruction}").count("{instruction}") == 2
    assert ALPACA.render("{input}").endswith("### Instruction:\n{input}\n\n### Response:\n")


def test_template_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "wrapper.txt"
    path.write_text("Frage: {instruction}\nAntwort:", encoding="utf-8")
    assert load_template(str(path)).render("Wie?", "so") == "Frage: Wie?\n\nso\nAntwort:"
    # A mark of UTF-8, as some editors write it, is no part of the prompts.
    path.write_text("Frage: {instruction}\nAntwort:", encoding="utf-8-sig")
    assert load_template(str(path)).render("Wie?", "so") == "Frage: Wie?\n\nso\nAntwort:"
    path.write_text("{instruction} [{input}]", encoding="utf-8")
    assert load_template(str(path)).render("Wie?", "so") == "Wie? [so]"
    path.write_text("no field", encoding="utf-8")
    with pytest.raises(GadConfigError, match="no {instruction}"):
        load_template(str(path))
    with pytest.raises(GadConfigError, match="none, alpaca"):
        load_template(str(tmp_path / "missing.txt"))


def test_several_teacher_texts_stay_a_list(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Q?", "teacher_response": ["A.", "", "B."]},
        {"prompt": "R?", "teacher_response": "C."},
    ]
    _, found, _ = run_import(write_rows(tmp_path / "in.jsonl", rows))
    assert [row["teacher_response"] for row in found] == [["A.", "B."], ["C."]]


def test_lists_of_texts_under_another_name_stay_lists(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "Q?", "replies": "C."}, {"prompt": "Q?", "replies": ["A."]}])
    _, found, _ = run_import(source, "--rename", "replies=teacher_response")
    assert [row["teacher_response"] for row in found] == [["C."], ["A."]]
    # The other way round, a list that is renamed away makes no lists.
    other = [{"prompt": "Q?", "teacher_response": ["A.", "B."], "best": "A."}]
    renamed = ["--rename", "teacher_response=all", "--rename", "best=teacher_response", "--overwrite"]
    _, found, _ = run_import(write_rows(tmp_path / "other.jsonl", other), *renamed)
    assert [row["teacher_response"] for row in found] == ["A."]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_each_text_keeps_its_teacher(suffix: str, inside: bool, tmp_path: Path) -> None:
    names: list[Any] = [["x", "y", None], ["y"]]
    rows = [
        {"prompt": "Q?", "teacher_response": texts} | ({"extra_info": {"teacher": one}} if inside else {"teacher": one})
        for texts, one in zip([["A.", " ", "B."], ["C."]], names, strict=True)
    ]
    _, found, _ = run_import(write_rows(tmp_path / f"in{suffix}", rows), "--teacher", "z")
    assert [row["teacher"] for row in found] == [["x", "z"], ["y"]]
    path = write_rows(tmp_path / f"again{suffix}", found)
    _, again, _ = run_import(path, "--overwrite")
    assert [row["teacher"] for row in again] == [["x", "z"], ["y"]]
    checked: list[Any] = []

    def check_row(row: Any, where: str) -> None:
        checked.append(teacher_names(row["teacher"], len(row["teacher_response"]), where))

    check_file(path, "prompt", "teacher_response", more_columns={"teacher": ""}, check_row=check_row)
    assert checked == [["x", "z"], ["y"]]


def test_one_name_and_a_list_of_names_go_together(tmp_path: Path, fails: Callable[..., str]) -> None:
    rows = [
        {"prompt": "Q?", "teacher_response": ["A.", "B."], "teacher": "x"},
        {"prompt": "Q?", "teacher_response": ["A.", "B."], "teacher": ["x", "y"]},
        {"prompt": "Q?", "teacher_response": "A.", "teacher": ["y"]},
        {"prompt": "Q?", "teacher_response": ["A."]},
    ]
    _, found, _ = run_import(write_rows(tmp_path / "in.jsonl", rows), "--teacher", "z")
    assert [row["teacher"] for row in found] == [["x", "x"], ["x", "y"], ["y"], ["z"]]
    # One text a row: one name, as ever.
    single = [
        {"instruction": "Q?", "response": "A.", "teacher": ["x"]},
        rows[2] | {"instruction": "Q?", "response": "B."},
    ]
    _, found, _ = run_import(write_rows(tmp_path / "one.jsonl", single), "--layout", "plain", "--overwrite")
    assert [row["teacher"] for row in found] == ["x", "y"]
    rows[2]["teacher"] = ["x", "y"]
    source = write_rows(tmp_path / "bad.jsonl", rows)
    error = fails(tmp_path, "import", source, "--output", tmp_path / "bad.parquet")
    assert "bad.jsonl, row 2, column 'teacher': 2 names for 1 teacher texts" in error
    code, found, _ = run_import(source, "--skip-invalid", "--overwrite")
    assert code == 0 and len(found) == 3


def test_what_rows_say_of_how_texts_ended_stays(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Q?", "teacher_response": ["A.", "", "B"], "finish_reason": ["stop", "length", "max_tokens"]},
        {"prompt": "R?", "teacher_response": "C", "extra_info": {"stopped_by_length": True}},
        {"prompt": "S?", "teacher_response": "D."},
    ]
    _, found, _ = run_import(write_rows(tmp_path / "in.jsonl", rows))
    assert [row["extra_info"]["finish_reason"] for row in found] == [["stop", "length"], ["length"], [None]]
    _, again, _ = run_import(write_rows(tmp_path / "again.jsonl", found), "--overwrite")
    assert [row["extra_info"]["finish_reason"] for row in again] == [["stop", "length"], ["length"], [None]]
    alpaca = [{"instruction": "Q?", "output": "A", "finish_reason": "length"}]
    _, found, card = run_import(write_rows(tmp_path / "alpaca.jsonl", alpaca), "--overwrite")
    assert found[0]["extra_info"]["finish_reason"] == "length" and not card["columns_left_behind"]
    # Files that say nothing keep the schema that they always had.
    plain = write_rows(tmp_path / "plain.jsonl", [{"instruction": "Q?", "output": "A"}])
    _, found, _ = run_import(plain, "--overwrite")
    assert set(found[0]["extra_info"]) == {"index", "id", "category"}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_what_the_last_row_alone_says_is_read(suffix: str, tmp_path: Path) -> None:
    rows = [{"instruction": "Q?", "output": "A."}] * 150
    rows.append({"instruction": "Q?", "output": "A", "finish_reason": "length", "other": 1})
    _, found, card = run_import(write_rows(tmp_path / f"in{suffix}", rows))
    ends = [row["extra_info"]["finish_reason"] for row in found]
    assert ends == [None] * 150 + ["length"] and card["columns_left_behind"] == ["other"]


def test_more_ends_than_texts_are_a_wrong_type(tmp_path: Path, fails: Callable[..., str]) -> None:
    rows = [{"prompt": "Q?", "teacher_response": ["A", "B"], "finish_reason": ["stop"]}]
    source = write_rows(tmp_path / "in.jsonl", rows)
    error = fails(tmp_path, "import", source, "--output", tmp_path / "out.parquet")
    assert "row 0" in error and "1 entries of 'finish_reason' for 2 texts" in error


def test_columns_decide_the_layout() -> None:
    assert find_layout(["instruction", "response", "context"], "f").name == "dolly"
    assert find_layout(["instruction", "response", "category"], "f").name == "plain"
    with pytest.raises(GadDataError, match="several layouts .*alpaca.*plain.*--layout"):
        find_layout(["instruction", "response", "output"], "f")
    assert find_layout(["instruction", "response", "output"], "f", "alpaca").name == "alpaca"
    with pytest.raises(GadDataError, match="question, answer"):
        find_layout(["question", "answer"], "f")
    with pytest.raises(GadDataError, match="needs the columns .* the file has a, b"):
        find_layout(["a", "b"], "f", "dolly")
    with pytest.raises(GadConfigError, match="choose one of"):
        find_layout(["a"], "f", "unknown")


def test_rename_makes_other_columns_fit(tmp_path: Path, fails: Callable[..., str]) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"question": "Q?", "answer": "A."}])
    output = tmp_path / "out.parquet"
    assert "--rename" in fails(tmp_path, "import", source, "--output", output)
    assert "no such column" in fails(tmp_path, "import", source, "--output", output, "--rename", "x=y")
    assert "OLD=NEW" in fails(tmp_path, "import", source, "--output", output, "--rename", "x")
    assert "several columns answer" in fails(
        tmp_path, "import", source, "--output", output, "--rename", "question=answer"
    )
    code, found, _ = run_import(source, "--rename", "question=instruction", "--rename", "answer=response")
    assert code == 0 and found[0]["teacher_response"] == "A."


def test_wrong_type_names_the_row_unless_such_rows_are_skipped(tmp_path: Path, fails: Callable[..., str]) -> None:
    rows = [{"instruction": "Q?", "response": value} for value in ("A.", 5, "B.")]
    source = write_rows(tmp_path / "in.jsonl", rows)
    error = fails(tmp_path, "import", source, "--output", tmp_path / "out.parquet")
    assert "row 1, column 'response': expected text, got int" in error
    code, found, card = run_import(source, "--skip-invalid")
    assert code == 0 and len(found) == 2 and sum(card["counts"]["rejected"].values()) == 1


def test_messages_of_a_wrong_type_are_an_error() -> None:
    for content in ([{"role": "user"}], [{"role": "user", "content": [{"type": "text"}]}], 5, [5]):
        with pytest.raises(WrongType):
            list(LAYOUTS["lmsys"].convert({"content": content, "teacher_response": "A."}))


def test_template_does_not_go_around_whole_chats(tmp_path: Path, fails: Callable[..., str]) -> None:
    source = write_rows(tmp_path / "in.jsonl", PUBLISHED["lmsys"][0])
    assert "whole chats" in fails(
        tmp_path, "import", source, "--output", tmp_path / "o.parquet", "--template", "alpaca"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "in.jsonl",
            '{"instruction": "Q?", "response": "caf\u00e9"}\n'.encode("latin-1"),
            "line 1: not UTF-8.*0xe9.*iconv",
        ),
        (
            "in.jsonl",
            b'{"instruction": "Q?", "response": "A."}\n' * 200 + b'{"instruction": "\xe9"}',
            "line 201: not UTF-8",
        ),
        ("in.json", "[1, 2, 3]".encode("utf-16"), "not UTF-8 .byte 0xff.*iconv.*UTF-16"),
        ("in.csv", "instruction,response\nQ?,A.\n".encode("utf-16"), "not UTF-8 .byte 0xff.*UTF-16"),
        ("in.csv", "instruction,response\nQ?,A.\n".encode("utf-16-le"), "the columns fit none"),
        ("in.csv", "instruction,response\nQ?,caf\u00e9\n".encode("latin-1"), "not UTF-8"),
        ("in.json", '["caf\u00e9"]'.encode("latin-1"), "not UTF-8"),
        ("in.jsonl", b"", "empty"),
        ("in.jsonl", b"\n\n", "no rows"),
        ("in.json", b"[]", "no rows"),
        ("in.json", b'{"a": 1}', "expected a JSON list"),
        ("in.json", b'{"a": 1}\n{"a": 2}', "JSONL"),
        ("in.json", b"[1]", "row 0: expected a JSON object"),
        ("in.csv", b"instruction,response\n", "no rows"),
        ("in.csv", b"instruction,response\na,b,c\n", "row 0.*2 fields"),
        ("in.jsonl", b'[{"instruction": "Q?"}]', "expected an object"),
        ("in.jsonl", b'{"instruction": "Q?", "response": "A."}\n{"instr', "row 1 .line 2.: broken JSON"),
        ("in.parquet", b"no parquet", "no readable parquet"),
        ("in.txt", b"text", "must end in one of"),
    ],
)
def test_unreadable_files_are_one_clear_error(
    name: str, content: bytes, message: str, tmp_path: Path, fails: Callable[..., str]
) -> None:
    import re

    (tmp_path / name).write_bytes(content)
    error = fails(tmp_path, "import", tmp_path / name, "--output", tmp_path / "out.parquet")
    assert name in error and re.search(message, error), error


@pytest.mark.parametrize("tool", ["import", "normalize", "split"])
def test_columns_of_one_name_are_named(tool: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    arrays = [pa.array([[{"role": "user", "content": "Q?"}]]), pa.array(["A."]), pa.array(["B."])]
    source = tmp_path / "in.parquet"
    parquet.write_table(pa.Table.from_arrays(arrays, ["prompt", "teacher_response", "teacher_response"]), source)
    output = tmp_path / ("out" if tool == "split" else "out.parquet")
    error = fails(tmp_path, tool, source, "--output", output)
    assert "several columns of one name: 'teacher_response'" in error and "--rename" not in error


def test_missing_file_folder_and_output_names(tmp_path: Path, fails: Callable[..., str]) -> None:
    output = tmp_path / "out.parquet"
    assert "no such file" in fails(tmp_path, "import", tmp_path / "no.jsonl", "--output", output)
    assert "is a folder" in fails(tmp_path, "import", tmp_path, "--output", output)
    source = write_rows(tmp_path / "in.jsonl", PUBLISHED["plain"][0])
    assert ".parquet" in fails(tmp_path, "import", source, "--output", tmp_path / "out.jsonl")
    (tmp_path / "folder.parquet").mkdir()
    assert "is a folder" in fails(tmp_path, "import", source, "--output", tmp_path / "folder.parquet")
    assert "two outputs" in fails(tmp_path, "import", source, "--output", output, "--rejected", output)
    output.write_bytes(b"kept")
    assert "--overwrite" in fails(tmp_path, "import", source, "--output", output)
    assert output.read_bytes() == b"kept"


def test_no_usable_row_is_an_error(tmp_path: Path, fails: Callable[..., str]) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"instruction": "Q?", "response": ""}] * 3)
    error = fails(tmp_path, "import", source, "--output", tmp_path / "out.parquet", "--rejected", tmp_path / "r.jsonl")
    assert "none of 3 rows" in error and "response is empty: 3" in error


def test_a_mark_of_utf8_and_long_csv_fields_are_no_problem(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf{"instruction": "Q?", "response": "A."}\n')
    assert run_import(tmp_path / "in.jsonl")[0] == 0
    rows = [{"instruction": 'with "quotes",\nand lines', "response": "x" * 300_000}]
    _, found, _ = run_import(write_rows(tmp_path / "in.csv", rows), "--overwrite")
    assert found[0]["prompt"][0]["content"] == rows[0]["instruction"]
    assert found[0]["teacher_response"] == rows[0]["response"]


def test_a_hub_data_set_is_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, config: str | None, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return datasets.Dataset.from_list(PUBLISHED["lmsys"][0] * 3)

    monkeypatch.setattr(datasets, "load_dataset", load)
    output = tmp_path / "out.parquet"
    assert cli.main(["data", "import", "owner/some_set", "--split", "test", "--output", str(output)]) == 0
    assert asked == [("owner/some_set", None, "test")]
    assert parquet.read_table(output).num_rows == 3
    card = json.loads((tmp_path / "out.parquet.card.json").read_text(encoding="utf-8"))
    assert card["inputs"][0]["name"] == "owner/some_set" and card["inputs"][0]["split"] == "test"


def test_a_hub_data_set_that_cannot_be_reached_is_one_line(tmp_path: Path, fails: Callable[..., str]) -> None:
    error = fails(tmp_path, "import", "owner/no_such_set_here", "--output", tmp_path / "out.parquet")
    assert "owner/no_such_set_here: no such file, and the hub data set" in error


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gad_verl.tools.data import importing

    source = write_rows(tmp_path / "in.jsonl", PUBLISHED["plain"][0] * 50)
    calls = []

    def interrupted(*_: Any) -> list[dict[str, str]]:
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return [{"role": "user", "content": "Q?"}]

    monkeypatch.setattr(importing, "_prompt", interrupted)
    assert cli.main(["data", "import", str(source), "--output", str(tmp_path / "out.parquet")]) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_parquet_text_that_is_not_utf8_is_an_error(tmp_path: Path, fails: Callable[..., str]) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"], type=pa.binary()).buffers())
    parquet.write_table(pa.table({"instruction": ["Q?"], "response": broken}), tmp_path / "in.parquet")
    output = tmp_path / "out.parquet"
    assert "damaged" in fails(tmp_path, "import", tmp_path / "in.parquet", "--output", output)
    prompts = pa.array([[{"role": "user", "content": "Q?"}]])
    parquet.write_table(pa.table({"prompt": prompts, "teacher_response": broken}), tmp_path / "gad.parquet")
    assert "utf-8" in fails(tmp_path, "split", tmp_path / "gad.parquet", "--output", tmp_path / "new" / "folder")


def test_folders_made_for_an_output_go_with_it(tmp_path: Path, fails: Callable[..., str]) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"instruction": "Q?", "response": ""}])
    fails(tmp_path, "import", source, "--output", tmp_path / "a" / "b" / "out.parquet")
    write_rows(source, PUBLISHED["plain"][0])
    assert cli.main(["data", "import", str(source), "--output", str(tmp_path / "a" / "b" / "out.parquet")]) == 0


def test_turns_of_parquet_have_every_key(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "A?", "role": None, "content": None},
        {"from": None, "value": None, "role": "assistant", "content": "B."},
    ]
    _, found, _ = run_import(write_rows(tmp_path / "in.parquet", [{"conversations": turns}]))
    assert found[0]["teacher_response"] == "B."
