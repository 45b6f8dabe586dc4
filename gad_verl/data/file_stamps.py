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
"""Data files that may change while a run goes on: which have changed since they were last looked at."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def file_list(value: Any) -> list[str]:
    """``data.train_files`` or ``data.val_files`` as a list: one path or several."""
    return [str(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else [str(value)]


@dataclass(frozen=True)
class FileStamp:
    """A data file as it was at one moment.

    Args:
        path: The file.
        size: Bytes.
        modified_ns: Time of the last change, nanoseconds since 1970.
        digest: Of the content.
    """

    path: str
    size: int
    modified_ns: int
    digest: str


def _status(path: str) -> tuple[int, int]:
    status = os.stat(Path(path).expanduser())
    return status.st_size, status.st_mtime_ns


def stamp_files(paths: Sequence[str], known: Sequence[FileStamp] = ()) -> list[FileStamp]:
    """Look at files. Content is read only where size or time differ from what is known.

    Raises:
        OSError: If a file is missing or unreadable.
    """
    before = {(stamp.path, stamp.size, stamp.modified_ns): stamp for stamp in known}
    stamps = []
    for path in paths:
        size, modified_ns = _status(path)
        stamp = before.get((path, size, modified_ns))
        if stamp is None:
            digest = hashlib.blake2b(digest_size=16)
            with Path(path).expanduser().open("rb") as handle:
                while chunk := handle.read(_CHUNK):
                    digest.update(chunk)
            stamp = FileStamp(path, size, modified_ns, digest.hexdigest())
        stamps.append(stamp)
    return stamps


def same_content(old: Sequence[FileStamp], new: Sequence[FileStamp]) -> bool:
    """Whether the files hold the same in the same order, wherever they lie."""
    return [stamp.digest for stamp in old] == [stamp.digest for stamp in new]


def changed_files(old: Sequence[FileStamp], new: Sequence[FileStamp]) -> list[str]:
    """Paths whose content is another one, or that are new or gone. A file that was only touched is not among them."""
    before, after = ({stamp.path: stamp.digest for stamp in stamps} for stamps in (old, new))
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
