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
"""The gate: limits hold in every window, estimates are corrected, pauses stop everybody. On a clock of its own."""

import asyncio
from collections.abc import Callable

import pytest
from fault_server import most_in_a_window
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_verl.tools.api.gate import Gate


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def gate_of(clock: Clock, **limits: float) -> Gate:
    return Gate(**limits, clock=clock, sleep=clock.sleep)


def times_of(
    clock: Clock, gate: Gate, tokens: list[float], after: Callable[[int], None] = lambda _: None
) -> list[float]:
    """When each of several concurrent requests entered."""
    times: list[float] = []

    async def one(i: int, cost: float) -> None:
        await gate.enter(cost)
        times.append(clock.now)
        after(i)

    async def everybody() -> None:
        await asyncio.gather(*(one(i, cost) for i, cost in enumerate(tokens)))

    asyncio.run(everybody())
    return times


@settings(max_examples=30, deadline=None)
@given(limit=st.floats(1, 6000), count=st.integers(1, 200))
def test_requests_are_spaced_evenly(limit: float, count: int) -> None:
    clock = Clock()
    times = times_of(clock, gate_of(clock, requests_per_minute=limit), [1.0] * count)
    assert times[-1] - times[0] == pytest.approx((count - 1) * 60 / limit, abs=1e-6)
    # Windows are half open; a hair less than a minute, against rounding.
    assert most_in_a_window(times, 60 - 1e-6) <= limit + 1


@settings(max_examples=30, deadline=None)
@given(limit=st.floats(100, 1e5), costs=st.lists(st.floats(0, 5000), min_size=2, max_size=60))
def test_tokens_keep_the_next_request_back(limit: float, costs: list[float]) -> None:
    clock = Clock()
    times = times_of(clock, gate_of(clock, tokens_per_minute=limit), costs)
    assert times[-1] - times[0] == pytest.approx(sum(costs[:-1]) * 60 / limit, rel=1e-6, abs=1e-6)


def test_the_count_of_the_api_replaces_the_estimate() -> None:
    clock = Clock()
    gate = gate_of(clock, tokens_per_minute=600)
    times = times_of(clock, gate, [100.0, 100.0, 100.0], lambda i: gate.correct(100, [40, 250, 0][i]))
    assert [b - a for a, b in zip(times, times[1:], strict=False)] == pytest.approx([4.0, 25.0])


def test_a_pause_stops_everybody_and_the_longest_counts() -> None:
    clock = Clock()
    gate = gate_of(clock, requests_per_minute=60)

    def pause(i: int) -> None:
        if i == 1:
            gate.pause(30)
            gate.pause(5)

    times = times_of(clock, gate, [1.0] * 4, pause)
    assert [moment - times[0] for moment in times] == pytest.approx([0, 1, 31, 32])


def test_without_limits_nobody_waits() -> None:
    clock = Clock()
    assert set(times_of(clock, gate_of(clock), [1e6] * 50)) == {1000.0}
