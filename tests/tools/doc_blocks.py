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
"""Runs the bash blocks of a page of the documentation as a reader would, with a time limit."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path


def bash_blocks(page: Path) -> list[str]:
    """The fenced blocks of bash, in order."""
    return blocks(page, "bash")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run_bash(script: str, folder: Path, env: dict[str, str], timeout_s: float) -> str:
    """Run a script; any failing command of it fails.

    Args:
        script: Bash.
        folder: Where it runs; a log is kept there.
        env: Additional environment. ``python`` and ``gad-verl`` are those of this interpreter.
        timeout_s: The whole process group is killed after this.

    Returns:
        Standard output and error together.

    Raises:
        AssertionError: If it fails or takes too long; with the end of what it wrote.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    log = folder / "walkthrough.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail\n{script}"],
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **env, "PATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = log.read_text(encoding="utf-8", errors="replace")
    assert process.returncode == 0, f"exit code {process.returncode} of\n{script}\n{text[-4000:]}"
    return text
