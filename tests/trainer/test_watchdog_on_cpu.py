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
"""A dead or hung worker ends the run with the reason."""

import time
from typing import Any

import pytest

from gad_verl.config import WatchdogConfig
from gad_verl.errors import GadStalledError
from gad_verl.trainer import watchdog as module
from gad_verl.trainer.watchdog import Watchdog


class FakeActor:
    """Stands for a Ray actor."""

    def __init__(self, dead: bool = False) -> None:
        self.dead = dead
        self.killed = False


class Clock:
    """Seconds that a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture(autouse=True)
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "actor_is_dead", lambda actor: actor.dead)
    monkeypatch.setattr(module, "actor_id", lambda actor: str(id(actor)))


def kill(actor: FakeActor) -> None:
    actor.killed = True


def build(actors: dict[str, Any], **settings: Any) -> Watchdog:
    return Watchdog(
        WatchdogConfig(**({"check_interval_s": 10.0, "stage_timeout_s": 100.0} | settings)),
        lambda: actors,
        kill,
        deaths=dict,
        memory=lambda: None,
    )


def test_healthy_workers(clock: Clock) -> None:
    watchdog = build({"student 0": FakeActor()})
    assert watchdog.look() is None
    clock.now += 100.0
    assert watchdog.look() is None
    watchdog.check()


def test_dead_workers_are_named(clock: Clock) -> None:
    actors = {"student 0": FakeActor(), "discriminator 1": FakeActor(), "rollout server 2": FakeActor()}
    watchdog = build(actors)
    watchdog.beat("gen")
    actors["discriminator 1"].dead = True
    reason = watchdog.look()
    assert "discriminator 1 died" in reason and "'gen'" in reason and "student" not in reason
    actors["rollout server 2"].dead = True
    assert "discriminator 1, rollout server 2" in watchdog.look()
    # Workers that start later are found.
    actors.clear()
    assert watchdog.look() is None
    actors["agent loop 0"] = FakeActor(dead=True)
    assert "agent loop 0" in watchdog.look()


def test_what_belongs_to_nobody_is_named_too_and_nothing_twice(clock: Clock) -> None:
    student = FakeActor()
    deaths: dict[str, str] = {}
    watchdog = Watchdog(WatchdogConfig(), lambda: {"student 0": student}, kill, deaths=lambda: deaths)
    assert watchdog.look() is None
    deaths["other"] = "TransferQueueController (process 7 on 10.0.0.2)"
    assert "worker TransferQueueController (process 7 on 10.0.0.2) died during" in watchdog.look()
    student.dead = True
    deaths[str(id(student))] = "WorkerDict (process 8 on 10.0.0.2)"
    reason = watchdog.look()
    # By our name, and where it was.
    assert "student 0 (process 8 on 10.0.0.2), TransferQueueController" in reason and "WorkerDict" not in reason


def test_who_was_killed_for_lack_of_memory_is_not_blamed(clock: Clock) -> None:
    """Ray ends what it can spare: the reason says what took the memory, and no log has a last word of the dead."""
    agent = FakeActor(dead=True)
    words = "Ray killed workers because the memory of the node ran out"
    watchdog = Watchdog(WatchdogConfig(), lambda: {"agent loop 0": agent}, kill, deaths=dict, memory=lambda: words)
    reason = watchdog.look()
    assert f"agent loop 0 died during 'start-up'; {words}. Keep less there" in reason and "last words" not in reason


def test_a_death_behind_an_error_of_verl_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """verl's error comes at once, Ray's news of the death a moment later, the watchdog's next look in a minute."""
    monkeypatch.setattr(module.ray, "is_initialized", lambda: True)
    news = iter([{}, {}, {"1": "GlobalRequestLoadBalancer (process 3 on 10.0.0.2)"}])
    watchdog = Watchdog(
        WatchdogConfig(check_interval_s=60.0), dict, kill, deaths=lambda: next(news), memory=lambda: None
    )

    def fails() -> None:
        raise RuntimeError("Enable ...sync_refill_failed_groups")

    watchdog.start()
    try:
        with pytest.raises(GadStalledError, match="GlobalRequestLoadBalancer .process 3 on 10.0.0.2. died"):
            watchdog.explain(fails)
    finally:
        watchdog.stop()


def test_an_error_without_a_death_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(module, "_NEWS_SECONDS", 0.1)
    watchdog = Watchdog(WatchdogConfig(check_interval_s=60.0), dict, kill, deaths=dict, memory=lambda: None)

    def fails() -> None:
        raise RuntimeError("of the user")

    watchdog.start()
    with pytest.raises(RuntimeError, match="of the user"):
        watchdog.explain(fails)
    # Where the set-up fails nobody else stops it, and a thread that is left looks at whatever comes after the run.
    wait_for(lambda: not watchdog._thread.is_alive())


def test_hung_stage_is_named(clock: Clock) -> None:
    watchdog = build({})
    clock.now += 101.0
    assert "'start-up'" in watchdog.look() and "gad.watchdog.stage_timeout_s=100" in watchdog.look()
    # Progress starts the time anew.
    watchdog.beat("update_actor")
    assert watchdog.look() is None
    clock.now += 150.0
    assert "'update_actor' has taken 150 s" in watchdog.look()


def wait_for(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def test_the_thread_finds_kills_and_tells() -> None:
    actors = {"student 0": FakeActor(dead=True), "student 1": FakeActor()}
    watchdog = build(actors, check_interval_s=0.01)
    watchdog.start()
    try:
        wait_for(lambda: actors["student 0"].killed and actors["student 1"].killed)
        with pytest.raises(GadStalledError, match="student 0 died"):
            watchdog.check()
    finally:
        watchdog.stop()
    wait_for(lambda: not watchdog._thread.is_alive())


def test_the_thread_survives_a_failed_look(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([RuntimeError("the control store is busy")])

    def sometimes(actor: FakeActor) -> bool:
        error = next(answers, None)
        if error is not None:
            raise error
        return True

    monkeypatch.setattr(module, "actor_is_dead", sometimes)
    watchdog = build({"student 0": FakeActor()}, check_interval_s=0.01)
    watchdog.start()
    try:
        wait_for(lambda: watchdog.failure is not None)
    finally:
        watchdog.stop()
    wait_for(lambda: not watchdog._thread.is_alive())


def test_a_worker_that_cannot_be_killed_does_not_save_the_others() -> None:
    actors = {"student 0": FakeActor(dead=True), "student 1": FakeActor()}

    def stubborn(actor: FakeActor) -> None:
        if actor.dead:
            raise RuntimeError("gone already")
        kill(actor)

    watchdog = Watchdog(WatchdogConfig(check_interval_s=0.01), lambda: actors, stubborn, deaths=dict)
    watchdog.start()
    try:
        wait_for(lambda: actors["student 1"].killed)
    finally:
        watchdog.stop()


def test_switched_off() -> None:
    watchdog = build({"student 0": FakeActor(dead=True)}, enable=False, check_interval_s=0.01)
    watchdog.start()
    assert watchdog._thread is None
    watchdog.check()
    watchdog.stop()
