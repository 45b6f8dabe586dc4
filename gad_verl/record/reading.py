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
"""What a run's record holds, and reading it while the run may still be writing."""

import logging
from pathlib import Path
from typing import Any

from gad_verl.record.files import read_json, read_json_lines

logger = logging.getLogger(__name__)

RECORD_FOLDER = "record"
RUN_FILE = "run.json"
EVENTS_FILE = "events.jsonl"
SCORES_FILE = "scores.jsonl"
SAMPLES_FILE = "samples.jsonl"
# As many as fit the axes of figures.
MOST_STEPS = 2**31 - 1
LINE_FILES = (EVENTS_FILE, SCORES_FILE, SAMPLES_FILE)


def read_run(folder: str | Path) -> dict[str, Any] | None:
    """``run.json`` of the run in ``folder`` (``trainer.default_local_dir``), None if there is none or it is damaged."""
    return read_json(Path(folder) / RECORD_FOLDER / RUN_FILE)


def read_events(folder: str | Path) -> list[dict[str, Any]]:
    """The events of the run in ``folder``, in the order in which they were written."""
    return read_lines(Path(folder) / RECORD_FOLDER / EVENTS_FILE)


def read_scores(folder: str | Path) -> list[dict[str, Any]]:
    """The quantiles of the scores, by rising step; of two lines of a step the later one counts."""
    lines = {line["step"]: line for line in read_lines(Path(folder) / RECORD_FOLDER / SCORES_FILE)}
    return [lines[step] for step in sorted(lines)]


def read_samples(folder: str | Path) -> list[dict[str, Any]]:
    """The texts, by rising step; of two lines of the same step, split and index the later one counts."""
    lines = {
        (line["step"], str(line.get("split")), str(line.get("index"))): line
        for line in read_lines(Path(folder) / RECORD_FOLDER / SAMPLES_FILE)
    }
    return sorted(lines.values(), key=lambda line: line["step"])


def is_step(value: Any) -> bool:
    """Whether a value of a file is the number of a step: whole, not negative, and of a size that a run can have."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_STEPS


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file that are objects with the number of a ``step``; none if there is no such file.

    A last line that is being written, or that a kill cut off, is left out. So is any other damaged line, with a
    warning in the log.
    """
    return [line for _, line in whole_lines(path)]


def whole_lines(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """The same with the bytes of each line."""
    whole, damaged = sorted_out(path)
    if damaged:
        logger.warning("%s: %d damaged lines are left out", path, damaged)
    return whole


def sorted_out(path: Path) -> tuple[list[tuple[bytes, dict[str, Any]]], int]:
    """Bytes and object of the whole lines, and how many others there are."""
    lines = [(piece, value) for _, piece, value in read_json_lines(path)]
    whole = [(piece, value) for piece, value in lines if value is not None and is_step(value.get("step"))]
    return whole, len(lines) - len(whole)
