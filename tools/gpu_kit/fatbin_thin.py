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
"""Takes the machine code of other GPU architectures out of a shared library, so that it compresses well.

Every fat binary (a container in the section .nv_fatbin) is rewritten in its place with the wanted entries alone and
filled up with zeros: the file keeps its size and all its addresses. A container without a wanted entry keeps its
smallest one, which the driver refuses as it would have done before.
"""

import struct
from collections.abc import Collection, Iterator
from pathlib import Path

_MAGIC = b"\x50\xed\x55\xba"
_CUBIN = 2
# Kind, architecture, start and end, its header included.
Entry = tuple[int, int, int, int]


def containers(data: bytes) -> Iterator[tuple[int, int, list[Entry]]]:
    """Start, end and entries of every fat binary.

    Raises:
        ValueError: If a container is not built as those that are known.
    """
    at = 0
    while (at := data.find(_MAGIC, at)) >= 0:
        version, header, size = struct.unpack_from("<HHQ", data, at + 4)
        if version != 1 or header != 16 or not 0 < size <= len(data) - at - header:
            at += 4
            continue
        cursor, end = at + header, at + header + size
        found: list[Entry] = []
        while cursor + 64 <= end:
            kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", data, cursor)
            (architecture,) = struct.unpack_from("<I", data, cursor + 28)
            stop = cursor + entry_header + entry_size
            if entry_header < 32 or stop > end:
                raise ValueError(f"unknown entry at {cursor:#x}")
            found.append((kind, architecture, cursor, stop))
            cursor = stop
        if cursor != end or not found:
            raise ValueError(f"the container at {at:#x} does not end where it should")
        yield at, end, found
        at = end


def thin(library: Path, wanted: Collection[int]) -> None:
    """Rewrite a library with the machine code of some architectures (90 for sm_90) alone."""
    data = bytearray(library.read_bytes())
    for start, end, entries in list(containers(bytes(data))):
        keep = [entry for entry in entries if entry[0] == _CUBIN and entry[1] in wanted]
        keep = keep or [min(entries, key=lambda entry: entry[3] - entry[2])]
        body = b"".join(bytes(data[first:last]) for _, _, first, last in keep)
        struct.pack_into("<Q", data, start + 8, len(body))
        data[start + 16 : end] = body + bytes(end - start - 16 - len(body))
    library.write_bytes(data)
