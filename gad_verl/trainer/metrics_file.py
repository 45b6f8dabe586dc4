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
"""Keeps the curves of a resumed run: verl's ``file`` logger (utils/tracking.py) begins an empty file at every start."""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gad_verl.record.reading import sorted_out


def file_logger_path(config: DictConfig) -> Path | None:
    """Where verl's ``file`` logger writes; None if it is not among ``trainer.logger``."""
    backends = config.trainer.logger
    if "file" not in ([backends] if isinstance(backends, str) else list(backends)):
        return None
    path = os.getenv("VERL_FILE_LOGGER_PATH")
    if path is not None:
        return Path(path)
    root = Path(os.path.expanduser(os.getenv("VERL_FILE_LOGGER_ROOT", ".")))
    return root / config.trainer.project_name / f"{config.trainer.experiment_name}.jsonl"


def lines_until(path: Path | None, step: int) -> list[bytes]:
    """Logged lines of the steps up to ``step``; none for a run that starts anew (step 0) or without a file.

    A last line that was cut off when the run was killed is left out.
    """
    if path is None or step < 1 or not path.is_file():
        return []
    whole, _ = sorted_out(path)
    return [line for line, value in whole if value["step"] <= step]


def restore(tracking: Any, lines: list[bytes]) -> None:
    """Write ``lines`` to the file logger of verl's ``Tracking``, before anything else is logged."""
    logger = getattr(tracking, "logger", {}).get("file")
    if logger is not None and lines:
        logger.fp.write(b"\n".join(lines) + b"\n")
