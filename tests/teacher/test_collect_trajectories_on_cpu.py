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
"""Collection with tools: a teacher on loopback that calls them, interrupted and gone on with."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fault_server import Faults, FaultServer, Reply
from tool_language import TOOLS_FILE, adding

from gad_verl.cli import main
from gad_verl.data.trajectory_messages import trajectory_texts

NUMBERS = [(1, 2), (3, 4), (5, 6), (7, 8)]


def choice(message: dict[str, Any], reason: str) -> Reply:
    return Reply(
        {
            "model": "loopback",
            "choices": [{"message": {"role": "assistant", **message}, "finish_reason": reason}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        }
    )


def teacher(body: dict[str, Any]) -> Any:
    """Calls ``add`` for what the user asks, and says what came out."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        return choice({"content": f"it is {last['content']}"}, "stop")
    numbers = re.fullmatch(r"(\d+)\+(\d+)", last["content"])
    if numbers is None or "tools" not in body:
        return choice({"content": "hello"}, "stop")
    a, b = map(int, numbers.groups())
    called = {"id": "x", "type": "function", "function": {"name": "add", "arguments": json.dumps({"a": a, "b": b})}}
    return choice({"content": None, "tool_calls": [called]}, "tool_calls")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{a}+{b}"}) + "\n" for a, b in NUMBERS))
    return path


def collect(server: FaultServer, prompts: Path, output: Path, *more: str) -> int:
    command = ["teacher", "collect", "--prompts", str(prompts), "--output", str(output), "--tools", str(TOOLS_FILE)]
    return main([*command, "--base-url", server.base_url, "--model", server.model, *more])


def test_trajectories_are_collected_and_nothing_is_asked_twice(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.parquet"
    with FaultServer(answer=teacher) as server:
        # Cut off after the first turn: all calls are there, and no answer.
        assert collect(server, prompts, output, "--max-turns", "1") == 2
        before = len(server.received)
        assert collect(server, prompts, output) == 0
        asked = [one for one in server.received[before:] if "tools" in one.body]
        assert len(asked) == len(NUMBERS) and {one.body["messages"][-1]["role"] for one in asked} == {"tool"}
        before = len(server.received)
        assert collect(server, prompts, output) == 0
        assert len(server.received) == before
    frame = pd.read_parquet(output)
    for (a, b), row in zip(NUMBERS, frame.to_dict("records"), strict=True):
        assert [row["teacher_messages"]] == trajectory_texts(adding(a, b), "here")
        assert [dict(message) for message in row["prompt"]] == [{"role": "user", "content": f"{a}+{b}"}]
        assert {tool["function"]["name"] for tool in json.loads(row["tools"])} == {"add", "spell"}
    said = capsys.readouterr()
    assert "4 trajectories of 4 (stop 4), 2.00 turns and 1.00 calls each" in said.out
    # The bar counts turns, and is full at the end.
    assert re.findall(r"(\d+)/(\d+) ", said.err)[-1] == ("8", "8")
    card = json.loads((tmp_path / "out.parquet.card.json").read_text())
    assert card["trajectories"]["wanted"] == 4 and card["calls"] == 1.0


def test_faults_of_the_server_cost_nothing(prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    with FaultServer(answer=teacher, faults=Faults(server_error=0.2, broken_json=0.1, rate_limited=0.1)) as server:
        assert collect(server, prompts, output) == 0
    assert len(pd.read_parquet(output)) == len(NUMBERS)


@pytest.mark.parametrize("more", [("--samples", "2", "--temperature", "1"), ("--stream",), ("--dry-run",)])
def test_what_does_not_go_with_tools_is_refused(
    prompts: Path, tmp_path: Path, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultServer(answer=teacher) as server:
        assert collect(server, prompts, tmp_path / "out.parquet", *more) == 2
        assert not server.received
    assert "--tools" in capsys.readouterr().err
