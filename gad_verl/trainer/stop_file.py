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
"""A file that asks a run to save and end: ``touch`` works where a signal does not reach the trainer's process."""

from pathlib import Path

from gad_verl.config import GadConfig
from gad_verl.errors import GadConfigError

STOP_FILE = "stop"


class StopFile:
    """Looks for the file, and answers by another one with the ending ``.done``.

    Args:
        path: Of the file. On a file system that the trainer's node reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer = path.with_name(f"{path.name}.done")

    def check(self) -> None:
        """Refuse a path at which something else lies: it would be removed.

        Raises:
            GadConfigError: If it is no empty file.
        """
        if self.path.exists() and (not self.path.is_file() or self.path.stat().st_size > 0):
            raise GadConfigError(f"gad.stop_file: {self.path} is there already and no empty file: name another place")

    def clear(self) -> None:
        """Forget a request that was for an earlier run.

        Raises:
            GadConfigError: As :meth:`check`.
        """
        self.check()
        self.path.unlink(missing_ok=True)
        self.answer.unlink(missing_ok=True)

    @classmethod
    def of_run(cls, config: GadConfig, checkpoint_root: Path) -> "StopFile":
        """Where the configuration puts it.

        Args:
            config: The section ``gad``.
            checkpoint_root: ``trainer.default_local_dir``.
        """
        return cls(Path(config.stop_file or checkpoint_root / STOP_FILE).absolute())

    def request(self) -> None:
        """Ask the run to save and end."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    @property
    def is_there(self) -> bool:
        """Whether the run is asked to end."""
        return self.path.exists()

    def confirm(self, text: str) -> None:
        """Say that the run has ended because of the file."""
        self.answer.write_text(f"{text}\n", encoding="utf-8")
        self.path.unlink(missing_ok=True)
