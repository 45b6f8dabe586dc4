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
"""What the training data were and how they were made: the cards of ``gad-verl data`` and ``gad-verl teacher``."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_verl.errors import GadDataError
from gad_verl.tools.export.card.request import is_hub_name
from gad_verl.tools.export.card.run_facts import RunFacts

_MOST_TEACHERS = 10
_LONGEST_NAME = 80


@dataclass(frozen=True)
class DataFacts:
    """What is known of the training data.

    Args:
        files: Name (without folders) and number of rows, None if unknown, of each training file.
        teacher: Names of the teachers and where they were found, in words.
        cards: Of ``gad-verl data`` and ``gad-verl teacher``: how the data were made, the last step first.
        hub: Data sets of the Hub that the data came from.
    """

    files: Sequence[tuple[str, int | None]]
    teacher: str
    cards: Sequence[Mapping[str, Any]]
    hub: Sequence[str]


def read_data_facts(run: RunFacts, cards: Sequence[Path]) -> DataFacts:
    """Look for the training files, their cards, and the cards of what they were made from.

    Args:
        run: Of the checkpoint; its configuration names the files.
        cards: Cards that the user names.

    Raises:
        GadDataError: If a card that the user names cannot be read.
    """
    names = run.get("data.train_files") or []
    names = [names] if isinstance(names, str) else list(names)
    paths = [(Path(str(name)).name, run.resolve(str(name))) for name in names]
    chain = [_read_card(path) for path in cards]
    for _, path in paths:
        if path is not None and path.is_file():
            chain += _chain(path)
    chain = [card for number, card in enumerate(chain) if card not in chain[:number]]
    teachers, source = _teachers(chain, [path for _, path in paths if path is not None], run.get("gad.teachers.column"))
    return DataFacts(
        files=[(name, _rows(path)) for name, path in paths],
        teacher=f"{', '.join(teachers)} (as {source} says)"
        if teachers
        else "unknown (no data card and no column names it)",
        cards=chain,
        hub=[source_name(entry) for card in chain for entry in inputs_of(card) if _is_of_hub(entry)],
    )


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise GadDataError(f"--data-card {path} cannot be read: {error.strerror}") from None
    except ValueError:
        card = None
    if not isinstance(card, dict) or "command" not in card:
        raise GadDataError(f"--data-card {path}: no card of gad-verl data or gad-verl teacher (JSON with a command)")
    return card


def _chain(file: Path) -> list[dict[str, Any]]:
    """The card of a file, then those of its inputs, as long as checksums lead from one to the next."""
    from gad_verl.tools.data.writing import sha256

    wanted = [sha256(file)]
    cards = list(_cards_near(file.parent))
    found: list[dict[str, Any]] = []
    while wanted:
        checksum = wanted.pop(0)
        for card in cards:
            if card not in found and checksum in {output.get("sha256") for output in _outputs(card)}:
                found.append(card)
                wanted += [entry["sha256"] for entry in inputs_of(card) if entry.get("sha256")]
    return found


def _cards_near(folder: Path) -> Iterable[dict[str, Any]]:
    for place in (folder, folder.resolve().parent):
        for path in sorted({*place.glob("*.card.json"), *place.glob("card.json")}):
            try:
                yield _read_card(path)
            except GadDataError:
                continue


def _outputs(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(card.get("outputs") or []) or [card.get("output") or {}]


def inputs_of(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the rows of a card were made from; an empty mapping where it does not say."""
    return list(card.get("inputs") or []) or [card.get("prompts") or {}]


def _is_of_hub(entry: Mapping[str, Any]) -> bool:
    return "file" not in entry and is_hub_name(entry.get("name"))


def source_name(entry: Mapping[str, Any]) -> str:
    """What an input of a card is called: a data set's name on the Hub, or a file's without its folders."""
    return (
        str(entry["name"]) if _is_of_hub(entry) else Path(str(entry.get("file") or entry.get("name") or "unknown")).name
    )


def _rows(path: Path | None) -> int | None:
    """Rows of a parquet file from its footer; other kinds are not read."""
    if path is None or path.suffix != ".parquet":
        return None
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return int(parquet.ParquetFile(path).metadata.num_rows)
    except (OSError, pa.ArrowException):
        return None


def _teachers(chain: Sequence[Mapping[str, Any]], files: Sequence[Path], column: Any) -> tuple[list[str], str]:
    collected = [
        teacher if teacher == model else f"{teacher} ({model})"
        for card in chain
        if card["command"] == "teacher collect"
        for teacher, model in ((entry["name"], entry["endpoint"]["model"]) for entry in card["settings"]["teachers"])
    ]
    if collected:
        return collected, "the card of the collected answers"
    column = column if isinstance(column, str) else "teacher"
    names = sorted({name for file in files for name in _column_values(file, column)})
    if names:
        more = len(names) - _MOST_TEACHERS
        shown = names[:_MOST_TEACHERS] + ([f"and {more} more"] if more > 0 else [])
        return shown, f"the column {column} of the training rows"
    imported = [str(name) for card in chain if (name := (card.get("choices") or {}).get("teacher"))]
    return imported, "the card of the import" if imported else ""


def _column_values(file: Path, column: str) -> set[str]:
    if file.suffix != ".parquet":
        return set()
    import pyarrow as pa
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    try:
        if column not in parquet.read_schema(file).names:
            return set()
        values = parquet.read_table(file, columns=[column]).column(0)
        while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            values = compute.list_flatten(values)
        found = compute.unique(values).to_pylist()
    except (OSError, pa.ArrowException):
        return set()
    return {" ".join(name.split())[:_LONGEST_NAME] for name in found if isinstance(name, str) and name.strip()}
