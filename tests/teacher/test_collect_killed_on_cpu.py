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
"""Collections that are killed on the way: nothing is lost and nothing is asked twice after it was stored."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer
from local_server import real_server

from gad_verl.tools.api.store import AnswerStore


def command(prompts: Path, output: Path, base_url: str, model: str, *more: str) -> list[str]:
    where = ["--prompts", str(prompts), "--output", str(output), "--base-url", base_url, "--model", model]
    return [sys.executable, "-m", "gad_verl.cli", "teacher", "collect", *where, *more]


def stored_keys(output: Path) -> set[str]:
    with AnswerStore(output.with_name(f"{output.name}.answers.sqlite")) as store:
        return set(store.keys())


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.01)


def test_two_sigkills_on_the_way_to_200_answers(prompts_file: Any, rows_of: Any, tmp_path: Path) -> None:
    prompts, output = prompts_file(200), tmp_path / "out.parquet"
    with FaultServer(latency_s=0.05) as server:
        run = command(prompts, output, server.base_url, server.model, "--concurrency", "8")
        stored_before: set[str] = set()
        asked_again = 0
        for kill_after in (60, 130):
            server.hold_after = kill_after
            process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wait_for(lambda limit=kill_after: len(server.received) >= limit, process)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.communicate()
            server.hold_after = None
            assert not output.exists()
            stored = stored_keys(output)
            # Whatever the server has sent and the client has read is there; at most those in flight are missing.
            assert stored_before < stored and len(stored) >= len(server.received) - asked_again - 8
            asked_again, stored_before = len(server.received) - len(stored), stored
        before = len(server.received)
        done = subprocess.run(run, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        # Exactly the missing ones were asked.
        assert len(server.received) - before == 200 - len(stored_before)
        times = Counter(one.prompt for one in server.received)
        assert len(times) == 200 and sum(times.values()) - 200 <= 16 and max(times.values()) <= 3
    rows = rows_of()
    assert [row["teacher_response"] for row in rows] == [f"Answer to: question {i}" for i in range(200)]
    assert len(stored_keys(output)) == 200


def test_ctrl_c_ends_in_one_line_and_goes_on_later(prompts_file: Any, rows_of: Any, tmp_path: Path) -> None:
    prompts, output = prompts_file(60), tmp_path / "out.parquet"
    # On a busy machine all 60 could be answered before the signal comes.
    with FaultServer(latency_s=0.1, hold_after=12) as server:
        run = command(prompts, output, server.base_url, server.model, "--concurrency", "4")
        # A test runner in the background of a script has SIGINT ignored, and children would inherit that.
        process = subprocess.Popen(
            run,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        wait_for(lambda: len(server.received) >= 13, process)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
        server.hold_after = None
        assert process.returncode == 130 and b"Traceback" not in error and b"interrupted" in error
        stored = len(stored_keys(output))
        assert 0 < stored < 60 and not output.exists()
        before = len(server.received)
        assert subprocess.run(run, capture_output=True, timeout=60, check=False).returncode == 0
        assert len(server.received) - before == 60 - stored
    assert len(rows_of()) == 60


def test_a_real_model_with_a_sigkill(prompts_file: Any, rows_of: Any, tmp_path: Path) -> None:
    """SmolLM2 behind llama.cpp's server; fewer and shorter answers than by hand, for the sake of time."""
    pytest.importorskip("xllamacpp")
    prompts, output = (
        prompts_file([{"prompt": f"Name a city, number {i}."} for i in range(16)]),
        tmp_path / "out.parquet",
    )
    with real_server(threads=1, parallel=2) as (base_url, model):
        more = ("--concurrency", "2", "--max-tokens", "4", "--temperature", "0.5", "--seed", "1")
        run = command(prompts, output, base_url, model, *more)
        process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        log = output.with_name(f"{output.name}.answers.sqlite-wal")
        writes: set[int] = set()

        def has_some() -> bool:
            if log.exists():
                writes.add(log.stat().st_mtime_ns)
            return len(writes) >= 6

        wait_for(has_some, process)
        process.kill()
        process.communicate()
        stored = stored_keys(output)
        assert 0 < len(stored) < 16
        done = subprocess.run(run, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert f"{len(stored)} answers were stored, {16 - len(stored)} are new".encode() in done.stderr
    rows = rows_of()
    assert [row["extra_info"]["index"] for row in rows] == list(range(16))
    assert all(row["teacher_response"] and row["teacher"] == model for row in rows)
