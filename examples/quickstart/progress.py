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
"""Shows the progress of a run of verl in one line a step, and keeps everything else in a log file.

Reads the trainer's output from standard input: ``... | python progress.py --log train.log --total-steps 40``.
"""

import argparse
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TextIO

import psutil

logger = logging.getLogger(__name__)

_STEP = re.compile(r"step:(\d+) - (.+)")
_NUMBER = re.compile(r"([\w/.\-@]+):(-?[\d.]+(?:e[+-]?\d+)?)")
_PHASES = {0.0: "discriminator", 1.0: "warmup", 2.0: "GAD", 3.0: "SeqKD"}
_MILESTONES = (
    ("ray init kwargs", "starting Ray"),
    ("worker group kwargs", "starting the student's worker"),
    ("actor and ref model engine initialized", "student loaded; starting the rollout engine"),
    ("checkpoint engine manager initialized", "rollout engine ready; starting the discriminator"),
    ("discriminator ready", "discriminator ready"),
    ("Resuming from", "resuming from the last checkpoint"),
)
_FIELDS = (
    ("disc/accuracy", "D accuracy {:.2f}"),
    ("disc/loss", "D loss {:.3f}"),
    ("gad/length_ratio", "length ratio {:.2f}"),
    ("val-gad/rouge_l", "val ROUGE-L {:.3f}"),
)


def parse_step(line: str) -> tuple[int, dict[str, float]] | None:
    """Step and metrics of a line of verl's console logger, or None for any other line."""
    match = _STEP.search(line)
    if match is None:
        return None
    values = (_NUMBER.fullmatch(part.strip()) for part in match.group(2).split(" - "))
    return int(match.group(1)), {value.group(1): float(value.group(2)) for value in values if value is not None}


def describe(step: int, metrics: dict[str, float], total_steps: int, seconds_left: float | None) -> str:
    """One line for a person."""
    parts = [f"step {step:>3}/{total_steps}", f"{_PHASES.get(metrics.get('gad/stage', -1.0), 'validation'):<13}"]
    if "timing_s/step" in metrics:
        parts.append(f"{metrics['timing_s/step']:5.1f} s")
    parts += [text.format(metrics[name]) for name, text in _FIELDS if name in metrics]
    if seconds_left is not None:
        parts.append(f"about {seconds_left / 60:.0f} min left")
    return "  ".join(parts)


def memory_of_tree(process: psutil.Process) -> int:
    """Bytes of all descendants of a process; memory that several share is counted once (proportional set size)."""
    total = 0
    for child in process.children(recursive=True):
        try:
            total += child.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


class PeakMemory:
    """Samples the memory of everything that the calling shell started, in GB."""

    def __init__(self) -> None:
        self._peak = 0
        self._stop = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        shell = psutil.Process(os.getppid())
        while not self._stop.wait(2.0):
            self._peak = max(self._peak, memory_of_tree(shell))

    def stop(self) -> float:
        """The peak."""
        self._stop.set()
        return self._peak / 1e9


def follow(lines: TextIO, log: TextIO, total_steps: int) -> None:
    """Read until the trainer ends."""
    started = time.monotonic()
    first: tuple[int, float] | None = None
    seen: set[str] = set()
    for line in lines:
        log.write(line)
        log.flush()
        for mark, text in _MILESTONES:
            if mark in line and mark not in seen:
                seen.add(mark)
                logger.info("%5.0f s  %s", time.monotonic() - started, text)
        parsed = parse_step(line)
        if parsed is None:
            continue
        step, metrics = parsed
        now = time.monotonic()
        left = None
        if first is not None and step > first[0]:
            left = (total_steps - step) * (now - first[1]) / (step - first[0])
        first = first or (step, now)
        logger.info("%s", describe(step, metrics, total_steps, left))


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True, help="file for the whole output")
    parser.add_argument("--total-steps", type=int, required=True, help="steps of the run")
    arguments = parser.parse_args()
    peak, started = PeakMemory(), time.monotonic()
    interrupted = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        # The same key has asked the trainer to end: what it still says is for the log, so nothing is broken off here.
        if not interrupted.is_set():
            logger.info("interrupted: it saves after this step; the same command goes on. Again ends it at once")
        interrupted.set()

    signal.signal(signal.SIGINT, interrupt)
    # Bytes that are no text, such as those of a file's name, go through as they are.
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    with arguments.log.open("a", encoding="utf-8", errors="surrogateescape") as log:
        follow(sys.stdin, log, arguments.total_steps)
    if interrupted.is_set():
        sys.exit(130)
    logger.info(
        "training took %.1f min; peak memory of all its processes %.1f GB; whole output: %s",
        (time.monotonic() - started) / 60,
        peak.stop(),
        arguments.log,
    )


if __name__ == "__main__":
    main()
