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
"""Packs folders into compressed bundles, deals them into transfers of a size, joins them again. Standard library alone.

It travels itself: on the other machine, ``python bundle.py join TARGET FOLDER...`` unpacks what came.
"""

import concurrent.futures
import hashlib
import io
import json
import lzma
import os
import shutil
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MIB = 2**20
MANIFEST = "manifest.json"
# Of one file: small enough that several fill a transfer well.
PART_BYTES = 12 * MIB
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 64 * MIB}]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tar(folder: Path) -> bytes:
    """Files of a folder; the same folder gives the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                continue
            entry = tar.gettarinfo(path, arcname=str(path.relative_to(folder)))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            with path.open("rb") as file:
                tar.addfile(entry, file if entry.isreg() else None)
    return buffer.getvalue()


def pack(out: Path, name: str, folder: Path, part_bytes: int = PART_BYTES) -> dict[str, Any]:
    """Write the parts of one bundle into ``out``; returns its entry of the manifest."""
    out.mkdir(parents=True, exist_ok=True)
    raw = _tar(folder)
    data = lzma.compress(raw, format=lzma.FORMAT_XZ, filters=_FILTERS)
    parts = []
    for number, at in enumerate(range(0, len(data), part_bytes)):
        piece = data[at : at + part_bytes]
        file = f"{name}.{number:02d}"
        (out / file).write_bytes(piece)
        parts.append({"file": file, "bytes": len(piece), "sha256": _sha256(piece)})
    return {"raw": len(raw), "bytes": len(data), "sha256": _sha256(data), "parts": parts}


def deal(
    manifest: Mapping[str, Any], order: Sequence[Sequence[str]], limit: int, taken: Sequence[int] = ()
) -> list[list[str]]:
    """Files of each transfer: as early as they fit, those that an early call needs first.

    Args:
        manifest: Entry of each bundle.
        order: Bundles that call 1 needs, that call 2 needs too, and so on.
        limit: Bytes of a transfer.
        taken: Bytes of each transfer that scripts need beside them.

    Raises:
        ValueError: If what a call needs does not fit into the transfers up to it.
    """
    room = [limit - (taken[number] if number < len(taken) else 0) for number in range(len(order))]
    dealt: list[list[str]] = [[] for _ in order]
    for call, names in enumerate(order):
        for part in (part for name in names for part in manifest[name]["parts"]):
            fitting = [number for number in range(call + 1) if room[number] >= part["bytes"]]
            if not fitting:
                raise ValueError(f"call {call + 1} needs {part['file']}, which fits into no transfer up to it")
            room[fitting[0]] -= part["bytes"]
            dealt[fitting[0]].append(part["file"])
    return dealt


def join(target: Path, folders: Sequence[Path]) -> list[str]:
    """Unpack every bundle all of whose parts are there and that is not unpacked yet; a line about each.

    Raises:
        ValueError: If a part is not what was sent.
    """
    target.mkdir(parents=True, exist_ok=True)
    # Parts of a bundle that comes over several transfers wait here.
    waiting = target / ".parts"
    waiting.mkdir(exist_ok=True)
    manifest: dict[str, Any] = {}
    found: dict[str, Path] = {}
    for folder in [waiting, *folders]:
        for file in sorted(folder.iterdir()):
            if file.name == MANIFEST:
                manifest |= json.loads(file.read_text(encoding="utf-8"))
            elif file.is_file():
                found[file.name] = file
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda name: _join_one(target, waiting, name, manifest[name], found), sorted(manifest)))


def _join_one(target: Path, waiting: Path, name: str, entry: Mapping[str, Any], found: Mapping[str, Path]) -> str:
    done = target / f".{name}.done"
    if done.exists() and done.read_text(encoding="utf-8") == entry["sha256"]:
        return f"{name}: there already"
    missing = [part["file"] for part in entry["parts"] if part["file"] not in found]
    if missing:
        for part in entry["parts"]:
            if part["file"] in found and found[part["file"]].parent != waiting:
                shutil.copy(found[part["file"]], waiting)
        return f"{name}: waits for {', '.join(missing)}"
    pieces = []
    for part in entry["parts"]:
        piece = found[part["file"]].read_bytes()
        if _sha256(piece) != part["sha256"]:
            raise ValueError(f"{part['file']}: wrong checksum; send it again")
        pieces.append(piece)
    raw = lzma.decompress(b"".join(pieces))
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        tar.extractall(target, filter="tar")
    done.write_text(entry["sha256"], encoding="utf-8")
    return f"{name}: {entry['bytes'] / MIB:.1f} -> {len(raw) / MIB:.1f} MiB"


if __name__ == "__main__":
    command, where, *sources = sys.argv[1:]
    if command != "join":
        raise SystemExit(__doc__)
    sys.stdout.write("\n".join(join(Path(where), [Path(source) for source in sources])) + "\n")
