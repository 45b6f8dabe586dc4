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
"""Answers that are Python code: run with its tests in a process of its own, with limits.

The limits (time, memory, size of files, processes, no environment, an empty folder) keep a loop or a leak from hurting
the evaluation. They are no wall against code that means harm: it has the user's rights, and the network. Run answers of
models that you do not trust in a container without either.
"""

import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gad_verl.errors import GadDataError

_PYTHON = ("python", "python3", "py")
_MARK = b"every test passed"


@dataclass(frozen=True)
class CodeLimits:
    """What a run may take.

    Args:
        seconds: On the clock and of the processor.
        memory_mib: Address space.
        file_mib: The largest file.
        processes: Of the user, while it runs; None sets no limit of its own.

    Raises:
        GadDataError: A limit is no number above 0.
    """

    seconds: float = 10.0
    memory_mib: int = 1024
    file_mib: int = 16
    processes: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name == "processes" and value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0 or (name != "seconds" and value != int(value)):
                raise GadDataError(f"{name} of a check of code must be a number above 0; got {value!r}")
            if name != "seconds":
                # A column of whole numbers with gaps becomes one of floats.
                object.__setattr__(self, name, int(value))


def code_of(text: str) -> str:
    """The code of an answer: its last fenced block of Python, else the last one of no named language, else all of it.

    Blocks are those of CommonMark: a fence is a line of its own, and one that was cut off goes to the end.
    """
    from markdown_it import MarkdownIt

    blocks = [token for token in MarkdownIt().parse(text) if token.type == "fence"]
    languages = [(token.info.split() or [""])[0].strip("{}.").lower() for token in blocks]
    for wanted in (_PYTHON, ("",)):
        found = [token.content for token, name in zip(blocks, languages, strict=True) if name in wanted]
        if found:
            return found[-1]
    return text


def passes_tests(text: str, tests: str, limits: CodeLimits | None = None) -> bool:
    """Whether the code of an answer runs through its tests to their end.

    An answer that ends the process early (``exit()``) has not come to the end.

    Args:
        text: The answer.
        tests: Python statements, run behind the code in one module, such as ``assert f(2) == 4``.
        limits: What the run may take.
    """
    limits = limits or CodeLimits()
    # The mark has a pipe of its own: what the answer prints may be endless, and is kept by nobody.
    reading, writing = os.pipe()
    program = f"{code_of(text)}\n\n{tests}\n\nimport os as _os\n_os.write({writing}, {_MARK!r})\n"
    with os.fdopen(reading, "rb", buffering=0) as marks, tempfile.TemporaryDirectory(prefix="gad-verl-code-") as folder:
        path = Path(folder) / "answer.py"
        path.write_text(program, encoding="utf-8", errors="replace")
        # -I: neither the user's packages nor the folder of this process.
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(path)],
                cwd=folder,
                env={"PATH": os.defpath, "HOME": folder, "TMPDIR": folder},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(writing,),
                preexec_fn=lambda: _limit(limits),
            )
        finally:
            os.close(writing)
        try:
            process.wait(timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end_group(process)
        # Something that left the session may hold the pipe open.
        os.set_blocking(reading, False)
        return process.returncode == 0 and marks.read(len(_MARK) + 1) == _MARK


def _limit(limits: CodeLimits) -> None:
    seconds = max(1, round(limits.seconds + 0.5))
    wanted = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: limits.memory_mib * 2**20,
        resource.RLIMIT_FSIZE: limits.file_mib * 2**20,
        resource.RLIMIT_CORE: 0,
    }
    if limits.processes is not None:
        wanted[resource.RLIMIT_NPROC] = limits.processes
    for name, value in wanted.items():
        resource.setrlimit(name, (value, value))


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End the process and whatever it has started in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()
