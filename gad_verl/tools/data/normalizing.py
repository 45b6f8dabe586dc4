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
"""``gad-verl data normalize``: teacher texts without marks that have nothing to do with what they say."""

import hashlib
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
from tqdm import tqdm

from gad_verl.data.content import is_blank
from gad_verl.data.endings import EXTRA_INFO, MARKS
from gad_verl.data.refusals import is_refusal
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.record.files import check_apart, plain
from gad_verl.tools.data.cleaning import STEPS, clean, has_marker
from gad_verl.tools.data.image_groups import image_digests
from gad_verl.tools.data.row_file import open_gad_file
from gad_verl.tools.data.writing import card_path, describe_file, outputs

logger = logging.getLogger(__name__)

DEFAULT_STEPS = ("thinking", "template", "nfc", "whitespace")
DUPLICATES = ("keep", "rows", "prompts")
# What says something of each text of a row, in columns or in extra_info: what is read of rows, and what
# ``gad-verl teacher collect`` writes. Any other list of the same length is the row's own.
BESIDE_TEXTS = (
    "teacher",
    *MARKS,
    "model",
    "prompt_tokens",
    "completion_tokens",
    "attempts",
    "refusal",
    "duplicate_answer",
)


@dataclass(frozen=True)
class NormalizeOptions:
    """Choices of a normalisation.

    Args:
        steps: Names of :data:`gad_verl.tools.data.cleaning.STEPS`, applied in that order.
        drop_refusals: Leave refusals out.
        min_chars: Leave shorter texts out.
        max_chars: Leave longer texts out.
        duplicates: "rows" leaves out a row whose prompt and texts came before, "prompts" one whose prompt came before.
        prompt_key: Column of the prompt.
        teacher_key: Column of the teacher texts.
        image_key: Column of the images, which need not be there: they are part of a prompt.
    """

    steps: tuple[str, ...] = DEFAULT_STEPS
    drop_refusals: bool = False
    min_chars: int = 1
    max_chars: int | None = None
    duplicates: str = "keep"
    prompt_key: str = "prompt"
    teacher_key: str = "teacher_response"
    image_key: str = "images"

    def __post_init__(self) -> None:
        unknown = set(self.steps) - set(STEPS)
        if unknown or self.duplicates not in DUPLICATES:
            raise GadConfigError(f"unknown choice: {', '.join(sorted(unknown)) or self.duplicates}")
        if self.min_chars < 1 or (self.max_chars is not None and self.max_chars < self.min_chars):
            raise GadConfigError(
                f"--min-chars {self.min_chars}, --max-chars {self.max_chars}: at least 1, and not more than the other"
            )


@dataclass(frozen=True)
class Change:
    """One changed text: number of the row, steps that changed it, text before and after."""

    row: int
    steps: tuple[str, ...]
    before: str
    after: str


@dataclass
class NormalizeResult:
    """Counts: rows read and written, texts changed by step, texts and rows left out by reason, examples of changes."""

    read: int = 0
    written: int = 0
    texts_changed: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    dropped_texts: Counter[str] = field(default_factory=Counter)
    dropped_rows: Counter[str] = field(default_factory=Counter)
    markers_inside: int = 0
    examples: list[Change] = field(default_factory=list)


def show_change(change: Change, context: int = 30, longest: int = 120) -> str:
    """A change in one line: what was cut stands in ``[-...-]``, what came in ``{+...+}``, escaped."""
    start = len(os.path.commonprefix([change.before, change.after]))
    room = min(len(change.before), len(change.after)) - start
    end = min(room, len(os.path.commonprefix([change.before[::-1], change.after[::-1]])))

    def short(text: str) -> str:
        text = text if len(text) <= longest else f"{text[: longest // 2]} ... {text[-longest // 2 :]}"
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")

    removed, added = change.before[start : len(change.before) - end], change.after[start : len(change.after) - end]
    return (
        f"row {change.row} ({', '.join(change.steps)}): "
        + short(change.before[max(0, start - context) : start])
        + (f"[-{short(removed)}-]" if removed else "")
        + (f"{{+{short(added)}+}}" if added else "")
        + short(change.before[len(change.before) - end :][:context])
    )


def _refuse(text: str, options: NormalizeOptions) -> str | None:
    """Why a cleaned text is left out; None to keep it."""
    if is_blank(text):
        return "empty"
    if len(text) < options.min_chars:
        return f"shorter than {options.min_chars} characters"
    if options.max_chars is not None and len(text) > options.max_chars:
        return f"longer than {options.max_chars} characters"
    return "refusal" if options.drop_refusals and is_refusal(text) else None


class _Normalizer:
    """The state of one pass over a file: counts, and what was seen of duplicates."""

    def __init__(self, options: NormalizeOptions, examples: int) -> None:
        self.options = options
        self.result = NormalizeResult()
        self._room = {name: examples for name in STEPS}
        self._seen: set[bytes] = set()

    def texts(self, row: int, texts: list[str]) -> tuple[dict[int, str], str | None]:
        """Cleaned texts of a row that are kept, by their places, and why the last one left out was."""
        kept, reason = {}, None
        for place, before in enumerate(texts):
            cleaned = clean(before, self.options.steps)
            if cleaned.changed:
                self.result.texts_changed += 1
                self.result.changed.update(cleaned.changed)
                change = Change(row, cleaned.changed, before, cleaned.text)
                wanted = [name for name in cleaned.changed if self._room[name] > 0]
                if wanted:
                    self._room[wanted[0]] -= 1
                    self.result.examples.append(change)
            refused = _refuse(cleaned.text, self.options)
            if refused is None:
                kept[place] = cleaned.text
                self.result.markers_inside += has_marker(cleaned.text)
            else:
                reason = refused
                self.result.dropped_texts[refused] += 1
        return kept, reason

    def is_duplicate(self, prompt: Any, images: tuple[str, ...], texts: list[str]) -> bool:
        if self.options.duplicates == "keep":
            return False
        asked = [[m["role"], m["content"]] for m in prompt]
        content = asked, images, texts if self.options.duplicates == "rows" else None
        key = hashlib.blake2b(json.dumps(content).encode(), digest_size=16).digest()
        if key in self._seen:
            return True
        self._seen.add(key)
        return False


def _keep_places(name: str, value: Any, places: Sequence[int], count: int) -> Any:
    """A column of a row without the entries of texts that were left out, where it has one for each text."""
    if name == EXTRA_INFO and isinstance(value, dict):
        inner = {key: one for key, one in value.items() if key in BESIDE_TEXTS}
        return value | {key: _keep_places(key, one, places, count) for key, one in inner.items()}
    return [value[place] for place in places] if isinstance(value, list) and len(value) == count else value


def normalize_file(
    path: str | Path,
    output: Path | None,
    options: NormalizeOptions,
    rejected: Path | None = None,
    overwrite: bool = False,
    examples: int = 0,
) -> NormalizeResult:
    """Normalise the teacher texts of a file; other columns and the order of the rows stay as they are.

    A text that is left out takes along its entries in :data:`BESIDE_TEXTS`, which are columns or stand in
    ``extra_info``. The choices stand in the card beside the file.

    Args:
        path: A file of GAD's schema.
        output: Parquet file to write; None only counts (a dry run).
        options: Choices.
        rejected: JSONL file that lists the rows left out: their number and the reason.
        overwrite: Whether files that exist may be replaced.
        examples: Changed texts to return, for each step.

    Raises:
        GadConfigError, GadDataError: Names what is wrong and the remedy; nothing is written then.
        FileExistsError: If an output exists.
    """
    if output is not None and output.suffix != ".parquet":
        raise GadConfigError(f"--output {output}: the name must end in .parquet")
    if output is None and rejected is not None:
        raise GadConfigError("--rejected: a dry run writes nothing")
    card = None if output is None else card_path(output)
    check_apart(
        {"--output": output, "the card": card, "--rejected": rejected},
        {"the input": path},
        in_place=("--output", "the input"),
    )
    with outputs(overwrite) as files:
        if output is not None:
            files.add(output)
            files.add(card)
        if rejected is not None:
            files.add(rejected)
        opened = open_gad_file(path, options.prompt_key, options.teacher_key)
        schema = opened.schema
        place = schema.get_field_index(options.teacher_key)
        is_text = not pa.types.is_nested(schema.field(place).type)
        beside = [] if is_text else [name for name in (EXTRA_INFO, *BESIDE_TEXTS) if name in schema.names]
        writer = parquet.ParquetWriter(files.temporary(output), schema, compression="zstd") if output else None
        listing = files.temporary(rejected).open("w", encoding="utf-8") if rejected else None
        state = _Normalizer(options, examples)
        result = state.result
        has_images = options.duplicates != "keep" and options.image_key in schema.names
        shown = image_digests(opened, options.image_key) if has_images else itertools.repeat(())
        progress = tqdm(total=opened.rows, desc="Normalizing", unit="row", delay=2, mininterval=1)
        try:
            for batch in opened.batches():
                values, keep, places = [], [], []
                prompts = batch.column(options.prompt_key).to_pylist() if options.duplicates != "keep" else None
                for offset, value in enumerate(batch.column(place).to_pylist()):
                    by_place, reason = state.texts(result.read, [value] if is_text else value)
                    kept, images = [*by_place.values()], next(shown)
                    if kept and prompts is not None and state.is_duplicate(prompts[offset], images, kept):
                        kept, reason = [], "duplicate"
                    if kept:
                        values.append(kept[0] if is_text else kept)
                        places.append(([*by_place], 1 if is_text else len(value)))
                    else:
                        result.dropped_rows[reason] += 1
                        if listing is not None:
                            listing.write(json.dumps({"row": result.read, "reason": reason}) + "\n")
                    keep.append(bool(kept))
                    result.read += 1
                result.written += len(values)
                if writer is not None and values:
                    table = pa.Table.from_batches([batch.filter(pa.array(keep))])
                    column = pa.array(values, type=schema.field(place).type)
                    table = table.set_column(place, schema.field(place), column)
                    is_whole = all(len(kept) == count for kept, count in places)
                    for name in () if is_whole else beside:
                        at, old = schema.get_field_index(name), table.column(name).to_pylist()
                        new = [_keep_places(name, one, *where) for one, where in zip(old, places, strict=True)]
                        table = table.set_column(at, schema.field(at), pa.array(new, type=schema.field(at).type))
                    writer.write_table(table)
                progress.update(batch.num_rows)
        finally:
            progress.close()
            if writer is not None:
                writer.close()
            if listing is not None:
                listing.close()
        if result.written == 0 and output is not None:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in result.dropped_rows.most_common(3))
            raise GadDataError(f"{path}: no row is left of {result.read} ({reasons})")
        if output is not None:
            files.write_card(
                card,
                {
                    "command": "data normalize",
                    "inputs": [describe_file(opened.path)],
                    "output": describe_file(files.temporary(output), output.name) | {"rows": result.written},
                    "choices": plain(options),
                    "counts": plain(result),
                },
            )
    return result
