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
from dataclasses import dataclass, field
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
        teachers: Names of the teachers.
        teacher_source: Where these names were found.
        steps: How the data were made, the last step first, in words.
        hub: Data sets of the Hub that the data came from.
    """

    files: Sequence[tuple[str, int | None]] = ()
    teachers: Sequence[str] = ()
    teacher_source: str = ""
    steps: Sequence[str] = ()
    hub: Sequence[str] = field(default_factory=list)


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
        teachers=teachers,
        teacher_source=source,
        steps=[_in_words(card) for card in chain],
        hub=[name for card in chain for name in _hub_names(card)],
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
                wanted += [entry["sha256"] for entry in _inputs(card) if entry.get("sha256")]
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


def _inputs(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(card.get("inputs") or []) or [card.get("prompts") or {}]


def _hub_names(card: Mapping[str, Any]) -> list[str]:
    return [entry["name"] for entry in _inputs(card) if "file" not in entry and is_hub_name(entry.get("name"))]


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
        for teacher, model in ((entry["name"], entry["model"]) for entry in card["settings"]["teachers"])
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


def _in_words(card: Mapping[str, Any]) -> str:
    """One step of the making, without names of folders."""
    command = card["command"]
    describe = {
        "data split": _split,
        "data normalize": _normalize,
        "data import": _import,
        "teacher collect": _collect,
    }.get(command)
    try:
        return describe(card) if describe else f"`gad-verl {command}`"
    except (KeyError, TypeError, AttributeError):
        return f"`gad-verl {command}`: its card lacks what this version writes"


def _from(card: Mapping[str, Any]) -> str:
    return " and ".join(f"`{Path(str(entry.get('file') or entry.get('name'))).name}`" for entry in _inputs(card))


def _split(card: Mapping[str, Any]) -> str:
    sides = ", ".join(f"{entry['rows']} in `{entry['file']}`" for entry in card["outputs"])
    choices = card["choices"]
    return (
        f"Split {_from(card)}, {card['counts']['rows']} rows: {sides}. Prompts with a Jaccard similarity of "
        f"{choices['near_duplicates']:g} or more stay on one side; seed {choices['seed']}."
    )


def _normalize(card: Mapping[str, Any]) -> str:
    counts = card["counts"]
    changed = ", ".join(f"{name} {number}" for name, number in counts["changed_by_step"].items() if number)
    return (
        f"Normalized {_from(card)}: {counts['read']} rows read, {counts['written']} written, {counts['texts_changed']} "
        f"texts changed{f' ({changed})' if changed else ''}."
    )


def _import(card: Mapping[str, Any]) -> str:
    counts, choices = card["counts"], card["choices"]
    hub = "".join(f" from the Hub's data set {name}" for name in _hub_names(card))
    source = hub or f" {_from(card)}"
    return (
        f"Imported{source} in the layout `{choices['layout']}`: {counts['read']} rows read, {counts['written']} "
        "written; "
        f"template `{Path(str(choices['template'])).name}`, "
        f"{'a' if choices['system_prompt'] else 'no'} system message added."
    )


def _collect(card: Mapping[str, Any]) -> str:
    answers, settings = card["answers"], card["settings"]
    sampling = "; ".join(
        f"{entry['name']}: {', '.join(f'{name} {value}' for name, value in entry['sampling'].items()) or 'defaults'}"
        for entry in settings["teachers"]
    )
    names = {"system": "a system message", "examples": "examples"}
    framing = [name for key, name in names.items() if settings.get(key)]
    template = Path(str(settings["template"]["name"])).name
    if template != "none":
        framing.append(f"the template `{template}` around each prompt")
    return (
        f"Collected over an OpenAI-compatible API from the prompts of {_from(card)}: {answers['kept']} answers kept of "
        f"{answers['wanted']} asked for, in {card['output']['rows']} rows. Sampling of {sampling}. "
        + (f"Besides, the teacher got {' and '.join(framing)}." if framing else "The teacher got nothing else.")
    )
