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
"""The teacher: collecting from a client that is no network, interruption, and the rows that come out."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pyarrow.parquet as pq
import pytest
import teacher
from prompts import Prompt, load_prompts
from teacher import Answer, Settings, TeacherError

SETTINGS = Settings()


class FakeClient:
    """Stands in for ``openai.AsyncOpenAI``; ``replies`` maps (question, attempt) to (text, finish reason)."""

    replies: dict[tuple[str, int], tuple[str, str]] = {}
    fails_after: int | None = None
    asked: list[dict[str, Any]] = []

    def __init__(self, **kwargs: Any) -> None:
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.create))

    async def __aenter__(self) -> "FakeClient":
        return self

    async def __aexit__(self, *args: object) -> None:
        return None

    async def create(self, *, messages: list[dict[str, str]], seed: int, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise openai.OpenAIError("the server is gone")
        self.asked.append({"messages": messages, "seed": seed, **kwargs})
        question = messages[-1]["content"]
        text, reason = self.replies.get((question, seed - SETTINGS.seed), (f" Simply put, {question} ", "stop"))
        message = SimpleNamespace(content=text)
        return SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason=reason)], usage=None)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    fresh = type("Client", (FakeClient,), {"replies": {}, "asked": [], "fails_after": None})
    monkeypatch.setattr(openai, "AsyncOpenAI", fresh)
    return fresh


def run(prompts: list[Prompt], path: Path, settings: Settings = SETTINGS) -> list[Answer]:
    return asyncio.run(teacher.collect(prompts, path, settings, "http://localhost/v1", "key", parallel=3))


def test_answers_are_in_order_and_stripped(client: type[FakeClient], tmp_path: Path) -> None:
    prompts = load_prompts("val")[:7]
    answers = run(prompts, tmp_path / "answers.jsonl")
    assert [answer.response for answer in answers] == [f"Simply put, {prompt.text}" for prompt in prompts]
    assert client.asked[0]["messages"][0] == {"role": "system", "content": teacher.SYSTEM_PROMPT}


def test_an_interrupted_run_goes_on(client: type[FakeClient], tmp_path: Path) -> None:
    prompts, path = load_prompts("val")[:9], tmp_path / "answers.jsonl"
    client.fails_after = 5
    with pytest.raises(TeacherError, match="goes on from there"):
        run(prompts, path)
    kept = len(path.read_text().splitlines())
    assert 0 < kept <= 5
    with open(path, "a") as file:
        file.write('{"index": 3, "resp')  # killed while writing
    client.fails_after, before = None, len(client.asked)
    answers = run(prompts, path)
    assert len(answers) == 9
    assert len(client.asked) - before == 9 - kept
    assert len({json.loads(line)["index"] for line in path.read_text().splitlines()}) == 9


def test_a_finished_run_asks_nothing(client: type[FakeClient], tmp_path: Path) -> None:
    prompts = load_prompts("val")[:4]
    first = run(prompts, tmp_path / "answers.jsonl")
    assert run(prompts, tmp_path / "answers.jsonl") == first
    assert len(client.asked) == 4


def test_other_settings_ask_again(client: type[FakeClient], tmp_path: Path) -> None:
    prompts = load_prompts("val")[:4]
    run(prompts, tmp_path / "answers.jsonl")
    run(prompts, tmp_path / "answers.jsonl", replace(SETTINGS, model="another"))
    assert len(client.asked) == 8


def test_a_cut_or_empty_answer_is_asked_again_and_marked(client: type[FakeClient], tmp_path: Path) -> None:
    prompts = load_prompts("val")[:3]
    first, second, _ = (prompt.text for prompt in prompts)
    client.replies[first, 0] = ("and so on", "length")
    client.replies |= {(second, attempt): ("  ", "stop") for attempt in range(SETTINGS.attempts)}
    answers = run(prompts, tmp_path / "answers.jsonl")
    assert [answer.usable for answer in answers] == [True, False, True]
    assert [answer.attempts for answer in answers] == [2, SETTINGS.attempts, 1]
    rows = teacher.to_rows(prompts, answers, "someone")
    assert [row["extra_info"]["index"] for row in rows] == [prompts[0].index, prompts[2].index]


def test_rows_hold_the_users_turn_alone(client: type[FakeClient], tmp_path: Path) -> None:
    prompts = load_prompts("val")[:2]
    rows = teacher.to_rows(prompts, run(prompts, tmp_path / "answers.jsonl"), "someone")
    teacher.write_parquet(rows, tmp_path / "val.parquet")
    assert pq.read_table(tmp_path / "val.parquet").to_pylist() == rows
    assert rows[0] == {
        "prompt": [{"role": "user", "content": prompts[0].text}],
        "teacher_response": f"Simply put, {prompts[0].text}",
        "teacher": "someone",
        "data_source": "quickstart",
        "extra_info": {"index": prompts[0].index},
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "val.parquet"]


def test_examples_are_no_prompts() -> None:
    assert not {question for question, _ in teacher.EXAMPLES} & {prompt.text for prompt in load_prompts()}
