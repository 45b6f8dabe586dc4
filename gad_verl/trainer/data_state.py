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
"""What a checkpoint remembers of the training data, beside verl's ``data.pt``: ``gad_data.json``."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gad_verl.data.file_stamps import FileStamp
from gad_verl.errors import GadCheckpointError
from gad_verl.record.files import write_atomically

DATA_FILE = "gad_data.json"
SAMPLER_OF_VERL, SAMPLER_OF_CURRICULUM = "verl", "curriculum"


@dataclass(frozen=True)
class DataState:
    """The training data at a checkpoint.

    Args:
        sampler: Whose state ``data.pt`` holds: "verl" or "curriculum".
        steps_per_epoch: Of the data with which the run began; the stages and the end of the run follow from it.
        rows: Rows of the data in use.
        batch_size: Prompts of a step; None in checkpoints of older versions.
        passes: How often the data were gone through; counted with ``gad.reload_data=epoch``.
        reloads: How often they were replaced.
        fetched: Rows that verl's loader gives at once; None in checkpoints of older versions.
        files: The files as they were loaded; empty in checkpoints of older versions.
    """

    sampler: str
    steps_per_epoch: int
    rows: int
    batch_size: int | None = None
    passes: int = 0
    reloads: int = 0
    fetched: int | None = None
    files: list[FileStamp] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write ``gad_data.json``; the file is there whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / DATA_FILE, json.dumps(asdict(self), indent=2))


def read_data_state(folder: Path) -> DataState | None:
    """The state in a checkpoint; None in those of older versions, which wrote it only with a curriculum or reloading.

    Raises:
        GadCheckpointError: If the file is damaged.
    """
    path = folder / DATA_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["files"] = [FileStamp(**stamp) for stamp in content["files"]]
        return DataState(**content)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise GadCheckpointError(f"{path} is damaged: {error}") from None
