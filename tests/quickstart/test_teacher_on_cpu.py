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
"""The teacher of the quickstart: what is asked, and the rows that come out, against the loopback server."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import teacher
from fault_server import Faults, FaultServer
from prompts import load_prompts

from gad_verl.data.schema import check_file

FEW = 12


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first prompts of each side, for the sake of time."""
    monkeypatch.setattr(teacher, "load_prompts", lambda split: load_prompts(split)[:FEW])


def run(server: FaultServer, output: Path, *more: str) -> int:
    return teacher.main(
        ["collect", "--output", str(output), "--base-url", server.base_url, "--model", server.model, *more]
    )


def test_both_files_hold_the_prompt_alone_and_the_teachers_manner(tmp_path: Path) -> None:
    with FaultServer(answer=lambda body: (f" Simply put, {body['messages'][-1]['content']} ", "stop")) as server:
        assert run(server, tmp_path) == 0
        asked = server.received[0].body
    for split in ("train", "val"):
        prompts, rows = load_prompts(split)[:FEW], pq.read_table(tmp_path / f"{split}.parquet").to_pylist()
        assert check_file(tmp_path / f"{split}.parquet", "prompt", "teacher_response") == len(prompts)
        assert [row["prompt"] for row in rows] == [[{"role": "user", "content": prompt.text}] for prompt in prompts]
        assert [row["teacher_response"] for row in rows] == [f"Simply put, {prompt.text}" for prompt in prompts]
        assert [row["extra_info"]["id"] for row in rows] == [str(prompt.index) for prompt in prompts]
        assert {row["data_source"] for row in rows} == {"quickstart"}
    roles = [message["role"] for message in asked["messages"]]
    assert roles == ["system", *["user", "assistant"] * len(teacher.EXAMPLES), "user"]
    assert asked["messages"][0]["content"] == teacher.SYSTEM_PROMPT and asked["max_tokens"] == 48


def test_an_empty_or_cut_answer_is_asked_again_and_left_out_in_the_end(tmp_path: Path) -> None:
    prompts = load_prompts("val")[:FEW]
    first, second = prompts[0].text, prompts[1].text

    def answer(body: dict) -> tuple[str, str]:
        question, attempt = body["messages"][-1]["content"], (body["seed"] - 20251114) // 1000
        if question == first and attempt < 2:
            return ("", "stop") if attempt else ("and so on", "length")
        return ("cut", "length") if question == second else ("Simply put, yes.", "stop")

    with FaultServer(answer=answer) as server:
        assert run(server, tmp_path) == 0
        warm = {one.body["temperature"] for one in server.received if one.prompt == second}
        assert warm == {0.3, 0.5, 0.7, 0.9}
    rows = pq.read_table(tmp_path / "val.parquet").to_pylist()
    assert [row["extra_info"]["id"] for row in rows] == [str(p.index) for p in prompts if p.text != second]
    assert rows[0]["extra_info"]["attempts"] == 3


def test_an_ended_collection_goes_on(tmp_path: Path) -> None:
    with FaultServer(faults=Faults(rate_limited=0.2, retry_after="3600")) as server:
        assert run(server, tmp_path) == 1
        server.faults = Faults()
        assert run(server, tmp_path) == 0
        answered = Counter(one.prompt for one in server.received if one.fault is None)
        # What was under way when the run ended is asked again.
        assert len(answered) == 2 * FEW and answered.total() - len(answered) <= 8
        before = len(server.received)
        assert run(server, tmp_path) == 0
        assert len(server.received) == before


def test_an_error_is_one_line_and_a_status(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FaultServer() as server:
        assert run(server, tmp_path, "--model", "unknown") == 1
    assert "has no model 'unknown'" in caplog.text and not list(tmp_path.iterdir())


def test_examples_are_no_prompts() -> None:
    assert not {question for question, _ in teacher.EXAMPLES} & {prompt.text for prompt in load_prompts()}


def test_the_card_names_the_manner(tmp_path: Path) -> None:
    with FaultServer() as server:
        assert run(server, tmp_path) == 0
    card = json.loads((tmp_path / "val.parquet.card.json").read_text())
    assert (
        card["settings"]["framing"]["system"] == teacher.SYSTEM_PROMPT and card["settings"]["student_prompt"] == "given"
    )
