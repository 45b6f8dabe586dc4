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
"""``gad-verl teacher collect`` against APIs of other manners: what is kept, what is not asked again, what is said."""

from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer, Reply, completion


def whole(body: dict[str, Any], text: str | None, reason: str | None, **message: Any) -> Reply:
    answer = completion("m", body, "", "stop")
    answer["choices"][0] = {"message": {"content": text, **message}, "finish_reason": reason}
    return Reply(answer)


def test_answers_that_a_filter_cut_are_left_out_and_counted(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Any, card_of: Any
) -> None:
    texts = {"question 0": "Half an ans", "question 1": None, "question 2": "fine", "question 3": "   "}

    def answer(body: dict[str, Any]) -> Reply:
        text = texts[body["messages"][-1]["content"]]
        return whole(body, text, "stop" if text == "fine" else "content_filter")

    server.answer = answer
    assert collect(prompts_file(4)) == 0
    assert [row["teacher_response"] for row in rows_of()] == ["fine"]
    counted = card_of()["answers"]
    assert counted["marked"] == counted["dropped"] == {"filtered": 3} and len(server.received) == 4


def test_filtered_answers_are_asked_again_on_demand(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Any
) -> None:
    server.answer = lambda body: whole(body, "a", "content_filter" if len(server.received) < 3 else "stop")
    assert collect(prompts_file(1), "--ask-again", "filtered") == 0
    assert len(server.received) == 3 and rows_of()[0]["extra_info"]["attempts"] == 3


def test_thoughts_that_take_the_whole_limit_are_asked_once_and_named(
    server: FaultServer, collect: Any, prompts_file: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server.answer = lambda body: whole(body, None, "length", reasoning_content="Let me see")
    assert collect(prompts_file(4)) == 2
    said = capsys.readouterr().err
    assert "no answer can be used (empty: 4)" in said and "4 empty answers were stopped by their length" in said
    assert "larger --max-tokens" in said and len(server.received) == 4
    assert not (tmp_path / "out.parquet").exists()
    assert collect(prompts_file(4), "--ask-again", "length") == 2
    assert len(server.received) == 4 + 8


def test_thoughts_alone_are_named_where_their_text_stands(
    server: FaultServer, collect: Any, prompts_file: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda body: (
        whole(body, "", "stop", reasoning="The answer is blue.")
        if body["messages"][-1]["content"] == "question 1"
        else whole(body, "fine", "stop", reasoning="hm")
    )
    assert collect(prompts_file(3), "--ask-again") == 0
    assert "1 answers have no text, but thoughts in a field of their own" in caplog.text


def test_the_apis_words_stand_in_the_error_where_everything_is_refused(
    server: FaultServer, collect: Any, prompts_file: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda body: Reply({"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs"}]}, 422)
    assert collect(prompts_file(3), "--extra-body", '{"top_k": 3}') == 2
    assert "no answer can be used (rejected: 3)" in (said := capsys.readouterr().err)
    assert "The API says: status 422: body.top_k: Extra inputs" in said


def test_answers_without_a_reason_are_kept_and_counted(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Any, card_of: Any
) -> None:
    server.answer = lambda body: whole(body, "fine", None)
    assert collect(prompts_file(3)) == 0 and len(server.received) == 3
    assert [row["extra_info"]["finish_reason"] for row in rows_of()] == ["unknown"] * 3
    assert card_of()["answers"]["finish_reasons"] == {"unknown": 3}


@pytest.mark.parametrize("more", [(), ("--stream",)])
def test_a_model_that_only_streams(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Any, more: tuple[str, ...]
) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        if not body.get("stream"):
            return Reply({"error": {"message": "This model only supports stream mode."}}, 400)
        events = ('{"choices": [{"delta": {"content": "fine"}, "finish_reason": "stop"}]}', "[DONE]")
        return Reply("".join(f"data: {event}\n\n" for event in events), content_type="text/event-stream")

    server.answer, server.models_reply = answer, Reply({"data": [{"id": "another"}]})
    assert collect(prompts_file(3), "--concurrency", "1", *more) == 0
    assert [row["teacher_response"] for row in rows_of()] == ["fine"] * 3
    # One for the check before the first prompt; each of the two learns the manner once, unless it is told.
    assert len(server.received) == 4 + (0 if more else 2)


def test_a_key_that_ends_midway_keeps_what_was_paid_for(
    server: FaultServer, collect: Any, prompts_file: Any, rows_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.latency_s, counts = 0.05, []

    def answer(body: dict[str, Any]) -> Any:
        counts.append(body)
        return 401 if len(counts) == 30 else ("fine", "stop")

    server.answer = answer
    assert collect(prompts_file(60)) == 2
    assert "refuses the key" in capsys.readouterr().err
    paid = len(server.received) - 1
    server.answer = lambda body: ("fine", "stop")
    assert collect(prompts_file(60)) == 0 and len(rows_of()) == 60
    assert len(server.received) == 1 + paid + (60 - paid)
