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
"""What stands in the files of a run, in the form that the page takes, whatever a program or a hand has left in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gad_verl import record
from gad_verl.errors import GadDataError
from gad_verl.record import QUANTILE_LEVELS, RECORD_FOLDER
from gad_verl.record.reading import RUN_FILE, SCORES_FILE, sorted_out

# Of a name or a time in a file: whatever is longer is neither.
_NAME_CHARACTERS = 100
# What the trainer's numbers can be: they are of single precision.
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Series:
    """One metric over the steps at which it was logged, in their order."""

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def where(self, chosen: np.ndarray) -> "Series":
        """The points that a mask chooses."""
        return Series(self.steps[chosen], self.values[chosen])


EMPTY = Series(np.array([], dtype=np.int64), np.array([]))


def finite(value: Any) -> float | None:
    """A number that a page can show; None for any other value."""
    if isinstance(value, int | float) and abs(value) <= _LARGEST:
        return float(value)
    return None


def as_text(value: Any, otherwise: str = "") -> str:
    """A text as it is, and of anything else its words; ``otherwise`` where there is none."""
    return otherwise if value is None or value == "" else str(value)


def as_name(value: Any, otherwise: str = "") -> str:
    """The same of what is a few words, such as the name of a rule: a longer one is cut."""
    return cut(as_text(value, otherwise), _NAME_CHARACTERS)


def cut(words: str, length: int) -> str:
    """A text of at most ``length`` characters, and how many more there were."""
    return words if len(words) <= length else f"{words[:length]} … ({len(words) - length} more characters)"


def read_metrics(path: Path) -> tuple[dict[str, Series], dict[str, list[int]], int]:
    """The metrics of verl's ``file`` logger, lines of ``{"step": 3, "data": {"disc/loss": 0.6}}``.

    Of two lines of a step the later one counts. A last line that is being written is left out. Where a line logs a
    metric again of a step before the last one, a run has gone on from an earlier checkpoint in the same file: the later
    steps, which were lost, are left out.

    Returns:
        Points by name, steps of values that are not finite by name, number of damaged lines.

    Raises:
        GadDataError: If it holds no such line.
    """
    lines, damaged = sorted_out(path)
    if not lines and not damaged and not path.read_bytes().strip():
        raise GadDataError(f"{path} is empty: no step has been logged yet")
    steps: dict[int, dict[str, Any]] = {}
    last = -1
    for _, line in lines:
        step, data = line["step"], line.get("data")
        if not isinstance(data, dict):
            damaged += 1
            continue
        if step < last and steps.get(step, {}).keys() & data.keys():
            steps = {earlier: logged for earlier, logged in steps.items() if earlier <= step}
            last = step
        steps.setdefault(step, {}).update(data)
        last = max(last, step)
    if not steps:
        raise GadDataError(
            f'{path} is no file of metrics: none of its lines is {{"step": ..., "data": {{...}}}}, as verl\'s logger '
            '"file" writes them'
        )
    points: dict[str, tuple[list[int], list[float]]] = {}
    not_finite: dict[str, list[int]] = {}
    for step in sorted(steps):
        for metric, value in steps[step].items():
            number = finite(value)
            # verl's logger writes null for a number that is not finite.
            if value is None or (number is None and isinstance(value, int | float)):
                not_finite.setdefault(metric, []).append(step)
            elif number is not None:
                of_metric = points.setdefault(metric, ([], []))
                of_metric[0].append(step)
                of_metric[1].append(number)
    metrics = {name: Series(np.array(x, dtype=np.int64), np.array(y)) for name, (x, y) in points.items()}
    return metrics, not_finite, damaged


def count_lines(path: Path) -> int:
    """Lines of a file that are not empty, without a last one that is being written."""
    whole, damaged = sorted_out(path)
    return len(whole) + damaged


@dataclass(frozen=True)
class RecordLines:
    """The record of a run.

    Args:
        info: ``run.json``: ``gad_verl``, ``versions``, ``config``, ``started``, ``finished``, ``metrics_file`` and
            ``folder``; None if there is none.
        events: ``step``, ``source``, ``rule``, ``action`` and ``text`` of each event, in the order of the file.
        scores: ``step`` and the quantiles of both sides, by rising step.
        samples: Sample texts, by rising step.
        unread: Number of lines that could not be read, by the name of the file.
    """

    info: dict[str, Any] | None
    events: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    unread: dict[str, int]


def read_record(folder: Path) -> RecordLines:
    """The record of the run in ``folder``, as far as it is there."""
    info, scores = record.read_run(folder), record.read_scores(folder)
    unread = {name: sorted_out(folder / RECORD_FOLDER / name)[1] for name in record.LINE_FILES}
    unread[SCORES_FILE] += sum(not _are_scores(line) for line in scores)
    unread[RUN_FILE] = int(info is None and (folder / RECORD_FOLDER / RUN_FILE).is_file())
    return RecordLines(
        None if info is None else _info(info),
        [_event(line) for line in record.read_events(folder)],
        [line for line in scores if _are_scores(line)],
        [_sample(line) for line in record.read_samples(folder)],
        {name: count for name, count in unread.items() if count},
    )


def _info(info: Mapping[str, Any]) -> dict[str, Any]:
    versions, started, config = (info.get(name) for name in ("versions", "started", "config"))
    return {
        "gad_verl": as_name(info.get("gad_verl"), "unknown"),
        "versions": {as_name(name): as_name(number) for name, number in versions.items()}
        if isinstance(versions, dict)
        else {},
        "config": config if isinstance(config, dict) else {},
        "started": [as_name(time) for time in started] if isinstance(started, list) else [],
        "finished": as_name(info.get("finished")) or None,
        "metrics_file": as_text(info.get("metrics_file")) or None,
        "folder": as_text(info.get("folder")) or None,
    }


def _event(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "step": line["step"],
        "source": as_name(line.get("source"), "unknown source"),
        "rule": as_name(line.get("rule")),
        "action": as_name(line.get("action"), "info"),
        "text": as_text(line.get("text")),
    }


def _are_scores(line: Mapping[str, Any]) -> bool:
    """Whether a line has the quantiles of both sides, each of them None or a number."""
    return line.get("levels") == list(QUANTILE_LEVELS) and all(
        isinstance(side, list)
        and len(side) == len(QUANTILE_LEVELS)
        and all(value is None or finite(value) is not None for value in side)
        for side in (line.get("teacher"), line.get("student"))
    )


def _sample(line: Mapping[str, Any]) -> dict[str, Any]:
    students, scores, index = line.get("students"), line.get("student_scores"), line.get("index")
    return {
        "step": line["step"],
        "split": as_name(line.get("split"), "train"),
        "index": as_name(index) or None,
        "prompt": as_text(line.get("prompt")),
        "teacher": as_text(line.get("teacher")),
        "students": [as_text(text) for text in students] if isinstance(students, list) else [],
        "teacher_score": finite(line.get("teacher_score")),
        "student_scores": [finite(score) for score in scores] if isinstance(scores, list) else [],
    }
