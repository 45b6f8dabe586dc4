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
"""A worker that hangs ends the run with the reason; of those that died, only the ones that nobody ended count."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import ray
from main_ppo import hook_environment, run_main_ppo
from tiny_model import build_all

from gad_verl.trainer.deaths import memory_ran_out, sudden_deaths

pytestmark = pytest.mark.e2e

# Of the steps; the start-up takes longer (tools/patience_hook.py).
STAGE_TIMEOUT_S = 20


def test_deaths_that_nobody_asked_for() -> None:
    """Real actors: one is killed as by the kernel, one ends itself, one is ended by Ray, one goes out of scope."""
    ray.init(num_cpus=4, include_dashboard=False, logging_level="ERROR")
    try:

        @ray.remote(num_cpus=0)
        class Part:
            def pid(self) -> int:
                return os.getpid()

            def leave(self) -> None:
                ray.actor.exit_actor()

        parts = {name: Part.remote() for name in ("lives", "crashes", "crashes_too", "leaves", "ended", "forgotten")}
        pids = {name: ray.get(part.pid.remote()) for name, part in parts.items()}
        assert sudden_deaths() == {}
        os.kill(pids["crashes"], signal.SIGKILL)
        parts["leaves"].leave.remote()
        ray.kill(parts["ended"])
        del parts["forgotten"]
        deadline = time.monotonic() + 30
        while not sudden_deaths() and time.monotonic() < deadline:
            time.sleep(0.2)
        # The others need no more time than that one.
        time.sleep(3)
        (text,) = sudden_deaths().values()
        assert text.startswith(f"Part (process {pids['crashes']} on ")
        os.kill(pids["crashes_too"], signal.SIGKILL)
        while len(sudden_deaths()) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        first, second = sudden_deaths().values()
        assert first == text and f"process {pids['crashes_too']} on " in second
        assert memory_ran_out() is None
    finally:
        ray.shutdown()


def test_who_took_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's memory monitor, told that next to nothing is full, kills an actor; its words must be those that we know."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
    try:

        @ray.remote(num_cpus=0)
        class Spared:
            pass

        part = Spared.remote()
        deadline = time.monotonic() + 60
        while memory_ran_out() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert re.search(
            r"ran out \([\d.]+GB used / [\d.]+GB limit\), most of it taken by \S+ [\d.]+ GB, ", memory_ran_out()
        )
        (text,) = sudden_deaths().values()
        assert text.startswith("Spared (process ")
        del part
    finally:
        ray.shutdown()


def _freeze_discriminator(process: subprocess.Popen, log: Path) -> None:
    """Stop (not kill) the discriminator's process once training is under way."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if "step:2 -" in log.read_text(encoding="utf-8", errors="replace"):
            workers = [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if "DiscriminatorWorker" in " ".join(child.cmdline())
            ]
            assert workers, "no process of the discriminator found"
            for worker in workers:
                os.kill(worker.pid, signal.SIGSTOP)
            return
        time.sleep(0.5)
    raise AssertionError(f"the run never reached step 2:\n{log.read_text(errors='replace')[-3000:]}")


def test_hung_worker_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    frozen_at: list[float] = []

    def freeze(process: subprocess.Popen, log: Path) -> None:
        _freeze_discriminator(process, log)
        frozen_at.append(time.monotonic())

    run = run_main_ppo(
        build_all(tmp_path),
        "hung",
        "trainer.total_training_steps=1000",
        "trainer.total_epochs=1000",
        "gad.warmup_steps=500",
        "gad.watchdog.stage_timeout_s=250",
        "gad.watchdog.check_interval_s=2",
        env=hook_environment("patience_hook", GAD_TEST_PATIENCE_S=str(STAGE_TIMEOUT_S)),
        while_running=freeze,
        timeout_s=540,
    )
    assert run.returncode not in (0, -signal.SIGKILL)
    assert time.monotonic() - frozen_at[0] < 240
    assert f"gad.watchdog.stage_timeout_s={STAGE_TIMEOUT_S}:" in run.output
    assert "GadStalledError" in run.output
