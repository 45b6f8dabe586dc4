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
"""The rollout that sleeps has the same work in every mode, however often it is interrupted; and the bound is one."""

import asyncio
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.rollout import hf_server

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import sleeping_rollout as sleeping  # noqa: E402

LIMIT, N = 64, 4


@given(st.text(max_size=20), st.integers(8, 4000), st.floats(0, 2))
def test_lengths_depend_on_the_answer_alone_and_fit(seed: str, limit: int, spread: float) -> None:
    length = sleeping.length_of(seed, limit, spread)
    assert 3 <= length <= limit and length == sleeping.length_of(seed, limit, spread)


def test_lengths_are_mixed_around_a_quarter() -> None:
    lengths = sorted(sleeping.length_of(str(number), 1000, 0.8) for number in range(2000))
    assert 220 < lengths[1000] < 280 and lengths[-1] == 1000 and lengths[20] < 60


@given(st.integers(3, 9999))
def test_a_plan_says_how_long(whole: int) -> None:
    assert sleeping._planned([*sleeping._plan(whole), 50, 50]) == whole


async def to_the_end(server: Any, prompt: list[int], aborts: list[int]) -> list[int]:
    """As verl's client; the gate closes after so many tokens, and opens again."""
    ids: list[int] = []
    while True:
        task = asyncio.create_task(server.generate(prompt + ids, {"max_tokens": LIMIT - len(ids)}, "r"))
        if aborts:
            for _ in range(4 * aborts.pop(0)):
                await asyncio.sleep(0)
            server._is_open = False
        output = await task
        server._is_open = True
        ids += output.token_ids
        if output.stop_reason != "aborted":
            return ids


@pytest.mark.parametrize("aborts", [[], [1], [9, 2, 30]])
def test_an_answer_is_as_long_however_often_it_is_parked(monkeypatch: pytest.MonkeyPatch, aborts: list[int]) -> None:
    monkeypatch.setenv(sleeping.GENERATION, "0")
    monkeypatch.setenv(sleeping.SPREAD, "0.8")
    monkeypatch.setattr(hf_server.HFServer, "generate", None)
    sleeping._slow_rollout(hf_server)

    async def scenario() -> None:
        server = hf_server.HFServer.__new__(hf_server.HFServer)
        server.config = SimpleNamespace(response_length=LIMIT, n=N)
        server._gate, server._is_open, server._sends_away = asyncio.Condition(), True, False
        server._stop_token_ids, server.global_steps = frozenset({7, 2}), 5
        for prompt in ([11, 12], [11, 12, 13]):
            for session in range(N):
                answer = await to_the_end(server, prompt, list(aborts))
                assert len(answer) == sleeping.length_of(f"{prompt}/{session}", LIMIT, 0.8)
                assert answer[-1] == 2 and 2 not in answer[2:-1]

    asyncio.run(scenario())


@given(st.floats(0.1, 50), st.floats(0.1, 50))
def test_the_bound_is_that_of_perfect_overlap(generation: float, training: float) -> None:
    # A keyword, so no import statement.
    bench = importlib.import_module("async")
    steps = [{"timing_s/gen": generation, "timing_s/step": generation + training}] * 3
    assert bench.bound(steps) == pytest.approx((generation + training) / max(generation, training))
    age = {"training/off_policy/trajectory_staleness_worst/mean": 0.0}
    found = bench.row("case", "mode", [one | age for one in steps], sync_s=2 * (generation + training))
    assert found["speed"] == pytest.approx(2.0) and found["waits"] == pytest.approx(
        generation / (generation + training)
    )
