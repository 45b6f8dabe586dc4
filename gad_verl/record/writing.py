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
"""Writing a run's record: one process, one line a call."""

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from gad_verl import __version__
from gad_verl.record.files import plain, read_json, to_json, write_atomically
from gad_verl.record.reading import (
    EVENTS_FILE,
    LINE_FILES,
    RECORD_FOLDER,
    RUN_FILE,
    SAMPLES_FILE,
    SCORES_FILE,
    whole_lines,
)
from gad_verl.record.redaction import without_secrets

logger = logging.getLogger(__name__)

QUANTILE_LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
ACTIONS = ("info", "warn", "adapt", "stop")
# Sections of a configuration whose path is a folder or the name of a model on a hub.
MODEL_SECTIONS = ("actor_rollout_ref.model", "discriminator.model")
VERSIONS_OF = ("verl", "torch", "transformers", "vllm", "ray", "TransferQueue", "numpy")

Split = Literal["train", "val"]


@dataclass(frozen=True)
class Sample:
    """A prompt with the texts of both sides.

    Args:
        index: Which row of the data it is, so that the same prompt can be followed over the steps.
        prompt: The prompt as text.
        teacher: The teacher's text.
        students: The student's responses, one or more.
        teacher_score: The discriminator's score of the teacher's text; None without a discriminator.
        student_scores: Its scores of the responses, in their order; None without a discriminator.
    """

    index: int
    prompt: str
    teacher: str
    students: Sequence[str]
    teacher_score: float | None = None
    student_scores: Sequence[float] | None = None


class RunRecord:
    """Writes the record of one run. Made by :meth:`open`; may be used as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, BinaryIO] = {}

    @classmethod
    def open(cls, folder: str | Path, resume_step: int | None) -> Self:
        """Open the record of a run for writing.

        Args:
            folder: Folder of the run (``trainer.default_local_dir``); ``record/`` is made in it.
            resume_step: Step of the checkpoint the run resumes from: later lines are cut off, and so is a last line
                that a kill left unfinished. None starts a new run: an older record is set aside as ``record.1``,
                ``record.2`` and so on.
        """
        record = Path(folder) / RECORD_FOLDER
        if resume_step is None and any((record / name).is_file() for name in LINE_FILES):
            _set_aside(record)
        record.mkdir(parents=True, exist_ok=True)
        for name in LINE_FILES:
            _cut(record / name, resume_step)
        return cls(record)

    def event(
        self, step: int, source: str, rule: str, action: str, text: str, figures: Mapping[str, float] | None = None
    ) -> None:
        """Note that something was noticed or done.

        Args:
            step: Training step.
            source: Who: "guardian", "schedule", "curriculum", "teacher", "trust" and the like.
            rule: Short name of the rule, such as "saturated".
            action: "info", "warn", "adapt" or "stop".
            text: What, in plain words with figures.
            figures: The figures by name.

        Raises:
            ValueError: For an unknown action.
        """
        if action not in ACTIONS:
            raise ValueError(f"action must be one of {', '.join(ACTIONS)}; got {action!r}")
        line = {"step": step, "source": source, "rule": rule, "action": action, "text": text}
        self._write(EVENTS_FILE, [{**line, "figures": dict(figures or {})}])

    def scores(self, step: int, phase: str, teacher: Iterable[float], student: Iterable[float]) -> None:
        """Note how the discriminator's scores of a step are spread.

        Args:
            step: Training step.
            phase: "warmup", "adversarial" and so on.
            teacher: All scores of teacher texts, in any order. Those that are not finite are left out.
            student: The same of the student's responses.
        """
        sides = {"teacher": quantiles(teacher), "student": quantiles(student)}
        self._write(SCORES_FILE, [{"step": step, "phase": phase, "levels": list(QUANTILE_LEVELS), **sides}])

    def samples(self, step: int, split: Split, samples: Iterable[Sample]) -> None:
        """Note texts of both sides.

        Args:
            step: Training step.
            split: "train" or "val".
            samples: The texts.
        """
        self._write(SAMPLES_FILE, [{"step": step, "split": split, **asdict(sample)} for sample in samples])

    def write_run(
        self, config: Any, metrics_file: str | Path | None = None, versions: Mapping[str, str] | None = None
    ) -> None:
        """Write ``run.json``, once at every start. The times of earlier starts are kept.

        Args:
            config: Resolved configuration or settings: a mapping, a dataclass or an OmegaConf configuration. Values
                that look like secrets are replaced.
            metrics_file: Where the metrics of the run go as JSONL, None if nowhere.
            versions: Versions of packages; by default those of the packages that matter.
        """
        before = read_json(self.folder / RUN_FILE) or {}
        started = before.get("started")
        content = plain(config)
        self._write_run(
            {
                "gad_verl": __version__,
                "versions": dict(installed_versions() if versions is None else versions),
                "config": without_secrets(content),
                # A relative path may have the form of a hub's name, and only here can one look.
                "local_models": [section for section in MODEL_SECTIONS if _is_local(content, f"{section}.path")],
                "metrics_file": None if metrics_file is None else str(Path(metrics_file).expanduser().absolute()),
                # Tells a reader that the run was moved or copied since, and where its metrics went with it.
                "folder": str(self.folder.parent.absolute()),
                "started": [*(started if isinstance(started, list) else []), _now()],
                "finished": None,
            }
        )

    def finish(self) -> None:
        """Note that the run came to its end, so that a page no longer calls it running."""
        run = read_json(self.folder / RUN_FILE)
        if run is not None:
            self._write_run({**run, "finished": _now()})

    def close(self) -> None:
        """Close the files. A later write opens them again."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_run(self, run: Mapping[str, Any]) -> None:
        write_atomically(self.folder / RUN_FILE, to_json(run))

    def _write(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        if not lines:
            return
        if name not in self._files:
            # Unbuffered: each write is one call of the operating system.
            self._files[name] = (self.folder / name).open("ab", buffering=0)
        self._files[name].write(b"".join(_encode(line) for line in lines))


def _is_local(config: Any, key: str) -> bool:
    """Whether a value of a configuration names a folder of this machine."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return isinstance(config, str) and os.path.isdir(os.path.expanduser(config))


def quantiles(values: Iterable[float]) -> list[float | None]:
    """The quantiles at ``QUANTILE_LEVELS``, linearly interpolated; all None where no value is finite."""
    ordered = sorted(float(value) for value in values if math.isfinite(value))
    if not ordered:
        return [None] * len(QUANTILE_LEVELS)
    found: list[float | None] = []
    for level in QUANTILE_LEVELS:
        position = level * (len(ordered) - 1)
        below = math.floor(position)
        above = min(below + 1, len(ordered) - 1)
        share = position - below
        found.append(ordered[below] if share == 0.0 else ordered[below] * (1 - share) + ordered[above] * share)
    return found


def installed_versions(packages: Sequence[str] = VERSIONS_OF) -> dict[str, str]:
    """Versions of the packages that are installed, without importing them."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _encode(line: Mapping[str, Any]) -> bytes:
    # Half of a surrogate pair, which a tokenizer can leave behind, is no UTF-8; it becomes a question mark.
    text = json.dumps(plain(line), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", errors="replace") + b"\n"


def _cut(path: Path, step: int | None) -> None:
    """Keep the whole lines up to ``step``; the file is the old or the new one at any time."""
    if not path.is_file():
        return
    kept = [piece for piece, line in whole_lines(path) if step is not None and line["step"] <= step]
    content = b"".join(piece + b"\n" for piece in kept)
    if content != path.read_bytes():
        write_atomically(path, content)


def _set_aside(record: Path) -> None:
    number = 1
    while (aside := record.with_name(f"{record.name}.{number}")).exists():
        number += 1
    os.replace(record, aside)
    logger.warning("a new run starts in %s: the record of the one before is now %s", record.parent, aside.name)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
