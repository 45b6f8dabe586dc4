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
"""The command itself: Ctrl-C at any time ends in one line."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gad_verl import cli

# Interrupted while a module is imported, by a library that has something to say when the process ends.
INTERRUPTED_IMPORT = """
import atexit, logging, os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            atexit.register(logging.getLogger("library").warning, "statistics of a cache")
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from gad_verl.cli import main
sys.exit(main(sys.argv[2:]))
"""


METRICS = '{"step": 1, "data": {"gad/stage": 2.0, "disc/accuracy": 0.5}}\n'


def start(command: Sequence[str], cwd: Path, **more: Any) -> subprocess.Popen:
    # Where the package is imported from, as it is in this process.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    line = [sys.executable, "-m", "gad_verl.cli", *command]
    return subprocess.Popen(line, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True, **more)


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """gad-verl guardian run | head -n 1"""
    (tmp_path / "metrics.jsonl").write_text(METRICS, encoding="utf-8")
    reading, writing = os.pipe()
    os.close(reading)
    process = start(["guardian", "metrics.jsonl"], tmp_path, stdout=writing)
    os.close(writing)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (141, "")


def test_another_pipe_that_breaks_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(cli, "build_parser", broken)
    assert cli.main([]) == 2 and capsys.readouterr().err == "gad-verl: Broken pipe\n"


def test_what_the_system_refuses_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(METRICS, encoding="utf-8")
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = start(["guardian", "metrics.jsonl"], tmp_path, stdout=full)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, "gad-verl: No space left on device\n")


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("gad_verl.tools.commands", ["report", "run"]),
        ("gad_verl.tools.commands.doctor", ["export", "run", "--output", "out"]),
        ("gad_verl.tools.report.runs", ["report", "run", "--output", "page.html"]),
        ("gad_verl.tools.export", ["export", "run", "--output", "out"]),
        ("numpy", ["compare", "a", "b"]),
    ],
)
def test_an_interrupted_command_says_so_in_one_line(tmp_path: Path, module: str, command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, module, *command],
        cwd=tmp_path,
        # Where the package is imported from, as it is in this process.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
        # A job in a shell's background is started with it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert result.returncode == 130
    assert result.stderr.startswith("gad-verl: interrupted; the same command goes on")
    assert len(result.stderr.splitlines()) == 1 and not result.stdout
