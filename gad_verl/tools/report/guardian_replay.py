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
"""The guardian over a file of metrics, of a finished run or of one that still runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gad_verl.errors import GadDataError
from gad_verl.guardian.events import Event
from gad_verl.guardian.guardian import Guardian
from gad_verl.record.files import read_json_lines

if TYPE_CHECKING:
    from gad_verl.config.guardian import GuardianConfig


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, _, row in read_json_lines(path):
        try:
            yield int((row or {})["step"]), dict((row or {})["data"])
        except (ValueError, KeyError, TypeError):
            raise GadDataError(
                f'{path}, line {number}: not a line of metrics; expected {{"step": 1, "data": {{...}}}} as the file '
                "logger of verl writes it (trainer.logger with file)"
            ) from None


def read_metrics(path: Path) -> dict[int, dict[str, Any]]:
    """Metrics by step, in order. Several lines of one step are put together, the last value of a metric holds.

    A last line that is not whole is left out.

    Raises:
        GadDataError: If the file is missing, empty or of another kind; names the line.
    """
    if not path.is_file():
        raise GadDataError(
            f"{path}: no such file; verl writes metrics to VERL_FILE_LOGGER_PATH where trainer.logger has file"
        )
    steps: dict[int, dict[str, Any]] = {}
    for step, data in _rows(path):
        steps.setdefault(step, {}).update(data)
    if not steps:
        raise GadDataError(f"{path}: no step has been logged yet")
    return dict(sorted(steps.items()))


def replay(config: "GuardianConfig", steps: dict[int, dict[str, Any]]) -> tuple[Guardian, list[Event]]:
    """A new guardian over the metrics, and everything that it says."""
    guardian = Guardian(config)
    events = [event for step, metrics in steps.items() for event in guardian.observe(step, metrics)]
    return guardian, events
