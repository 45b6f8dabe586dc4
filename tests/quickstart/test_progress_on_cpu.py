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
"""One line a step out of verl's console output."""

import io
import subprocess
import sys

import progress
import psutil
import pytest


def test_a_step_line_is_parsed_and_described() -> None:
    line = (
        "(TaskRunnerV1 pid=7) step:5 - gad/stage:2.0 - disc/loss:6.5e-01 - disc/accuracy:0.75 - timing_s/step:12.34\n"
    )
    step, metrics = progress.parse_step(line)
    assert step == 5
    assert metrics == {
        "gad/stage": 2.0,
        "disc/loss": pytest.approx(0.65),
        "disc/accuracy": 0.75,
        "timing_s/step": 12.34,
    }
    text = progress.describe(step, metrics, 40, seconds_left=120.0)
    assert "5/40" in text and "GAD" in text and "D accuracy 0.75" in text and "about 2 min left" in text
    assert progress.parse_step("INFO: nothing of interest") is None


def test_everything_goes_to_the_log_and_steps_to_the_screen(caplog: pytest.LogCaptureFixture) -> None:
    log = io.StringIO()
    lines = "actor and ref model engine initialized\nnoise\nstep:1 - gad/stage:0.0 - timing_s/step:3.0\n"
    with caplog.at_level("INFO"):
        progress.follow(io.StringIO(lines), log, total_steps=2)
    assert log.getvalue() == lines
    assert [record.message for record in caplog.records if "step" in record.message]
    assert not any("noise" in record.message for record in caplog.records)


def test_memory_of_what_a_process_started_is_counted() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "block = b'x' * 100_000_000; print('ready', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        assert progress.memory_of_tree(psutil.Process()) > 100_000_000
    finally:
        child.kill()
        child.wait()
    assert progress.memory_of_tree(psutil.Process()) < 100_000_000
