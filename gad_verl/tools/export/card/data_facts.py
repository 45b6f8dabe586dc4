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

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_verl.record.files import read_json
from gad_verl.tools.export.card.request import is_hub_name
from gad_verl.tools.export.card.run_facts import RunFacts

logger = logging.getLogger(__name__)


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


def read_data_facts(run: RunFacts) -> DataFacts:
    """Look for the training files, their cards, and the cards of what they were made from.

    Args:
        run: Of the checkpoint; its configuration names the files.
    """
    names = run.get("data.train_files")
    names = [names] if isinstance(names, str) else names if isinstance(names, list | tuple) else []
    paths = [(Path(str(name)).name, run.resolve(str(name))) for name in names]
    chain = [card for _, path in paths if path is not None and path.is_file() for card in _chain(path)]
    chain = [card for number, card in enumerate(chain) if card not in chain[:number]]
    teachers, source = _teachers(chain)
    return DataFacts(
        files=[(name, _rows(path)) for name, path in paths],
        teacher=f"{', '.join(teachers)} (as {source} says)" if teachers else "unknown (no data card names it)",
        cards=chain,
        hub=[source_name(entry) for card in chain for entry in inputs_of(card) if _is_of_hub(entry)],
    )


def _chain(file: Path) -> list[dict[str, Any]]:
    """The card of a file, then those of its inputs, as long as checksums lead from one to the next."""
    from gad_verl.tools.data.writing import sha256

    try:
        wanted = [sha256(file)]
    except OSError as error:
        logger.warning("the card does not say how %s was made, which cannot be read: %s", file, error.strerror)
        return []
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
            card = read_json(path)
            if card is None or "command" not in card:
                continue
            try:
                _look_through(card)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                logger.warning("the card is made without %s, which is of another form: %r", path, error)
            else:
                yield card


def _look_through(card: Mapping[str, Any]) -> None:
    """Fails where a card, of another version or another program, has not the form that is read here."""
    for entry in (*_outputs(card), *inputs_of(card)):
        entry.get("sha256")
    for entry in inputs_of(card):
        source_name(entry)
    _teachers([card])


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


def _teachers(chain: Sequence[Mapping[str, Any]]) -> tuple[list[str], str]:
    collected = [
        teacher if teacher == model else f"{teacher} ({model})"
        for card in chain
        if card["command"] == "teacher collect"
        for teacher, model in ((entry["name"], entry["endpoint"]["model"]) for entry in card["settings"]["teachers"])
    ]
    if collected:
        return collected, "the card of the collected answers"
    return list(dict.fromkeys(_imported(chain))), "the card of the import"


def _imported(chain: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Teachers that the rows of imports name; of an import of what was imported before, the later one's rows."""
    before: set[str] = set()
    for card in chain:
        is_replaced = bool(before & {output.get("sha256") for output in _outputs(card)})
        counted = (card.get("counts") or {}).get("teachers") if card["command"] == "data import" else None
        if counted and not is_replaced:
            yield from (str(name) or "texts that name no teacher" for name in counted)
        elif not is_replaced and (named := (card.get("choices") or {}).get("teacher")):
            # Of a version that did not count: rows without a teacher got this one.
            yield str(named)
        if counted or is_replaced:
            before |= {entry["sha256"] for entry in inputs_of(card) if entry.get("sha256")}
