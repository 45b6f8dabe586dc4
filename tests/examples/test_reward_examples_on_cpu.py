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
"""Rewards over any OpenAI-compatible API, and checks as a reward: the shipped examples."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fault_server import Faults, FaultServer

from gad_verl.errors import GadEndpointError
from gad_verl.trainer.group_rewards import AnswerGroup

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "rewards"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def groups_of(*answers: tuple[str | None, ...]) -> list[AnswerGroup]:
    return [
        AnswerGroup([{"role": "user", "content": f"request {number}"}], (f"teacher {number}",), some, {})
        for number, some in enumerate(answers)
    ]


def by_length(body: dict[str, Any]) -> tuple[str, str]:
    """Marks each answer by its length; checks the points that an answer names."""
    text = body["messages"][-1]["content"]
    if "Write 4 to 8 points" in text:
        return "- it says a\n- it says b\n* it says c\n- it says d", "stop"
    if "[Points]" in text:
        answer = text.partition("[Answer]\n")[2].partition("\n\n[Points]")[0]
        points = re.findall(r"^(\d+)\. it says (\w)$", text, re.MULTILINE)
        met = [number for number, letter in points if letter in answer]
        return ", ".join(met) or "none", "stop"
    answers = re.findall(r"\[Answer (\d+)\]\n(.*)", text)
    return "\n".join(f"{number}: {min(10, len(answer))}" for number, answer in answers), "stop"


Start = Callable[..., FaultServer]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    servers: list[FaultServer] = []

    def started(**more: Any) -> FaultServer:
        server = FaultServer(by_length, **more).__enter__()
        servers.append(server)
        monkeypatch.setenv("GAD_REWARD_URL", server.base_url)
        monkeypatch.setenv("GAD_REWARD_MODEL", server.model)
        monkeypatch.setenv("GAD_REWARD_STORE", str(tmp_path / "store.sqlite"))
        return server

    yield started
    for server in servers:
        server.__exit__(None, None, None)


def close(module: ModuleType) -> None:
    """What the end of a run does."""
    module.connection()[1].close()


def test_a_judge_is_asked_once_for_all_answers_to_a_prompt(start: Start) -> None:
    server, judge = start(), loaded("judge")
    groups = groups_of(("aaa", "aaaaaa", None, "aaa"), ("a" * 20, "", "aa", None))
    assert judge.marks(groups) == [[0.3, 0.6, None, 0.3], [1.0, 0.0, 0.2, None]]
    assert len(server.received) == 2
    close(judge)
    # A run that is resumed asks nothing again.
    again = loaded("judge")
    assert again.marks(groups) == [[0.3, 0.6, None, 0.3], [1.0, 0.0, 0.2, None]] and len(server.received) == 2
    close(again)


def test_a_rubric_gives_the_share_of_its_points(start: Start) -> None:
    server, rubric = start(), loaded("rubric")
    found = rubric.share(groups_of(("a and b", "x", None), ("abcd", "d", "abcd")))
    # "and" has a and d.
    assert found == [[0.75, 0.0, None], [1.0, 0.25, 1.0]]
    # A question for the points of each prompt, one for each different answer.
    assert len(server.received) == 2 + 4
    close(rubric.judge)


def test_faults_of_the_api_cost_no_step(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start(faults=Faults(server_error=0.3, rate_limited=0.2, seed=3))
    monkeypatch.setenv("GAD_REWARD_ATTEMPTS", "6")
    judge = loaded("judge")
    groups = groups_of(*(("a" * (number % 7 + 1), "aa") for number in range(12)))
    found = judge.marks(groups)
    known = [reward for rewards in found for reward in rewards if reward is not None]
    assert len(known) >= 20 and all(0 < reward <= 1 for reward in known)
    close(judge)


def test_an_api_that_answers_nothing_ends_the_run(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start(faults=Faults(server_error=1.0))
    monkeypatch.setenv("GAD_REWARD_ATTEMPTS", "1")
    judge = loaded("judge")
    with pytest.raises(GadEndpointError):
        judge.marks(groups_of(("a",), ("b",)))
    close(judge)


@pytest.mark.parametrize(
    ("reply", "marks"),
    [
        ("1: 7\n2: 10", [0.7, 1.0]),
        ("**1**: 7/10\n2) 3.5", [0.7, 0.35]),
        ("1: 7", None),
        ("1: 7\n1: 8", None),
        ("1: 7\n2: 11", None),
        ("1: 7\n2: 5\n3: 4", None),
        (None, None),
    ],
)
def test_marks_that_can_be_read(reply: str | None, marks: list[float] | None) -> None:
    assert loaded("judge").read_marks(reply, 2) == marks


@pytest.mark.parametrize(
    ("reply", "share"), [("1, 3", 0.5), ("None.", 0.0), ("5", None), ("all of them", None), ("2,2", 0.25), (None, None)]
)
def test_shares_that_can_be_read(reply: str | None, share: float | None) -> None:
    assert loaded("rubric").read_share(reply, 4) == share


def test_checks_of_the_rows_are_a_reward() -> None:
    checks = [{"kind": "number", "value": 4}, {"kind": "punctuation:no_comma"}]
    groups = [
        AnswerGroup([], ("t",), ("it is 4", "4, no, 5", None), {"checks": checks}),
        AnswerGroup([], ("t",), ("anything",), {}),
    ]
    assert loaded("checks").passed(groups) == [[1.0, 0.0, None], [None]]
