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
"""Where verl's ``file`` logger (utils/tracking.py) writes, and the curves of a resumed run.

verl's own place follows from the names of project and run alone, below the folder of the launch: two runs that were
started there would share a file. And it begins an empty file at every start.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gad_verl.record import read_run
from gad_verl.record.reading import sorted_out

_FILE, _ROOT = "VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT"


def file_logger_path(config: DictConfig, folder: Path, step: int = 0) -> Path | None:
    """Where a run's metrics go; None if ``file`` is not among ``trainer.logger``.

    Where the environment names no place, that is below the folder of the run. A run that was begun before this was so
    goes on with the file that its record names.

    Args:
        config: The run's configuration.
        folder: ``trainer.default_local_dir``.
        step: Step after which the run goes on; 0 where it starts anew.
    """
    backends = config.trainer.logger
    if "file" not in ([backends] if isinstance(backends, str) else list(backends)):
        return None
    path = os.getenv(_FILE)
    if path is not None:
        return Path(path)
    root = os.getenv(_ROOT)
    below = Path(folder if root is None else os.path.expanduser(root))
    file = below / config.trainer.project_name / f"{config.trainer.experiment_name}.jsonl"
    if root is None and step > 0 and not file.is_file():
        return _recorded(folder) or file
    return file


@contextmanager
def told_to_verl(path: Path | None) -> Iterator[None]:
    """Let verl's ``file`` logger, where it is made meanwhile, write to ``path``."""
    if path is None or _FILE in os.environ or _ROOT in os.environ:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    os.environ[_FILE] = str(path)
    try:
        yield
    finally:
        os.environ.pop(_FILE, None)


def lines_until(path: Path | None, step: int, folder: Path) -> list[bytes]:
    """What the run in ``folder`` has logged of the steps up to ``step``; none for a run that starts anew (step 0).

    Another run may have written to ``path``: it is read where it lies in ``folder`` or where no record says otherwise,
    and else what the record names. A last line that was cut off when the run was killed is left out.

    Args:
        path: Where the run is going to log; None if nowhere.
        step: Step after which it goes on.
        folder: ``trainer.default_local_dir``.
    """
    if path is None or step < 1:
        return []
    is_own = path.absolute().is_relative_to(folder.absolute()) or read_run(folder) is None
    past = path if is_own and path.is_file() else _recorded(folder)
    if past is None:
        return []
    whole, _ = sorted_out(past)
    return [line for line, value in whole if value["step"] <= step]


def _recorded(folder: Path) -> Path | None:
    """The file of metrics that the record of the run names, if it is there."""
    named = (read_run(folder) or {}).get("metrics_file")
    # Not Path.is_file(), which minds a name that is too long.
    return Path(named) if isinstance(named, str) and os.path.isfile(named) else None


def restore(tracking: Any, lines: list[bytes]) -> None:
    """Write ``lines`` to the file logger of verl's ``Tracking``, before anything else is logged."""
    logger = getattr(tracking, "logger", {}).get("file")
    if logger is not None and lines:
        logger.fp.write(b"\n".join(lines) + b"\n")
