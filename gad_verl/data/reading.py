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
"""Rows of a file, one after another, with one clear error for everything that can be wrong with the file.

Layouts are not known here: a row is a dict as the file has it.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from gad_verl.errors import GadDataError

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")

_BATCH_ROWS = 1000
_FIRST_ROWS = 100


@dataclass(frozen=True)
class BadRow:
    """A row that the file's format does not allow.

    Args:
        reason: A few words, the same for all rows of the kind.
        message: One line that names file, row and remedy.
    """

    reason: str
    message: str


@dataclass(frozen=True)
class Source:
    """An input whose rows can be read, once per call of ``rows``.

    Args:
        name: What errors and cards call it.
        columns: Names of the columns; for JSON kinds those of all rows.
        count: Number of rows, or None where only reading tells.
        rows: Gives the rows as dicts, and a :class:`BadRow` in place of each that is broken. A list of columns makes it
            read only these of a parquet file.
        path: The file; None for a data set of a hub.
        details: What else the card should say, such as the split of a hub data set.
    """

    name: str
    columns: list[str]
    count: int | None
    rows: Callable[..., Iterator[dict[str, Any] | BadRow]]
    path: Path | None = None
    details: dict[str, Any] = field(default_factory=dict)


def check_path(path: str | Path, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """The path of an input file that is there, not empty, and of a known kind.

    Raises:
        GadDataError: Names the file and the remedy.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise GadDataError(f"{path} is a folder: name a file in it ({', '.join(suffixes)})")
    if not path.exists():
        raise GadDataError(f"{path}: no such file")
    if path.suffix not in suffixes:
        raise GadDataError(f"{path}: a data file must end in one of {', '.join(suffixes)}")
    if path.stat().st_size == 0:
        raise GadDataError(f"{path} is empty (0 bytes)")
    return path


def open_file(path: str | Path) -> Source:
    """A parquet, JSON, JSONL or CSV file as a source.

    Raises:
        GadDataError: If the file is missing, empty, of an unknown kind or not UTF-8, or two columns have one name;
            later, from ``rows``, if its encoding breaks further down.
    """
    path = check_path(path)
    opened = {".parquet": _open_parquet, ".json": _open_json, ".jsonl": _open_jsonl, ".csv": _open_csv}
    source = opened[path.suffix](path)
    doubled = [repr(name) for name, count in Counter(source.columns).items() if count > 1]
    if doubled:
        raise GadDataError(
            f"{path} has several columns of one name: {', '.join(doubled)}. Rename or remove all of them but one"
        )
    return source


def one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _not_utf8(path: Path, where: str, error: UnicodeDecodeError) -> GadDataError:
    byte = error.object[error.start]
    return GadDataError(
        f"{path}, {where}: not UTF-8 (byte 0x{byte:02x}). Convert the file: iconv -t UTF-8 with -f UTF-16 if it begins "
        "with the byte 0xff or 0xfe, else with -f LATIN1 or -f CP1252"
    )


def _open_parquet(path: Path) -> Source:
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns, count = list(file.schema_arrow.names), file.metadata.num_rows
    except Exception as error:
        raise GadDataError(f"{path} is no readable parquet file: {one_line(error)}") from None
    if count == 0:
        raise GadDataError(f"{path} has no rows")

    def rows(wanted: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        with parquet.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=None if wanted is None else list(wanted))
            while True:
                try:
                    values = next(batches).to_pylist()
                except StopIteration:
                    return
                except Exception as error:
                    # Damaged pages, or text columns that do not hold UTF-8.
                    raise GadDataError(f"{path} is a damaged parquet file: {one_line(error)}") from None
                yield from values

    return Source(str(path), columns, count, rows, path)


def _open_json(path: Path) -> Source:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, f"byte {error.start}", error) from None
    except (ValueError, RecursionError) as error:
        raise GadDataError(
            f"{path} is no readable JSON file: {one_line(error)}. One object a line is JSONL: name it .jsonl"
        ) from None
    if not isinstance(values, list):
        raise GadDataError(f"{path}: expected a JSON list of objects, got {type(values).__name__}")
    if not values:
        raise GadDataError(f"{path} has no rows")
    rows = [
        value
        if isinstance(value, dict)
        else BadRow("not an object", f"{path}, row {number}: expected a JSON object, got {type(value).__name__}")
        for number, value in enumerate(values)
    ]
    if isinstance(rows[0], BadRow) and not any(isinstance(row, dict) for row in rows):
        raise GadDataError(rows[0].message)
    return Source(str(path), _columns(rows), len(rows), lambda wanted=None: iter(rows), path)


def _columns(rows: Iterable[dict[str, Any] | BadRow]) -> list[str]:
    found: dict[str, None] = {}
    for row in rows:
        if isinstance(row, dict):
            found.update(dict.fromkeys(map(str, row)))
    return list(found)


def _open_jsonl(path: Path) -> Source:
    status = path.stat()
    columns = _jsonl_columns(path, status.st_mtime_ns, status.st_size)
    return Source(str(path), list(columns), None, lambda wanted=None: _jsonl_rows(path), path)


# A file is opened by one check after another: it is looked through once as long as it stays as it is.
@lru_cache(maxsize=32)
def _jsonl_columns(path: Path, modified_ns: int, size: int) -> tuple[str, ...]:
    first: list[dict[str, Any] | BadRow] = []

    def all_rows() -> Iterator[dict[str, Any] | BadRow]:
        try:
            for row in _jsonl_rows(path):
                if len(first) < _FIRST_ROWS:
                    first.append(row)
                yield row
        except GadDataError:
            # Further down it is told when the rows are read: a caller may want the first of them only.
            if len(first) < _FIRST_ROWS:
                raise

    columns = _columns(all_rows())
    if not first:
        raise GadDataError(f"{path} has no rows")
    bad = [row for row in first if isinstance(row, BadRow)]
    if len(bad) == len(first):
        raise GadDataError(f"{bad[0].message}. JSONL has one JSON object a line")
    return tuple(columns)


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any] | BadRow]:
    number = 0
    with path.open("rb") as handle:
        for line_number, raw in enumerate(handle, start=1):
            try:
                line = raw.decode("utf-8-sig" if line_number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, f"line {line_number}", error) from None
            if not line.strip():
                continue
            where = f"{path}, row {number} (line {line_number})"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield BadRow("broken JSON", f"{where}: broken JSON: {one_line(error)}")
            else:
                if isinstance(value, dict):
                    yield value
                else:
                    yield BadRow("not an object", f"{where}: expected an object, got {type(value).__name__}")
            number += 1


def _open_csv(path: Path) -> Source:
    # The default of 128 KiB a field is less than long answers take.
    csv.field_size_limit(1 << 30)

    def rows(wanted: Sequence[str] | None = None) -> Iterator[dict[str, Any] | BadRow]:
        number = 0
        try:
            with path.open(encoding="utf-8-sig", newline="") as handle:
                reader = csv.DictReader(handle, strict=True)
                for row in reader:
                    where = f"{path}, row {number} (line {reader.line_num})"
                    if None in row or any(value is None for value in row.values()):
                        fields = len(reader.fieldnames or ())
                        yield BadRow("wrong number of fields", f"{where}: the header has {fields} fields, this row not")
                    else:
                        yield row
                    number += 1
        except UnicodeDecodeError as error:
            raise _not_utf8(path, f"near row {number}", error) from None
        except csv.Error as error:
            raise GadDataError(f"{path}, row {number}: broken CSV: {error}") from None

    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            header = csv.DictReader(handle, strict=True).fieldnames
    except UnicodeDecodeError as error:
        raise _not_utf8(path, "header", error) from None
    except csv.Error as error:
        raise GadDataError(f"{path}: broken CSV header: {error}") from None
    if next(rows(), None) is None:
        raise GadDataError(f"{path} has no rows below its header")
    return Source(str(path), list(header or ()), None, rows, path)
