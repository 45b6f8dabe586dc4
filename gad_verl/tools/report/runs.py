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
"""Read what one run left: its metrics, and its record where there is one. The run may still be training."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gad_verl import record
from gad_verl.errors import GadDataError
from gad_verl.record.reading import is_step
from gad_verl.tools.report.lines import EMPTY, Series, count_lines, read_metrics, read_record
from gad_verl.tools.report.metrics_place import CHECKPOINTS, find_metrics

STAGE_NAMES = {0: "D alone", 1: "warmup", 2: "adversarial", 3: "SeqKD", 4: "snapshot", 5: "preferences"}
DISCRIMINATOR_ONLY, WARMUP, ADVERSARIAL, SEQKD, SNAPSHOT, PREFERENCE = STAGE_NAMES
STAGE_METRIC = "gad/stage"
# Source and rule of the event of a run that was asked to end (gad.stop_file).
STOP_FILE = ("trainer", "stop_file")

_TOTAL_STEPS = (
    ("trainer", "total_training_steps"),
    ("actor_rollout_ref", "actor", "optim", "total_training_steps"),
    ("total_steps",),
    ("steps",),
)
_QUIET_S = 1800.0


@dataclass(frozen=True)
class Span:
    """Consecutive steps of one stage: ``first`` to ``last``, both included."""

    stage: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """For people."""
        return STAGE_NAMES.get(self.stage, f"stage {self.stage}")


@dataclass
class Run:
    """Everything a page shows of one run.

    Args:
        name: For people, unique on a page.
        source: The folder or file it was read from.
        metrics: Name of a metric to its points.
        not_finite: Name of a metric to the steps at which it was NaN, infinite, or larger than any the trainer has.
        unread: Name of a file to the number of its lines that could not be read. A last one that is being written is
            none of them.
        metrics_file: Where the metrics were read; None if there are none.
        info: ``run.json``; None without a record.
        events: Lines of ``events.jsonl``.
        scores: Lines of ``scores.jsonl``.
        samples: Lines of ``samples.jsonl``.
        quiet_s: Seconds since something was written last.
    """

    name: str
    source: Path
    metrics: dict[str, Series]
    not_finite: dict[str, list[int]] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    metrics_file: Path | None = None
    info: dict[str, Any] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    quiet_s: float = 0.0

    def get(self, metric: str) -> Series:
        """The points of a metric; no points if it was never logged."""
        return self.metrics.get(metric, EMPTY)

    @cached_property
    def last_step(self) -> int:
        """The last step whose metrics are known; without metrics, the last one of the record."""
        return max((int(series.steps[-1]) for series in self.metrics.values()), default=self._last_recorded)

    @cached_property
    def _last_recorded(self) -> int:
        return max((line["step"] for line in (*self.events, *self.scores, *self.samples)), default=0)

    @property
    def reach(self) -> int:
        """The last step of which anything is known: the record of a step comes before its metrics."""
        return max(self.last_step, self._last_recorded)

    def rows(self) -> dict[int, dict[str, float]]:
        """The metrics of each step, steps in their order, NaN for a number that was not finite."""
        rows: dict[int, dict[str, float]] = {}
        for name, series in self.metrics.items():
            for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
                rows.setdefault(step, {})[name] = value
        for name, steps in self.not_finite.items():
            for step in steps:
                rows.setdefault(step, {})[name] = math.nan
        return dict(sorted(rows.items()))

    @property
    def why_no_metrics(self) -> str | None:
        """In words, why a run with a record has no curves; None where its metrics were read."""
        if self.info is None or self.metrics_file is not None:
            return None
        noted = self.info.get("metrics_file")
        if noted:
            return f"its file of metrics is not there: {noted}"
        return 'it wrote no file of metrics: trainer.logger named no "file", see trainer.logger=[console,file]'

    @cached_property
    def spans(self) -> list[Span]:
        """The stages in their order; none where the stage was not logged."""
        spans: list[Span] = []
        stages = self.get(STAGE_METRIC)
        for step, value in zip(stages.steps.tolist(), stages.values.tolist(), strict=True):
            if spans and spans[-1].stage == int(value):
                spans[-1] = Span(int(value), spans[-1].first, step)
            else:
                spans.append(Span(int(value), step, step))
        return spans

    def in_stages(self, metric: str, stages: Sequence[int] | None) -> Series:
        """The points of a metric in some stages; all points where ``stages`` is None or the stages are not known."""
        series = self.get(metric)
        if stages is None or not self.spans:
            return series
        chosen = np.zeros(len(series), dtype=bool)
        for span in self.spans:
            if span.stage in stages:
                chosen |= (series.steps >= span.first) & (series.steps <= span.last)
        return series.where(chosen)

    @cached_property
    def total_steps(self) -> int | None:
        """How many steps the run was told to make; None where nobody knows."""
        for path in _TOTAL_STEPS:
            value: Any = (self.info or {}).get("config")
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if is_step(value) and value > 0:
                return value
        return None

    @cached_property
    def finished(self) -> bool | None:
        """Whether the run came to its end; None where nobody knows."""
        if self.info is None:
            return None
        if self.info.get("finished"):
            return True
        return bool(self.total_steps and self.last_step >= self.total_steps)

    @property
    def ended_early(self) -> bool:
        """Whether the run came to an end before the steps that it was told to make."""
        return bool(self.info and self.info.get("finished") and self.total_steps and self.last_step < self.total_steps)

    @cached_property
    def state(self) -> str:
        """In words: finished, stopped, ended early, still training, or unknown."""
        of_total = f" of {self.total_steps}" if self.total_steps else ""
        # A run that went on afterwards has logged later steps.
        before_its_end = self.last_step != self.total_steps
        ends = [event for event in self.events if before_its_end and event["step"] >= self.last_step]
        stops = [event for event in ends if event["action"] == "stop"]
        if stops:
            return f"stopped by the {stops[-1]['source']} at step {stops[-1]['step']}{of_total}"
        if self.ended_early:
            return f"ended early, at step {self.last_step}{of_total}"
        if self.finished:
            return f"finished at step {self.last_step}{of_total}"
        if any((event["source"], event["rule"]) == STOP_FILE for event in ends):
            return f"asked to end after step {self.last_step}{of_total}; the same command goes on"
        if self.finished is None:
            return f"as of step {self.last_step}; nothing says whether the run is finished"
        state = f"still training, as of step {self.last_step}{of_total}"
        if self.quiet_s > _QUIET_S:
            state += f", or interrupted: nothing was written for {duration(self.quiet_s)}"
        return state


def read_runs(arguments: Sequence[str]) -> list[Run]:
    """The runs that are named on a command line as ``PATH`` or ``NAME=PATH``.

    Raises:
        GadDataError: For a path that is missing, empty, or neither a run nor a file of metrics.
    """
    runs = []
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if equals and name and "/" not in name and not os.path.exists(Path(argument).expanduser()):
            runs.append(read_run(Path(path).expanduser(), name))
        else:
            runs.append(read_run(Path(argument).expanduser()))
    _make_names_unique(runs)
    return runs


def read_run(source: Path, name: str | None = None) -> Run:
    """One run: its folder (``trainer.default_local_dir``), or a file of verl's ``file`` logger alone.

    Raises:
        GadDataError: If it is missing, empty, or neither.
    """
    # Not Path.exists(), which minds a name that is too long.
    if not os.path.exists(source):
        raise GadDataError(f"{source} does not exist: name the folder of a run (trainer.default_local_dir) or a file")
    if not source.is_dir():
        metrics, not_finite, damaged = read_metrics(source)
        unread = {source.name: damaged} if damaged else {}
        name = name or (source.resolve().parent.name if source.stem == "metrics" else source.stem)
        return Run(name, source, metrics, not_finite, unread, source, quiet_s=_quiet([source]))
    found = read_record(source)
    run = Run(
        name or _folder_name(source),
        source,
        {},
        unread=found.unread,
        info=found.info,
        events=found.events,
        scores=found.scores,
        samples=found.samples,
    )
    file = find_metrics(source, found.info)
    has_record = bool(run.events or run.scores or run.samples)
    if file is not None:
        try:
            run.metrics, run.not_finite, damaged = read_metrics(file)
        except GadDataError:
            if not has_record:
                raise
            damaged = count_lines(file)
        run.unread |= {file.name: damaged} if damaged else {}
        run.metrics_file = file
    elif not has_record:
        raise GadDataError(
            f"{source} holds neither {record.RECORD_FOLDER}/ nor a JSONL file of metrics: name the folder of a run "
            "(trainer.default_local_dir), or the file that trainer.logger=[console,file] wrote"
        )
    files = [source / record.RECORD_FOLDER / file_name for file_name in record.LINE_FILES]
    run.quiet_s = _quiet(files + ([file] if file else []))
    return run


def _quiet(files: Sequence[Path]) -> float:
    times = [file.stat().st_mtime for file in files if file.is_file()]
    return max(0.0, time.time() - max(times)) if times else 0.0


def _folder_name(folder: Path) -> str:
    resolved = folder.resolve()
    return resolved.parent.name if resolved.name == CHECKPOINTS else resolved.name


def _make_names_unique(runs: Sequence[Run]) -> None:
    seen: dict[str, int] = {}
    for run in runs:
        seen[run.name] = seen.get(run.name, 0) + 1
    for name, count in seen.items():
        if count > 1:
            for number, run in enumerate([run for run in runs if run.name == name], start=1):
                run.name = f"{name} ({number})"


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 172800 else f"{seconds / 86400:.0f} days"
