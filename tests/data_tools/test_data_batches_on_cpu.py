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
"""What an API wrote as it wrote it: the output of a batch with its input, and replies beside what was asked."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from gad_verl import cli
from gad_verl.data.endings import cut_texts
from gad_verl.data.schema import check_file
from gad_verl.errors import GadDataError
from gad_verl.tools.data.layouts import LAYOUTS, find_layout

Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def request(key: str, *messages: tuple[str, Any], **other: Any) -> dict[str, Any]:
    chat = [{"role": role, "content": content} for role, content in messages or (("user", f"ask {key}"),)]
    body = {"model": "m", "messages": chat, "max_tokens": 9} | other
    return {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}


def choice(text: str | None, index: int = 0, reason: str = "stop", **message: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None} | message
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def reply(key: str, *choices: dict[str, Any], status: int = 200, error: Any = None, **body: Any) -> dict[str, Any]:
    whole = {"object": "chat.completion", "model": "m-2024", "choices": list(choices)} | body
    return {
        "id": f"batch_req_{key}",
        "custom_id": key,
        "response": {"status_code": status, "request_id": "r", "body": whole},
        "error": error,
    }


def imported(folder: Path, answers: Rows, asked: Rows | None, *options: str) -> tuple[Rows, dict[str, Any]]:
    given = [] if asked is None else ["--requests", str(write(folder / "asked.jsonl", asked))]
    output = folder / "out.parquet"
    source = write(folder / "answers.jsonl", answers)
    assert cli.main(["data", "import", str(source), "--output", str(output), *given, *options]) == 0
    card = json.loads((folder / "out.parquet.card.json").read_text(encoding="utf-8"))
    assert check_file(output, "prompt", "teacher_response") == card["counts"]["written"]
    return parquet.read_table(output).to_pylist(), card


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    code = cli.main(["data", "import", *map(str, words), "--output", str(folder / "out.parquet")])
    error = capsys.readouterr().err.strip()
    assert code == 2 and "\n" not in error and not (folder / "out.parquet").exists()
    return error


def test_a_batch_is_joined_by_its_ids_in_any_order(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(40)]
    asked = [request(key, ("system", "S"), ("user", f"ask {key}")) for key in keys]
    order = random.Random(0).sample(keys, len(keys))
    rows, card = imported(tmp_path, [reply(key, choice(f"say {key}")) for key in order], asked)
    assert [row["extra_info"]["id"] for row in rows] == order
    assert all(row["teacher_response"] == f"say {row['extra_info']['id']}" for row in rows)
    assert all([m["content"] for m in row["prompt"]] == ["S", f"ask {row['extra_info']['id']}"] for row in rows)
    assert {row["teacher"] for row in rows} == {"m-2024"} and card["choices"]["layout"] == "batch"
    assert [one["file"] for one in card["inputs"]] == [
        "answers.jsonl",
        "asked.jsonl",
    ]


ODD = [
    (reply("k", status=429, error=None) | {"response": {"status_code": 429, "body": {"error": {}}}}, "failed (429)"),
    (reply("k") | {"response": None, "error": {"code": "batch_expired", "message": "x"}}, "failed (batch_expired)"),
    (reply("k", status=400) | {"response": {"status_code": 400, "body": {"error": {"code": "c"}}}}, "failed (c)"),
    (reply("k", choice(None, refusal="No.")), "a refusal"),
    (reply("k", choice(None, tool_calls=[{"id": "t"}])), "calls or offers of tools"),
    (reply("k", choice("  ")), "the answer is empty"),
    (reply("k"), "the reply has no answer"),
    (reply("other", choice("A.")), "no request has its custom_id"),
]


@pytest.mark.parametrize(("row", "reason"), ODD)
def test_odd_rows_are_left_out_with_their_reason(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    answers, listing = [row, reply("good", choice("Fine."))], tmp_path / "rejected.jsonl"
    rows, card = imported(tmp_path, answers, [request("k"), request("good")], "--rejected", str(listing))
    assert [row["teacher_response"] for row in rows] == ["Fine."]
    (left_out,) = card["counts"]["rejected"]
    assert reason in left_out
    assert json.loads(listing.read_text(encoding="utf-8")) == {"row": 0, "reason": left_out}


def test_what_was_asked_with_tools_or_pictures_is_left_out(tmp_path: Path) -> None:
    picture = [{"type": "image_url", "image_url": {"url": "x"}}]
    asked = [request("a", tools=[{"type": "function"}]), request("b", ("user", picture)), request("c")]
    rows, card = imported(tmp_path, [reply(key, choice(key)) for key in "abc"], asked)
    assert [row["teacher_response"] for row in rows] == ["c"] and sum(card["counts"]["rejected"].values()) == 2


def test_several_choices_are_several_texts_and_cut_ones_stay_marked(tmp_path: Path) -> None:
    answers = [
        reply("a", choice("second", 1, "length"), choice("first", 0)),
        reply("b", choice("", 0), choice("only", 1)),
        reply("c", choice("one", reason="length")),
    ]
    rows, _ = imported(tmp_path, answers, [request(key) for key in "abc"])
    assert [row["teacher_response"] for row in rows] == [["first", "second"], ["only"], ["one"]]
    assert [cut_texts(row, len(row["teacher_response"]), "") for row in rows] == [[False, True], [False], [True]]


def test_the_responses_api_and_plain_completions_are_read_too(tmp_path: Path) -> None:
    said = {"type": "message", "content": [{"type": "output_text", "text": "Honey."}]}
    body = {"model": "r", "output": [{"type": "reasoning", "summary": []}, said]}
    answers = [
        {"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None},
        {"custom_id": "b", "response": {"status_code": 200, "body": {"choices": [{"text": "Bees."}]}}, "error": None},
        {
            "custom_id": "c",
            "response": {"body": body | {"incomplete_details": {"reason": "max_output_tokens"}}},
            "error": None,
        },
    ]
    asked = [
        {"custom_id": "a", "body": {"instructions": "Be brief.", "input": "What?"}},
        {"custom_id": "b", "body": {"prompt": "Who?"}},
        {"custom_id": "c", "body": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "And?"}]}]}},
    ]
    rows, _ = imported(tmp_path, answers, asked)
    assert [[m["content"] for m in row["prompt"]] for row in rows] == [["Be brief.", "What?"], ["Who?"], ["And?"]]
    assert [row["teacher_response"] for row in rows] == ["Honey.", "Bees.", "Honey."]
    assert [cut_texts(row, 1, "") for row in rows] == [[False], [False], [True]]


@pytest.mark.parametrize(
    "row",
    [
        {"request": {"messages": [{"role": "user", "content": "Q?"}]}, "response": {"choices": [choice("A.")]}},
        {"messages": [{"role": "user", "content": "Q?"}], "response": {"body": {"choices": [choice("A.")]}}},
        {"messages": [{"role": "user", "content": "Q?"}], "choices": [choice("A.")], "model": "m"},
        {"custom_id": "k", "request": request("k", ("user", "Q?")), "response": {"body": {"choices": [choice("A.")]}}},
    ],
)
def test_replies_beside_what_was_asked_need_no_other_file(row: dict[str, Any], tmp_path: Path) -> None:
    (found,), _ = imported(tmp_path, [row], None)
    assert found["prompt"] == [{"role": "user", "content": "Q?"}] and found["teacher_response"] == "A."


def test_columns_of_these_names_that_are_no_replies_stay_what_they_are(tmp_path: Path) -> None:
    row = {"instruction": "Which?", "choices": ["a", "b"], "response": "a"}
    (found,), card = imported(tmp_path, [row], None)
    assert card["choices"]["layout"] == "plain" and found["teacher_response"] == "a"


def test_one_line_says_which_file_is_missing_or_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = write(tmp_path / "answers.jsonl", [reply("k", choice("A."))])
    asked = write(tmp_path / "asked.jsonl", [request("k")])
    twice = write(tmp_path / "twice.jsonl", [request("k"), request("k")])
    plain = write(tmp_path / "plain.jsonl", [{"instruction": "Q?", "response": "A."}])
    assert "--requests FILE.jsonl" in refused(tmp_path, capsys, answers)
    assert "--requests " in refused(tmp_path, capsys, asked) and "no answers" in refused(tmp_path, capsys, asked)
    assert "row 1" in refused(tmp_path, capsys, answers, "--requests", twice)
    assert "row 0: expected a request" in refused(tmp_path, capsys, answers, "--requests", answers)
    assert "leave it out" in refused(tmp_path, capsys, plain, "--requests", asked)
    assert "no such file" in refused(tmp_path, capsys, answers, "--requests", tmp_path / "none.jsonl")
    write(asked, [request("other")])
    assert "no request has its custom_id: 1" in refused(tmp_path, capsys, answers, "--requests", asked)


@pytest.mark.parametrize(
    "columns",
    [["question", "answer"], ["prompt", "completion"], ["query", "reply"], ["input", "output"], ["prompt", "output"]],
)
def test_the_renaming_that_an_error_proposes_makes_a_layout(columns: list[str]) -> None:
    with pytest.raises(GadDataError) as caught:
        find_layout(columns, "x.jsonl")
    words = str(caught.value).partition("for example ")[2].replace("--rename ", "").split()
    new = dict(word.split("=") for word in words)
    assert find_layout([new.get(name, name) for name in columns], "x.jsonl").name in LAYOUTS


@pytest.mark.parametrize("text", ["1k", "1.5", ""])
def test_a_number_that_is_none_is_called_so(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["data", "import", "in.jsonl", "--output", "out.parquet", "--limit", text])
    assert f"{text!r} is no whole number" in capsys.readouterr().err


@pytest.mark.parametrize("tool", ["normalize", "split"])
def test_whole_chats_are_sent_to_the_import(tool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
    path = write(tmp_path / "chats.jsonl", [{"messages": chat}, {"messages": "odd"}])
    more = {"split": ["--output", str(tmp_path / "out")], "normalize": ["--dry-run"]}
    assert cli.main(["data", tool, str(path), *more.get(tool, [])]) == 2
    error = capsys.readouterr().err.strip()
    assert "has no column 'prompt'" in error and "gad-verl data import" in error and "\n" not in error
