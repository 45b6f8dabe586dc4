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
"""Whether a checkpoint is as it was written: the list of its files and their sizes, which marks it as complete."""

import json
import os
import shutil
from pathlib import Path

from gad_verl.errors import GadCheckpointError
from gad_verl.record.files import json_object, write_atomically

COMPLETE_FILE = "gad_complete"
# A validation after the step replaces it, in one piece.
_REPLACED = ("gad_parts.pt",)
_MOST_NAMED = 3


def write_list(folder: Path) -> None:
    """Bring every file of a checkpoint to the disk, then list them in ``gad_complete``.

    The order matters where a machine goes down: a list without its files would be worse than none.
    """
    files = _files(folder)
    for name in files:
        _sync(folder / name)
    write_atomically(folder / COMPLETE_FILE, json.dumps({"files": files}, indent=1))
    _sync(folder / COMPLETE_FILE)


def damages(folder: Path) -> list[str]:
    """What a checkpoint lacks of the files that were listed, a text each: of all but the first only their number.

    Files that came later are no damage. Without a list (a run that was killed between verl's tracker and the mark, or a
    checkpoint of an older version) there is nothing to compare with.
    """
    listed, found = _listed(folder), _files(folder)
    texts = [
        f"{name} is missing" if name not in found else f"{name} has {found[name]} bytes instead of {size}"
        for name, size in sorted(listed.items())
        if found.get(name) != size
    ]
    more = len(texts) - _MOST_NAMED
    return texts if more <= 0 else [*texts[:_MOST_NAMED], f"{more} more"]


def size_bytes(folder: Path) -> int:
    """Bytes of a checkpoint by its list; 0 without one."""
    return sum(_listed(folder).values())


def check_space(root: Path, last: Path | None, step: int) -> None:
    """Refuse to begin a checkpoint that would not fit: a disk that is full in the midst of one says so in riddles.

    Args:
        root: Folder of the checkpoints.
        last: The checkpoint before, about as large as the next one; None without one.
        step: Of the checkpoint that is to be written.

    Raises:
        GadCheckpointError: Names the folder, what is free, and what is wanted.
    """
    wanted = 0 if last is None else size_bytes(last)
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < wanted:
        raise GadCheckpointError(
            f"the checkpoint of step {step} was not begun: {root} has {free / 2**30:.2f} GiB free, and the one before "
            f"took {wanted / 2**30:.2f} GiB. Free some, or lower gad.keep_checkpoints; the same command goes on"
        )


def _files(folder: Path) -> dict[str, int]:
    """Sizes of the files below a checkpoint, by their path in it."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (COMPLETE_FILE, *_REPLACED) and not path.name.endswith(".partial")
    }


def _listed(folder: Path) -> dict[str, int]:
    """The list; empty where there is none, and for what is no list."""
    try:
        content = json_object((folder / COMPLETE_FILE).read_bytes())
    except OSError:
        return {}
    files = None if content is None else content.get("files")
    return files if isinstance(files, dict) else {}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
