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
"""The watchdog on real Ray actors: it sees a dead one while another is busy, and frees whoever waits."""

import time
from collections.abc import Iterator

import pytest
import ray

from gad_verl.config import WatchdogConfig
from gad_verl.errors import GadStalledError
from gad_verl.trainer.deaths import actor_is_dead
from gad_verl.trainer.watchdog import Watchdog


@ray.remote
class Sleeper:
    """Blocks its only thread, as a training worker does during a step."""

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=80_000_000)
    yield
    ray.shutdown()


def _wait_until(condition: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert condition()


def test_a_killed_actor_is_dead_and_a_busy_one_is_not() -> None:
    busy, killed = Sleeper.remote(), Sleeper.remote()
    ray.get([busy.sleep.remote(0), killed.sleep.remote(0)])
    busy.sleep.remote(60)
    ray.kill(killed, no_restart=True)
    _wait_until(lambda: actor_is_dead(killed))
    assert not actor_is_dead(busy)


def test_a_dead_worker_is_reported_by_name() -> None:
    lost = Sleeper.remote()
    ray.get(lost.sleep.remote(0))
    watchdog = Watchdog(WatchdogConfig(check_interval_s=0.2, stage_timeout_s=60), lambda: {"rollout server 0": lost})
    watchdog.beat("gen")
    assert watchdog.look() is None
    ray.kill(lost, no_restart=True)
    _wait_until(lambda: watchdog.look() is not None)
    assert "rollout server 0" in watchdog.look() and "'gen'" in watchdog.look()


def test_a_hung_worker_is_killed_and_its_caller_freed() -> None:
    hung = Sleeper.remote()
    ray.get(hung.sleep.remote(0))
    watchdog = Watchdog(WatchdogConfig(check_interval_s=0.2, stage_timeout_s=1.0), lambda: {"student 0": hung})
    watchdog.start()
    watchdog.beat("update_actor")
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(hung.sleep.remote(120), timeout=60)
    watchdog.stop()
    with pytest.raises(GadStalledError, match="update_actor.*stage_timeout_s=1"):
        watchdog.check()
