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
"""``gad-verl teacher collect`` against the loopback server: what is asked, what is written, what is counted."""

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
from fault_server import Faults, FaultServer

from gad_verl.data.schema import check_file
from gad_verl.tools.api.store import AnswerStore

Rows = Callable[..., list[dict[str, Any]]]


def test_rows_are_in_order_and_fit_the_schema(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, card_of: Any, tmp_path: Path
) -> None:
    assert collect(prompts_file(40), "--temperature", "0.5", "--seed", "3", "--stop", "###", "--top-p", "0.9") == 0
    assert check_file(tmp_path / "out.parquet", "prompt", "teacher_response") == 40
    rows = rows_of()
    assert [row["prompt"] for row in rows] == [[{"role": "user", "content": f"question {i}"}] for i in range(40)]
    assert [row["teacher_response"] for row in rows] == [f"Answer to: question {i}" for i in range(40)]
    assert {row["teacher"] for row in rows} == {"loopback"} and {row["data_source"] for row in rows} == {"prompts"}
    assert [(row["extra_info"]["index"], row["extra_info"]["id"]) for row in rows] == [
        (i, f"id-{i}") for i in range(40)
    ]
    sent = server.received[0].body
    assert {name: sent[name] for name in ("temperature", "seed", "stop", "top_p", "max_tokens")} == {
        "temperature": 0.5,
        "seed": 3,
        "stop": ["###"],
        "top_p": 0.9,
        "max_tokens": 1536,
    }
    card = card_of()
    content = (tmp_path / "out.parquet").read_bytes()
    assert card["output"]["sha256"] == hashlib.sha256(content).hexdigest() and card["output"]["bytes"] == len(content)
    assert card["answers"]["finish_reasons"] == {"stop": 40} and card["answers"]["kept"] == 40
    assert card["tokens"]["loopback"] == {"prompt": 80, "completion": 160, "cost": None}
    assert card["lengths"]["completion_tokens"] == {"mean": 4.0, "min": 4, "p5": 4, "p50": 4, "p95": 4, "max": 4}


def test_a_second_run_asks_nothing_and_writes_the_same_bytes(
    server: FaultServer, collect: Any, prompts_file: Any, tmp_path: Path
) -> None:
    path = prompts_file(30)
    assert collect(path) == 0
    first, asked = (tmp_path / "out.parquet").read_bytes(), len(server.received)
    assert collect(path) == 0
    assert (tmp_path / "out.parquet").read_bytes() == first and len(server.received) == asked == 30


def test_a_limit_is_raised_later(server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows) -> None:
    path = prompts_file(30)
    assert collect(path, "--limit", "10") == 0
    assert len(rows_of()) == 10
    assert collect(path, "--limit", "25") == 0
    assert len(rows_of()) == 25 and max(Counter(one.prompt for one in server.received).values()) == 1


def test_every_kind_of_file_gives_the_same_questions(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, tmp_path: Path
) -> None:
    texts = ["plain", 'with "quotes", commas\nand lines', "ünïcödé 你好 🙂", "{instruction} {x}"]
    rows = [{"question": text} for text in texts]
    files = [prompts_file(rows, "a.jsonl"), tmp_path / "b.json", tmp_path / "c.csv", tmp_path / "d.parquet"]
    files[1].write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    with files[2].open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, ["question"])
        writer.writeheader()
        writer.writerows(rows)
    parquet.write_table(pa.Table.from_pylist(rows), files[3])
    for path in files:
        output = tmp_path / f"{path.stem}-out.parquet"
        assert collect(path, "--prompt-key", "question", output=output) == 0
        assert [row["prompt"][0]["content"] for row in rows_of(output)] == texts
        assert [row["teacher_response"] for row in rows_of(output)] == [f"Answer to: {text}" for text in texts]


def test_a_chat_may_stand_in_a_cell_as_json(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, tmp_path: Path, capsys: Any
) -> None:
    """CSV has no other way; a text that happens to be JSON stays one."""
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is honey?"}]
    other = '{"rows": [1, 2]}'
    rows = [{"prompt": json.dumps(chat)}, {"prompt": other}, {"prompt": "[]"}]
    with (tmp_path / "c.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, ["prompt"])
        writer.writeheader()
        writer.writerows(rows)
    wanted = [chat, *([{"role": "user", "content": text}] for text in (other, "[]"))]
    for path in (tmp_path / "c.csv", prompts_file(rows, "c.jsonl")):
        assert collect(path, output=tmp_path / f"{path.suffix[1:]}.parquet") == 0
        assert [row["prompt"] for row in rows_of(tmp_path / f"{path.suffix[1:]}.parquet")] == wanted
    assert sorted(len(one.body["messages"]) for one in server.received) == [1, 1, 1, 1, 2, 2]
    written = prompts_file([{"prompt": str(chat)}], "python.jsonl")
    assert collect(written, output=tmp_path / "python.parquet") == 2
    assert "python.jsonl, row 0" in (said := capsys.readouterr().err.splitlines()[-1]) and "json.dumps" in said


def test_a_hub_data_set_is_read_by_its_name(
    collect: Any, rows_of: Rows, card_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    asked_for = []

    def load(name: str, config: str | None, split: str) -> Any:
        asked_for.append((name, config, split))
        return datasets.Dataset.from_list([{"prompt": "one"}, {"prompt": "two"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert collect("someone/prompts", "--split", "test") == 0
    assert asked_for == [("someone/prompts", None, "test")]
    assert [row["data_source"] for row in rows_of()] == ["prompts", "prompts"]
    assert card_of()["prompts"]["name"] == "someone/prompts" and card_of()["prompts"]["split"] == "test"


def test_system_template_and_context_go_to_teacher_and_student(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows
) -> None:
    path = prompts_file([{"prompt": "Add them.", "input": "1 2"}, {"prompt": "Hello.", "input": ""}])
    assert collect(path, "--system", "Be kind.", "--template", "alpaca", "--context-key", "input") == 0
    rows = rows_of()
    assert [[message["role"] for message in row["prompt"]] for row in rows] == [["system", "user"]] * 2
    assert "### Input:\n1 2" in rows[0]["prompt"][1]["content"] and "### Input" not in rows[1]["prompt"][1]["content"]
    sent = {json.dumps(one.body["messages"]) for one in server.received}
    assert sent == {json.dumps(row["prompt"]) for row in rows}


def test_the_student_may_get_the_prompt_alone(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        f"teachers: [{{base_url: '{server.base_url}', model: loopback}}]\n"
        "examples: [{role: user, content: Hi}, {role: assistant, content: Hello.}]\n"
    )
    chat = [{"role": "system", "content": "Own."}, {"role": "user", "content": "second"}]
    path = prompts_file([{"prompt": "first"}, {"prompt": chat}])
    more = ("--system", "In one sentence.", "--student-prompt", "given")
    assert collect(path, "--settings", str(settings), *more, teacher=False) == 0
    assert [row["prompt"] for row in rows_of()] == [[{"role": "user", "content": "first"}], chat]
    sent = {one.prompt: one.body["messages"] for one in server.received}
    assert [message["content"] for message in sent["first"]] == ["In one sentence.", "Hi", "Hello.", "first"]
    assert [message["content"] for message in sent["second"]] == ["Own.", "Hi", "Hello.", "second"]


def test_several_samples_are_a_list_with_seeds_of_their_own(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, tmp_path: Path
) -> None:
    server.answer = lambda body: (f"{body['messages'][-1]['content']} by seed {body['seed']}", "stop")
    path = prompts_file(5)
    assert collect(path, "--samples", "3", "--seed", "10") == 0
    rows = rows_of()
    assert rows[2]["teacher_response"] == [f"question 2 by seed {seed}" for seed in (10, 11, 12)]
    assert rows[2]["extra_info"]["finish_reason"] == ["stop"] * 3
    assert check_file(tmp_path / "out.parquet", "prompt", "teacher_response") == 5
    assert collect(path, "--samples", "4", "--seed", "10") == 0
    assert len(rows_of()[2]["teacher_response"]) == 4 and len(server.received) == 20


def test_marks_are_set_counted_and_dropped(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, card_of: Any
) -> None:
    answers = {
        "a": (" fine \n", "stop"),
        "b": ("and then it", "length"),
        "c": ("I'm sorry, but I can't help with that.", "stop"),
        "d": (" \n", "stop"),
        "e": ("fine", "stop"),
        "f": ("", "content_filter"),
    }
    server.answer = lambda body: answers[body["messages"][-1]["content"]]
    path = prompts_file([{"prompt": name} for name in "abcdefa"])
    assert collect(path, "--ask-again") == 0
    rows = {row["prompt"][0]["content"]: row for row in rows_of()}
    assert list(rows) == ["a", "b", "c", "e"] and len(rows_of()) == 4
    assert rows["a"]["teacher_response"] == "fine"
    flags = ("stopped_by_length", "refusal", "duplicate_answer")
    found = {name: [flag for flag in flags if row["extra_info"][flag]] for name, row in rows.items()}
    assert found == {"a": [], "b": ["stopped_by_length"], "c": ["refusal"], "e": ["duplicate_answer"]}
    counted = card_of()["answers"]
    assert counted["marked"] == {"empty": 1, "filtered": 1, "refusal": 1, "length": 1, "duplicate-answer": 1}
    assert counted["dropped"] == {"empty": 1, "filtered": 1} and card_of()["prompts"]["duplicates"] == 1

    everything = ("duplicate-answer", "refusal", "length")
    assert collect(path, "--ask-again", "--drop", *everything) == 0
    assert [(row["prompt"][0]["content"], row["teacher_response"]) for row in rows_of()] == [("a", "fine")]
    assert card_of()["answers"]["dropped"] == {
        "empty": 1,
        "filtered": 1,
        "length": 1,
        "refusal": 1,
        "duplicate-answer": 2,
    }
    # The repeated prompt is a prompt of its own now, the only one that was not stored.
    assert Counter(one.prompt for one in server.received) == Counter("abcdefa")


def test_empty_answers_are_asked_again_so_often_and_no_oftener(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, card_of: Any
) -> None:
    def answer(body: dict[str, Any]) -> tuple[str, str]:
        number, attempt = int(body["messages"][-1]["content"].split()[-1]), (body["seed"] - 1) // 1000
        return ("" if attempt < number else f"attempt {attempt}", "stop")

    server.answer = answer
    path = prompts_file(5)
    again = ("--seed", "1", "--temperature", "0.2", "--ask-again-times", "3", "--ask-again-warmer", "0.1")
    assert collect(path, *again) == 0
    assert [row["teacher_response"] for row in rows_of()] == [f"attempt {i}" for i in range(4)]
    assert [row["extra_info"]["attempts"] for row in rows_of()] == [1, 2, 3, 4]
    assert card_of()["answers"]["marked"]["empty"] == 1 and len(server.received) == 1 + 2 + 3 + 4 + 4
    assert {one.body["temperature"] for one in server.received} == {0.2, 0.3, 0.4, 0.5}
    assert collect(path, *again) == 0
    assert len(server.received) == 14


def test_a_cut_answer_is_kept_where_asking_again_does_not_help(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows
) -> None:
    server.answer = lambda body: ("" if body["seed"] > 1000 else "cut of", "stop" if body["seed"] > 1000 else "length")
    assert collect(prompts_file(2), "--seed", "1", "--ask-again", "empty", "length") == 0
    assert [row["teacher_response"] for row in rows_of()] == ["cut of", "cut of"]


def test_teachers_share_the_prompts_by_weight_or_all_answer(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, card_of: Any, tmp_path: Path
) -> None:
    path = prompts_file(100)
    with FaultServer(answer=lambda body: ("other", "stop"), model="second") as second:
        content = f"""
teachers:
  - {{name: big, base_url: "{server.base_url}", model: loopback, weight: 3, price: {{prompt: 2, completion: 10}}}}
  - {{name: small, base_url: "{second.base_url}", model: second, sampling: {{max_tokens: 7}}}}
sampling: {{temperature: 0.3, max_tokens: 9}}
"""
        settings = tmp_path / "settings.yaml"
        settings.write_text(content)
        assert collect(path, "--settings", str(settings), teacher=False) == 0
        rows = rows_of()
        shares = Counter(row["teacher"] for row in rows)
        assert len(rows) == 100 and 12 <= shares["small"] <= 40
        assert [row["extra_info"]["index"] for row in rows] == list(range(100))
        assert {one.body["max_tokens"] for one in server.received} == {9}
        assert {(one.body["max_tokens"], one.body["temperature"]) for one in second.received} == {(7, 0.3)}
        tokens = card_of()["tokens"]
        expected = (tokens["big"]["prompt"] * 2 + tokens["big"]["completion"] * 10) / 1e6
        assert tokens["big"]["cost"] == pytest.approx(expected) and tokens["small"]["cost"] is None
        by_prompt = {row["prompt"][0]["content"]: row["teacher"] for row in rows}

        # Another order and fewer rows: the same teacher for each prompt.
        shuffled = prompts_file([{"prompt": f"question {i}"} for i in reversed(range(20))], "other.jsonl")
        output = tmp_path / "other.parquet"
        assert collect(shuffled, "--settings", str(settings), teacher=False, output=output) == 0
        assert all(by_prompt[row["prompt"][0]["content"]] == row["teacher"] for row in rows_of(output))

        settings.write_text(content + "assign: all\n")
        output = tmp_path / "all.parquet"
        assert collect(shuffled, "--settings", str(settings), teacher=False, output=output) == 0
        assert [row["teacher"] for row in rows_of(output)] == ["big", "small"] * 20


def test_rejected_prompts_are_left_out_and_reported(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, card_of: Any
) -> None:
    server.answer = lambda body: 400 if body["messages"][-1]["content"].endswith("5") else ("fine", "stop")
    assert collect(prompts_file(20)) == 0
    assert [row["extra_info"]["index"] for row in rows_of()] == [i for i in range(20) if i % 10 != 5]
    assert card_of()["answers"]["rejections"] == {"status 400: This request cannot be processed": 2}


def test_missing_answers_end_with_an_error_and_come_later(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, tmp_path: Path, capsys: Any
) -> None:
    path = prompts_file(20)
    server.faults = Faults(server_error=0.4, seed=1)
    assert collect(path, "--attempts", "1") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "of 20 answers are missing" in error and "same command" in error
    assert not (tmp_path / "out.parquet").exists() and not (tmp_path / "out.parquet.card.json").exists()
    assert collect(path, "--attempts", "1", "--limit", "19", "--allow-missing") in (0, 2)
    server.faults = Faults()
    assert collect(path, "--attempts", "1") == 0
    assert len(rows_of()) == 20
    assert Counter(one.prompt for one in server.received if one.fault is None).most_common(1)[0][1] == 1


def test_allow_missing_writes_what_there_is(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, card_of: Any
) -> None:
    server.faults = Faults(server_error=0.4, seed=1)
    assert collect(prompts_file(20), "--attempts", "1", "--allow-missing") == 0
    assert 0 < len(rows_of()) == 20 - card_of()["answers"]["missing"] < 20


def test_what_was_to_be_asked_again_and_was_not_answered_is_missing(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, card_of: Any, tmp_path: Path, capsys: Any
) -> None:
    def answer(body: dict[str, Any]) -> tuple[str, str] | int:
        number, attempt = int(body["messages"][-1]["content"].split()[-1]), (body["seed"] - 1) // 1000
        if attempt and is_down:
            return 503
        return ("", "stop") if number == 0 and not attempt else ("cut" if number == 1 else "whole", "length")

    server.answer, is_down = answer, True
    again = ("--seed", "1", "--attempts", "1", "--ask-again", "empty", "length")
    assert collect(prompts_file(2), *again) == 2
    assert "2 of 2 answers are missing" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out.parquet").exists()
    # What says something is better than nothing.
    assert collect(prompts_file(2), *again, "--allow-missing") == 0
    assert [row["teacher_response"] for row in rows_of()] == ["cut"]
    known = card_of()["answers"]
    assert (known["wanted"], known["given"], known["missing"], known["kept"]) == (2, 1, 1, 1)
    is_down = False
    assert collect(prompts_file(2), *again, "--overwrite") == 0
    assert [row["teacher_response"] for row in rows_of()] == ["whole", "cut"]


def test_a_dry_run_asks_nothing_and_writes_nothing(
    server: FaultServer, collect: Any, prompts_file: Any, tmp_path: Path, capsys: Any
) -> None:
    path = prompts_file([{"prompt": "x" * 396}, {"prompt": "y" * 396}, {"prompt": "x" * 396}])
    price = ("--price", "10", "100", "--max-tokens", "50")
    assert collect(path, "--dry-run", *price) == 0
    said = capsys.readouterr().out
    # 396 bytes / 4 + 4 for the message = 103 tokens each; 206 x 10 + 100 x 100 per million.
    assert "3 prompts, 1 duplicates (left out)" in said and "2 answers wanted, 0 stored, 2 to ask" in said
    assert "about 206 tokens of prompts and at most 100 of answers" in said and "about 0.0121" in said
    assert not server.received and [file.name for file in tmp_path.iterdir()] == ["prompts.jsonl"]
    assert collect(path, "--limit", "1", *price) == 0
    before = sorted(file.name for file in tmp_path.iterdir())
    assert collect(path, "--dry-run", *price) == 0
    assert "1 stored, 1 to ask" in capsys.readouterr().out
    assert len(server.received) == 1 and sorted(file.name for file in tmp_path.iterdir()) == before


def test_other_settings_do_not_mix(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Rows, tmp_path: Path, capsys: Any
) -> None:
    path = prompts_file(3)
    assert collect(path, "--temperature", "0.1") == 0
    content = (tmp_path / "out.parquet").read_bytes()
    assert collect(path, "--temperature", "0.2") == 2
    assert "loopback: temperature was 0.1, is 0.2" in capsys.readouterr().err
    assert (tmp_path / "out.parquet").read_bytes() == content and len(server.received) == 3


def test_another_place_of_the_same_model_goes_on(
    server: FaultServer, collect: Any, prompts_file: Any, tmp_path: Path
) -> None:
    path = prompts_file(6)
    assert collect(path, "--limit", "4") == 0
    with FaultServer() as moved:
        more = ("--base-url", moved.base_url, "--model", moved.model)
        assert collect(path, *more, teacher=False) == 0
        assert len(moved.received) == 2
    with AnswerStore(tmp_path / "out.parquet.answers.sqlite") as store:
        assert len(store) == 6
