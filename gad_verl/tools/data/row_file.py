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
"""A file of GAD's schema as Arrow batches: other columns and the file's own types pass through unchanged.

But for views of texts and of bytes (``string_view``), which Arrow can neither filter nor write everywhere: they become
plain ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from gad_verl.data.reading import BadRow, check_path, open_file
from gad_verl.data.schema import check_file
from gad_verl.errors import GadDataError

SUFFIXES = (".parquet", ".jsonl", ".json")
_BATCH_ROWS = 2000


@dataclass(frozen=True)
class GadFile:
    """A checked file.

    Args:
        path: The file.
        schema: Its columns and types.
        rows: Number of rows.
        table: The rows of a JSON kind; parquet is read batch by batch instead.
    """

    path: Path
    schema: pa.Schema
    rows: int
    table: pa.Table | None = None

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows in order.

        Args:
            columns: Only these; None means all.
        """
        if self.table is not None:
            table = self.table if columns is None else self.table.select(columns)
            yield from table.to_batches(max_chunksize=_BATCH_ROWS)
            return
        names = self.schema.names if columns is None else columns
        schema = pa.schema([self.schema.field(name) for name in names], self.schema.metadata)
        with parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                yield batch if batch.schema.equals(schema) else batch.select(names).cast(schema)

    def records(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Some columns of all rows as Python values; those that the file does not have are left out."""
        for batch in self.batches([column for column in columns if column in self.schema.names]):
            yield from batch.to_pylist()

    def values(self, column: str) -> Iterator[Any]:
        """One column as Python values."""
        for batch in self.batches([column]):
            yield from batch.column(0).to_pylist()


def open_table(path: str | Path) -> GadFile:
    """A parquet, JSON or JSONL file of any columns.

    Raises:
        GadDataError: If it cannot be read, or a column mixes types or holds numbers that are too large.
    """
    path = check_path(path, SUFFIXES)
    source = open_file(path)
    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            kept = file.schema_arrow
            plain = [field.with_type(without_views(field.type)) for field in kept]
            schema = pa.schema(plain, kept.metadata)
            return GadFile(path, schema, file.metadata.num_rows)
    rows: list[dict[str, Any]] = []
    for row in source.rows():
        if isinstance(row, BadRow):
            raise GadDataError(row.message)
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: _array([row.get(name) for row in rows], f"{path}, column {name!r}") for name in names})
    return GadFile(path, table.schema, table.num_rows, table)


def without_views(kind: pa.DataType) -> pa.DataType:
    """The type with plain texts and bytes in the place of views, at any depth."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        return pa.struct([field.with_type(without_views(field.type)) for field in fields])
    if pa.types.is_map(kind):
        return pa.map_(without_views(kind.key_type), without_views(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(without_views(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(without_views(kind.value_type)))
    return kind


def _array(values: list[Any], where: str) -> pa.Array:
    """A column that parquet can hold: objects of which no row has a key, which it has no type for, become nulls."""
    try:
        array = pa.array(values)
        return pa.array([_filled(value, array.type) for value in values]) if _has_empty(array.type) else array
    except OverflowError:
        raise GadDataError(
            f"{where} holds whole numbers that no type of 64 bits holds: write them as text, or leave the column out"
        ) from None
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        raise GadDataError(
            f"{where} mixes types or holds broken Unicode: {' '.join(str(error).split())[:200]}"
        ) from None


def _has_empty(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_empty(field.type) for field in kind)
    return pa.types.is_list(kind) and _has_empty(kind.value_type)


def _filled(value: Any, kind: pa.DataType) -> Any:
    """A value with nulls for objects that have no key in any row."""
    if isinstance(value, dict):
        return {name: _filled(one, kind.field(name).type) for name, one in value.items()} if kind.num_fields else None
    return [_filled(one, kind.value_type) for one in value] if isinstance(value, list) else value


def open_gad_file(path: str | Path, prompt_key: str, teacher_key: str) -> GadFile:
    """A file of GAD's schema, every row checked as before a training run.

    Raises:
        GadDataError: Names the file, row and column, and the remedy.
    """
    # First, since what is wrong with its columns says more than that some other column is no table.
    check_file(check_path(path, SUFFIXES), prompt_key, teacher_key, ("--prompt-key", "--teacher-key"))
    return open_table(path)
