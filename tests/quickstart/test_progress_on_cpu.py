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
import os
import signal
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_what_is_no_utf8_is_for_the_log_like_the_rest(locale: str, tmp_path: Path) -> None:
    said = b"a name \xff of a file\nstep:1 - gad/stage:1.0\n"
    script = Path(progress.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "--log", str(tmp_path / "train.log"), "--total-steps", "2"],
        env={**os.environ, "LC_ALL": locale},
        input=said,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert (tmp_path / "train.log").read_bytes() == said and b"step   1/2" in done.stdout


# Stands in for every python of run.sh but the one that shows the progress; the trainer says much when it is ended.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    *progress.py*) exec {python} "$@" ;;
    *main_ppo*)
        trap 'for line in 1 2 3; do echo "Traceback $line"; done; exit 1' INT
        echo "step:1 - gad/stage:1.0"
        while :; do sleep 0.05; done ;;
esac
"""


def test_an_interrupted_quickstart_says_so_in_one_line(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(PYTHON.format(python=sys.executable), encoding="utf-8")
    python.chmod(0o755)
    run = subprocess.Popen(
        [str(Path(progress.__file__).with_name("run.sh"))],
        env={**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "RUN": str(tmp_path / "run")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell cannot trap what was ignored when it began, as it is below another shell's background jobs.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("step "):
            break
    # As a terminal does: to all processes at once.
    os.killpg(run.pid, signal.SIGINT)
    rest = run.stdout.read()
    assert run.wait() == 130
    assert rest == "interrupted: it saves after this step; the same command goes on. Again ends it at once\n"
    assert "Traceback 3" in (tmp_path / "run" / "gad" / "train.log").read_text(encoding="utf-8")


GAD_VERL = """#!/usr/bin/env bash
# A command that an interruption ends as it ends gad-verl, and one that has done its part.
if [[ "$1" == "$WAITS" || "$*" == *"$WAITS"* ]]; then
    trap 'echo "gad-verl: interrupted" >&2; touch "$ENDED.$$"; exit 130' INT
    touch "$ENDED.began.$$"
    echo "$1 began" >&3
    while :; do sleep 0.05; done
fi
"""


@pytest.mark.parametrize("waits", ["evaluate", "evaluations/seqkd", "compare", "report"])
def test_an_interrupted_end_of_the_quickstart_says_so_in_one_line(tmp_path: Path, waits: str) -> None:
    folder, run_folder = tmp_path / "bin", tmp_path / "run"
    folder.mkdir()
    for name, script in (("python", "#!/bin/sh\n"), ("gad-verl", GAD_VERL)):
        (folder / name).write_text(script, encoding="utf-8")
        (folder / name).chmod(0o755)
    for method, steps in (("gad", 16), ("seqkd", 14)):
        (run_folder / method / "checkpoints").mkdir(parents=True)
        (run_folder / method / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(f"{steps}")
    command = [str(Path(progress.__file__).with_name("run.sh"))]
    path = f"{folder}:{os.environ['PATH']}"
    ended = tmp_path / "ended"
    environment = {"PATH": path, "RUN": str(run_folder), "WAITS": waits, "ENDED": str(ended)}
    run = subprocess.Popen(
        ["bash", "-c", 'exec 3>&1; exec "$@"', "bash", *command],
        env={**os.environ, **environment, "WARMUP_STEPS": "12", "TOTAL_STEPS": "16"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert run.stdout is not None
    begun = 2 if waits == "evaluate" else 1
    for line in run.stdout:
        begun -= line.endswith(" began\n")
        if not begun:
            break
    os.killpg(run.pid, signal.SIGINT)
    rest = run.stdout.read()
    assert run.wait() == 130
    said = [line for line in rest.splitlines() if not line.endswith(": done")]
    assert len(said) == 1 and "interrupted" in said[0]
    # Nobody goes on in the background.
    files = [file.name for file in tmp_path.glob("ended*")]
    assert len(files) == 2 * sum(".began." in name for name in files)


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
