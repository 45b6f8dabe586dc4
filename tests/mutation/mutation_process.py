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
"""Calls in forked processes: each with a limit of time and memory, none of which leaves a process behind. Linux only.

A call runs in a process of its own below a keeper. The keeper inherits whatever the call starts and does not end
(``PR_SET_CHILD_SUBREAPER``), and kills it when the call has ended, has run too long, or the caller is gone.
"""

import ctypes
import json
import os
import resource
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# What a call may take beyond what its parent has: one that collects without end must not take the machine's memory.
_MEMORY_BYTES = 6 * 2**30
# A hanging call must end some day on a busy machine too.
_MAX_SLOWDOWN = 10.0


@dataclass(frozen=True)
class Task:
    """A call to make.

    Attributes:
        key: What the caller knows it by.
        call: Gets an empty folder, which is removed afterwards, and returns something that JSON can hold.
        limit_s: Seconds after which it is killed, on a machine that is not busy; longer on a busy one.
    """

    key: Any
    call: Callable[[Path], Any]
    limit_s: float


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        value: What it returned; None if it did not get that far.
        timed_out: Whether it was killed for taking too long.
        seconds: How long it ran.
        error: The error it raised, if that ended it.
    """

    value: Any
    timed_out: bool
    seconds: float
    error: str = ""


@dataclass
class _Running:
    task: Task
    keeper: int
    folder: Path
    begin: float


def run_tasks(tasks: Iterable[Task], jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """Run calls in forked processes, ``jobs`` at a time, and yield them as they end.

    A generator that is closed or interrupted kills what still runs.
    """
    waiting = iter(tasks)
    running: dict[int, _Running] = {}
    try:
        while True:
            while len(running) < jobs and (task := next(waiting, None)) is not None:
                started = _start(task)
                running[os.pidfd_open(started.keeper)] = started
            if not running:
                return
            for fd in select.select(list(running), [], [])[0]:
                ended = running.pop(fd)
                os.close(fd)
                yield ended.task, _outcome(ended)
    finally:
        for started in running.values():
            os.kill(started.keeper, signal.SIGTERM)
        for fd, started in running.items():
            os.close(fd)
            _outcome(started)


def _start(task: Task) -> _Running:
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    begin = time.monotonic()
    keeper = os.fork()
    if keeper == 0:
        # Nothing of the parent's clean-up may run here.
        try:
            _keep(task, folder)
        finally:
            os._exit(1)
    return _Running(task, keeper, folder, begin)


def _outcome(ended: _Running) -> Outcome:
    os.waitpid(ended.keeper, 0)
    seconds = time.monotonic() - ended.begin
    try:
        value, error = json.loads((ended.folder / "result.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        value, error = None, ""
    outcome = Outcome(value, (ended.folder / "timed_out").exists(), seconds, error)
    shutil.rmtree(ended.folder, ignore_errors=True)
    return outcome


def _keep(task: Task, folder: Path) -> None:
    os.setsid()
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _kill_all_below_and_exit)
    runner = os.fork()
    if runner == 0:
        try:
            _run(task, folder, libc)
        finally:
            os._exit(1)
    if not _ends_within(runner, task.limit_s):
        (folder / "timed_out").touch()
    _kill_all_below_and_exit()


def _ends_within(process: int, limit_s: float) -> bool:
    """Wait for a process; where others want the processors too, it may take longer by as much."""
    begin = time.monotonic()
    fd = os.pidfd_open(process)
    while True:
        share = os.getloadavg()[0] / (os.cpu_count() or 1)
        left_s = limit_s * min(max(1.0, share), _MAX_SLOWDOWN) - (time.monotonic() - begin)
        if left_s <= 0:
            return False
        # Not to the end at once: a load that goes down shortens the wait again.
        if select.select([fd], [], [], min(left_s, 1.0))[0]:
            return True


def _run(task: Task, folder: Path, libc: ctypes.CDLL) -> None:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    room = psutil.Process().memory_info().vms + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    with open(os.devnull, "r+b") as nothing:
        for fd in (0, 1, 2):
            os.dup2(nothing.fileno(), fd)
    inner = folder / "call"
    inner.mkdir()
    try:
        text = json.dumps([task.call(inner), ""])
    except BaseException as error:
        text = json.dumps([None, repr(error)])
    (folder / "result.json").write_text(text, encoding="utf-8")
    os._exit(0)


def _kill_all_below_and_exit(*_: Any) -> None:
    """End what is left: the children of a killed process become the keeper's own, so it ends when it has none."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        for child in psutil.Process().children():
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            os._exit(0)
