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
"""Where the metrics of a run lie, also of one that was moved or copied."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gad_verl import record

CHECKPOINTS = "checkpoints"


def find_metrics(folder: Path, info: Mapping[str, Any] | None) -> Path | None:
    """The file of metrics of the run in ``folder``; None if there is none.

    Args:
        folder: Of the run.
        info: Its ``run.json``; None without a record.
    """
    noted = (info or {}).get("metrics_file")
    candidates = [] if info is None or noted is None else list(_around(folder, Path(noted), info))
    candidates.append(folder / "metrics.jsonl")
    if folder.resolve().name == CHECKPOINTS:
        candidates.append(folder.resolve().parent / "metrics.jsonl")
    for candidate in candidates:
        # Not Path.is_file(), which minds a name that is too long.
        if os.path.isfile(candidate):
            return candidate
    # Beside a record that names no file lie others, such as the pairs of SODA.
    found = [] if info is not None and noted is None else sorted(folder.glob("*.jsonl"))
    return found[0] if len(found) == 1 else None


def _around(folder: Path, noted: Path, info: Mapping[str, Any]) -> Iterator[Path]:
    """Where the file that a record names may be, the most certain place first."""
    there = info.get("folder")
    if there is not None and _is_same(there, folder):
        yield noted
    elif there is not None:
        yield Path(os.path.normpath(folder.resolve() / os.path.relpath(noted, there)))
    # Before the noted place: since the folder was moved or copied, another run may have taken it.
    yield folder / noted.parent.name / noted.name
    yield folder / noted.name
    if not _is_of_another(noted, folder, info):
        yield noted
    yield folder.parent / noted.name


def _is_same(one: str, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def _is_of_another(noted: Path, folder: Path, info: Mapping[str, Any]) -> bool:
    """Whether the record of a run that lies around a file names it too, and is not that of a copy."""
    places = [noted.parent, noted.parent.parent, noted.parent / folder.name, noted.parent / CHECKPOINTS]
    for place in [Path(info["folder"]), *places] if info.get("folder") else places:
        if _is_same(str(place), folder):
            continue
        other = record.read_run(place)
        if other is None or other.get("metrics_file") != str(noted):
            continue
        started = other.get("started")
        return not isinstance(started, list) or started[:1] != info["started"][:1]
    return False
