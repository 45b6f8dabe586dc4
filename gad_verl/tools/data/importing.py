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
"""``gad-verl data import``: published layouts into parquet files of GAD's schema."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from gad_verl.data.endings import EXTRA_INFO, LENGTH, MARKS, STOP, marks_of
from gad_verl.data.reading import BadRow, Source
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.record.files import check_apart, plain
from gad_verl.tools.data.batches import open_replies
from gad_verl.tools.data.hub import open_source
from gad_verl.tools.data.layouts import Example, Layout, find_layout, names_each_teacher
from gad_verl.tools.data.row_values import Unusable, WrongType, is_written_list
from gad_verl.tools.data.templates import NONE, Template
from gad_verl.tools.data.writing import RowWriter, card_path, describe_file, outputs

logger = logging.getLogger(__name__)

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def row_schema(
    several_texts: bool, says_ends: bool = False, has_tools: bool = False, names_each: bool = False
) -> pa.Schema:
    """Schema of an imported file.

    Args:
        several_texts: Whether rows have several texts: ``teacher_response`` is a list then.
        says_ends: Whether rows say how their texts ended. Else the schema is without, as files of one schema alone can
            be read together.
        has_tools: Whether rows hold trajectories: ``teacher_messages`` and ``tools``, both as JSON text, in the place
            of ``teacher_response``.
        names_each: Whether rows name the teacher of each of several texts: ``teacher`` is a list then.
    """
    about = [("index", pa.int64()), ("id", pa.string()), ("category", pa.string())]
    if says_ends:
        about.append(("finish_reason", pa.list_(pa.string()) if several_texts else pa.string()))
    return pa.schema(
        [
            ("prompt", MESSAGES),
            *(
                [("teacher_messages", pa.string()), ("tools", pa.string())]
                if has_tools
                else [("teacher_response", pa.list_(pa.string()) if several_texts else pa.string())]
            ),
            ("teacher", pa.list_(pa.string()) if names_each else pa.string()),
            ("data_source", pa.string()),
            ("extra_info", pa.struct(about)),
        ]
    )


@dataclass(frozen=True)
class ImportOptions:
    """Choices of an import.

    Args:
        layout: Name of the layout; None detects it.
        template: Wrapper around instruction and input.
        system_prompt: Put before chats that have no system message.
        teacher: Written where a row, or a list of names in it, names no teacher.
        data_source: Written where a row names no source; None takes the name of the input.
        rename: Columns to rename before anything else, old name to new.
        skip_invalid: Count rows of a wrong type or with broken JSON as rejected, instead of ending with an error.
        limit: Only so many rows of the input.
        split: Split of a hub data set.
        config: Configuration of a hub data set.
        requests: For the output of a batch: the file that was sent.
    """

    layout: str | None = None
    template: Template = NONE
    system_prompt: str | None = None
    teacher: str | None = None
    data_source: str | None = None
    rename: dict[str, str] = field(default_factory=dict)
    skip_invalid: bool = False
    limit: int | None = None
    split: str = "train"
    config: str | None = None
    requests: Path | None = None


@dataclass
class ImportResult:
    """What an import did.

    Attributes:
        layout: Name of the layout.
        unused_columns: Columns left behind.
        read, written: Rows.
        rejected: Rows left out, by reason.
        teachers: Teacher texts by the name of their teacher; an empty name is none.
        written_lists: Teacher texts that are a list of texts, written as one text.
    """

    layout: str
    unused_columns: list[str] = field(default_factory=list)
    read: int = 0
    written: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    written_lists: int = 0

    @property
    def all_are_written_lists(self) -> bool:
        """Whether the column of the teacher's texts is likely a column of lists that became text on its way."""
        return 0 < self.written == self.written_lists


def _prompt(example: Example, options: ImportOptions) -> list[dict[str, str]]:
    messages = example.messages
    if example.instruction is not None:
        asked = {"role": "user", "content": options.template.render(example.instruction, example.context)}
        messages = [*messages, asked]
    system = example.system or options.system_prompt
    if system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    return messages


def _rename(row: dict[str, Any], rename: dict[str, str]) -> dict[str, Any]:
    return {rename.get(name, name): value for name, value in row.items()} if rename else row


def _renamed_columns(source: Source, rename: dict[str, str]) -> list[str]:
    for old in rename:
        if old not in source.columns:
            raise GadDataError(
                f"--rename {old}=...: {source.name} has no such column; it has {', '.join(source.columns)}"
            )
    columns = [rename.get(name, name) for name in source.columns]
    doubled = sorted(name for name, count in Counter(columns).items() if count > 1)
    if doubled:
        raise GadConfigError(f"--rename: {source.name} would have several columns {', '.join(doubled)}")
    return columns


def _examples(
    source: Source, layout: Layout, options: ImportOptions, result: ImportResult
) -> Iterator[tuple[int, Example | None, str]]:
    """Number of the row, and an example, or None and why the row cannot be used."""
    for number, row in enumerate(source.rows()):
        if options.limit is not None and number >= options.limit:
            return
        result.read += 1
        if isinstance(row, BadRow):
            if not options.skip_invalid:
                raise GadDataError(f"{row.message}. Mend the row, or add --skip-invalid")
            yield number, None, row.reason
            continue
        row = _rename(row, options.rename)
        try:
            # A row with several instances is used whole or not at all.
            examples = list(layout.examples(row))
            _check_unicode(examples)
        except Unusable as reason:
            yield number, None, str(reason)
        except WrongType as error:
            if not options.skip_invalid:
                raise GadDataError(
                    f"{source.name}, row {number}, {error}. Another --layout? --skip-invalid leaves such rows out"
                ) from None
            yield number, None, f"wrong type: {error}"
        else:
            for example in examples:
                yield number, example, ""


def _check_unicode(examples: list[Example]) -> None:
    """JSON can spell half a character; no file in UTF-8 can hold it."""
    try:
        json.dumps([vars(example) for example in examples], ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Unusable("broken Unicode (half of a surrogate pair)") from None


def _any_row(source: Source, rename: dict[str, str], holds: Callable[[dict[str, Any]], bool]) -> bool:
    """Whether something holds of any row: a column of a file has one type."""
    return any(isinstance(row, dict) and holds(_rename(row, rename)) for row in source.rows())


def _has_several_texts(source: Source, layout: Layout, rename: dict[str, str]) -> bool:
    """Whether any row has a list of teacher texts."""
    if not layout.is_chat or layout.name == "sharegpt" or layout.has_tools:
        return False
    return _any_row(source, rename, lambda row: isinstance(row.get("teacher_response"), list))


def _says_ends(source: Source, columns: list[str], rename: dict[str, str]) -> bool:
    """Whether any row says how its texts ended."""
    return bool({EXTRA_INFO, *MARKS} & set(columns)) and _any_row(source, rename, lambda row: bool(marks_of(row)))


def _teacher_columns(example: Example, layout: Layout, several: bool) -> dict[str, Any]:
    texts = example.teacher_response
    if layout.has_tools:
        tools = json.dumps(example.tools, ensure_ascii=False) if example.tools else None
        return {"teacher_messages": texts, "tools": tools}
    return {"teacher_response": [texts] if several and isinstance(texts, str) else texts}


def _teachers(example: Example, options: ImportOptions) -> list[str | None]:
    """Which teacher each text of a row is of."""
    texts, names = example.teacher_response, example.teacher
    of_texts = names if isinstance(names, list) else [names] * (len(texts) if isinstance(texts, list) else 1)
    return [name or options.teacher for name in of_texts]


def _finish_reasons(example: Example, several: bool) -> dict[str, Any]:
    reasons = [None if cut is None else LENGTH if cut else STOP for cut in example.cut or ()]
    return {"finish_reason": reasons if several else reasons[0]}


def import_file(
    name: str, output: Path, options: ImportOptions, rejected: Path | None = None, overwrite: bool = False
) -> ImportResult:
    """Turn a file or hub data set into a parquet file of GAD's schema, with a card beside it.

    Args:
        name: Input file, or name of a hub data set.
        output: Parquet file to write.
        options: Choices; all of them are recorded in the card.
        rejected: JSONL file that lists the rows left out: their number and the reason.
        overwrite: Whether files that exist may be replaced.

    Returns:
        Counts.

    Raises:
        GadConfigError, GadDataError: Names file, row, column and remedy; nothing is written then.
        FileExistsError: If an output exists.
    """
    if output.suffix != ".parquet":
        raise GadConfigError(f"--output {output}: the name must end in .parquet")
    check_apart(
        {"--output": output, "the card": card_path(output), "--rejected": rejected},
        {"the input": name, "--requests": options.requests},
        in_place=("--output", "the input"),
    )
    source = open_replies(open_source(name, options.split, options.config), options.requests)
    columns = _renamed_columns(source, options.rename)
    layout = find_layout(columns, source.name, options.layout)
    if options.template is not NONE and layout.is_chat:
        raise GadConfigError(f"--template {options.template.name}: the layout {layout.name} holds whole chats already")
    several = _has_several_texts(source, layout, options.rename)
    says_ends = _says_ends(source, columns, options.rename)
    names_each = several and _any_row(source, options.rename, names_each_teacher)
    result = ImportResult(layout.name, layout.unused(columns))
    data_source = options.data_source or (source.path.stem if source.path else source.name)
    with outputs(overwrite) as files:
        temporary = files.add(output)
        files.add(card_path(output))
        listing = files.add(rejected) if rejected is not None else None
        handle = listing.open("w", encoding="utf-8") if listing is not None else None
        try:
            with RowWriter(temporary, row_schema(several, says_ends, layout.has_tools, names_each)) as writer:
                progress = tqdm(
                    _examples(source, layout, options, result),
                    total=source.count,
                    unit="row",
                    desc="Importing",
                    delay=2,
                    mininterval=1,
                )
                for number, example, reason in progress:
                    if example is None:
                        result.rejected[reason] += 1
                        if handle is not None:
                            handle.write(json.dumps({"row": number, "reason": reason}, ensure_ascii=False) + "\n")
                        continue
                    texts = example.teacher_response
                    result.written_lists += isinstance(texts, str) and not layout.has_tools and is_written_list(texts)
                    teachers = _teachers(example, options)
                    result.teachers.update(name or "" for name in teachers)
                    about = {"index": writer.rows, "id": example.id, "category": example.category}
                    writer.write(
                        {
                            "prompt": _prompt(example, options),
                            **_teacher_columns(example, layout, several),
                            "teacher": teachers if names_each else teachers[0],
                            "data_source": example.source or data_source,
                            "extra_info": about | (_finish_reasons(example, several) if says_ends else {}),
                        }
                    )
                result.written = writer.rows
        finally:
            if handle is not None:
                handle.close()
        if result.written == 0:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in result.rejected.most_common(3))
            raise GadDataError(f"{source.name}: none of {result.read} rows can be used ({reasons})")
        files.write_card(card_path(output), _card(source, output, temporary, options, result))
    return result


def _card(
    source: Source, output: Path, temporary: Path, options: ImportOptions, result: ImportResult
) -> dict[str, Any]:
    read_from = {"name": source.name} | source.details if source.path is None else describe_file(source.path)
    return {
        "command": "data import",
        "inputs": [read_from] + ([] if options.requests is None else [describe_file(options.requests)]),
        "output": describe_file(temporary, output.name) | {"rows": result.written},
        "choices": plain(options) | {"layout": result.layout, "layout_detected": options.layout is None},
        "columns_left_behind": result.unused_columns,
        "counts": {
            "read": result.read,
            "written": result.written,
            "rejected": dict(result.rejected.most_common()),
            "teachers": dict(result.teachers.most_common()),
        },
    }
