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
"""What a signal to the starting process does, in one of its own; a handler that comes later, as Ray's does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gad_verl.preflight.stop_signals import StopSignals
from gad_verl.trainer.stop_file import StopFile

_PROGRAM = """
import logging, signal, sys, time
from pathlib import Path
from gad_verl.preflight.stop_signals import StopSignals
from gad_verl.trainer.stop_file import StopFile
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
StopSignals(StopFile(Path(sys.argv[1]) / "run" / "stop")).install()
if sys.argv[2] == "later":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(9))
time.sleep(1.5)
if sys.argv[2] != "ray":
    print("ready", flush=True)
    time.sleep(60)
import ray
ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
@ray.remote
def wait():
    time.sleep(60)
waits = wait.remote()
# By now Ray has put its own handlers there, and the watch has taken them back.
time.sleep(2)
print("ready", flush=True)
ray.get(waits)
"""


def started(folder: Path, how: str) -> subprocess.Popen:
    command = [sys.executable, "-c", _PROGRAM, str(folder), how]
    # A test runner in the background of a script has SIGINT ignored, and children would inherit that.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "how", "code"),
    [
        (signal.SIGINT, "alone", 130),
        (signal.SIGTERM, "alone", 143),
        (signal.SIGTERM, "later", 143),
        (signal.SIGTERM, "ray", 143),
    ],
)
def test_the_first_signal_asks_and_the_second_ends(tmp_path: Path, number: signal.Signals, how: str, code: int) -> None:
    process = started(tmp_path, how)
    process.send_signal(number)
    assert f"{number.name}: the run saves after the step" in process.stdout.readline()
    assert (tmp_path / "run" / "stop").is_file() and (tmp_path / "run" / "stop").stat().st_size == 0
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(number)
    assert f"{number.name} again: the run ends at once" in process.stdout.readline()
    assert process.wait(timeout=20) == code


def test_whoever_ignores_a_signal_goes_on_ignoring_it(tmp_path: Path) -> None:
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + _PROGRAM
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), "alone"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert "SIGTERM: the run saves" in process.stdout.readline()
    process.kill()
    process.wait()


def test_the_code_is_kept_where_ray_fails_to_go_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("no head any more")

    codes: list[int] = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(shutdown=fails))
    monkeypatch.setattr(os, "_exit", codes.append)
    signals = StopSignals(StopFile(tmp_path / "stop"))
    signals._leave()
    assert codes == []
    signals._code = 143
    with pytest.raises(RuntimeError):
        signals._leave()
    assert codes == [143]
