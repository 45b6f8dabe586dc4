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
"""Output files that appear whole or not at all, with a card beside them."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from gad_verl import __version__
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.record.files import replaced, to_json


def card_path(output: Path) -> Path:
    """Where the card of an output file (or folder) stands."""
    return output / "card.json" if output.suffix == "" else output.with_name(f"{output.name}.card.json")


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def describe_file(path: Path, name: str | None = None) -> dict[str, Any]:
    """Name (without folders), size in bytes and checksum, for a card."""
    return {"file": name or path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}


class Outputs:
    """Files that are written under temporary names and take their places together.

    Use it through :func:`outputs`.
    """

    def __init__(self, overwrite: bool, stack: ExitStack) -> None:
        self._overwrite = overwrite
        self._stack = stack
        self._files: dict[Path, Path] = {}

    def add(self, path: Path) -> Path:
        """Temporary path for a final one, in the same folder.

        Raises:
            FileExistsError: If the file exists and may not be overwritten.
            GadConfigError, GadDataError: If two outputs have one name, or it is a folder's.
        """
        if path.is_dir():
            raise GadDataError(f"{path} is a folder: name a file to write")
        if path in self._files:
            raise GadConfigError(f"{path} is named for two outputs")
        if path.exists() and not self._overwrite:
            raise FileExistsError(f"{path} exists: choose another name or add --overwrite")
        for folder in reversed([folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]):
            folder.mkdir()
            self._stack.callback(_remove_if_empty, folder)
        self._files[path] = self._stack.enter_context(replaced(path))
        return self._files[path]

    def temporary(self, path: Path) -> Path:
        """The temporary path that stands for ``path``."""
        return self._files[path]

    def write_card(self, path: Path, content: dict[str, Any]) -> None:
        """Write a card that was added: JSON with the version of gad_verl first."""
        text = to_json({"gad_verl": __version__} | content)
        # The name of a file may be any bytes: those that are no UTF-8 become question marks.
        self.temporary(path).write_text(text, encoding="utf-8", errors="replace")


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def outputs(overwrite: bool = False) -> Iterator[Outputs]:
    """Files of one command; an error or an interruption leaves none of them.

    Example:
        >>> with outputs() as files:  # doctest: +SKIP
        ...     files.add(path).write_text("...", encoding="utf-8")
    """
    with ExitStack() as stack:
        yield Outputs(overwrite, stack)


class RowWriter:
    """Writes rows (dicts) of a fixed schema to a parquet file, a group of rows at a time.

    Args:
        path: File to write.
        schema: Schema of the file.
        group_rows: Rows per row group.
    """

    def __init__(self, path: Path, schema: pa.Schema, group_rows: int = 5000) -> None:
        self.rows = 0
        self._writer = parquet.ParquetWriter(path, schema, compression="zstd")
        self._schema = schema
        self._group_rows = group_rows
        self._pending: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self._pending.append(row)
        self.rows += 1
        if len(self._pending) >= self._group_rows:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
            self._pending = []

    def close(self) -> None:
        """Write what is left and the footer."""
        self._flush()
        self._writer.close()

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()
