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
"""``gad-verl data split``: training, validation and test rows without a common or nearly common prompt."""

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.record.files import check_apart, plain
from gad_verl.tools.data.image_groups import image_digests, image_groups
from gad_verl.tools.data.near_duplicates import group_near_duplicates, normal_form
from gad_verl.tools.data.row_file import GadFile, open_gad_file
from gad_verl.tools.data.writing import describe_file, outputs

logger = logging.getLogger(__name__)

SIDES = ("train", "val", "test")

# An Alpaca wrapper is longer than many instructions, and would make them all look alike.
_WRAPPER = re.compile(r"\A.*?### Instruction:\s*(.*?)\s*### Response:\s*\Z", re.DOTALL)
_MIN_PROMPTS_FOR_AFFIXES = 20


@dataclass(frozen=True)
class SplitOptions:
    """Choices of a split.

    Args:
        val: Share (below 1) or number of rows for validation.
        test: The same for test; 0 for none.
        seed: Another seed gives another split.
        threshold: Jaccard similarity of prompts from which they stay on one side; 1 for equal prompts only.
        prompt_key: Column of the prompt.
        teacher_key: Column of the teacher texts.
        image_key: Column of the images, which need not be there.
    """

    val: float = 0.02
    test: float = 0.0
    seed: int = 0
    threshold: float = 0.8
    prompt_key: str = "prompt"
    teacher_key: str = "teacher_response"
    image_key: str = "images"


@dataclass
class SplitResult:
    """What a split did: rows by side, groups, and rows of the largest group."""

    rows: dict[str, int]
    prompts: int
    groups: int
    largest_group: int
    unchecked: int
    wanted: dict[str, int] = field(default_factory=dict)


def prompt_text(messages: Sequence[dict[str, Any]]) -> str:
    """What a prompt asks, for comparisons: no system message, no Alpaca wrapper, in normal form."""
    parts = []
    for message in messages:
        if message["role"] != "system":
            wrapped = _WRAPPER.match(message["content"])
            parts.append(wrapped[1] if wrapped else message["content"])
    return normal_form("\n".join(parts))


def without_common_affixes(texts: Sequence[str]) -> list[str]:
    """Texts without the beginning and the end that all of them share (a wrapper), if each keeps something."""
    if len(texts) < _MIN_PROMPTS_FOR_AFFIXES:
        return list(texts)
    start = len(os.path.commonprefix(texts))
    end = len(os.path.commonprefix([text[: start - 1 if start else None : -1] for text in texts]))
    cut = [text[start : len(text) - end] for text in texts]
    return cut if all(cut) else list(texts)


def _wanted(value: float, rows: int, name: str) -> int:
    # The other way round it would let a NaN pass.
    if not 0 <= value < rows or (value > 1 and value != int(value)) or value == 1 and rows == 1:
        raise GadConfigError(
            f"--{name} {value:g}: give a share below 1, or a whole number of rows below the {rows} rows of the file"
        )
    return int(value) if value >= 1 else round(value * rows)


def _hash(text: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def assign(
    texts: Sequence[str], options: SplitOptions, shown: Sequence[str | None] | None = None
) -> tuple[NDArray[np.int8], SplitResult]:
    """Side of each row: 0 training, 1 validation, 2 test.

    Groups of near-duplicates are ordered by a hash of seed and text. Test takes groups from the front until it is full,
    then validation; a group that would not fit any more is passed over. So the order of the rows has no influence. Of
    rows with images, those that share one are a group, whatever they ask: one question is asked of many images.

    Args:
        texts: What each row asks (:func:`prompt_text`).
        options: Choices.
        shown: Group of each row by its images (:func:`gad_verl.tools.data.image_groups.image_groups`); None of a row of
            text, and where no row has any.

    Raises:
        GadConfigError: If the sizes do not fit the file.
        GadDataError: If a side would stay empty.
    """
    wanted = {"test": _wanted(options.test, len(texts), "test"), "val": _wanted(options.val, len(texts), "val")}
    if wanted["val"] == 0 or (options.test > 0 and wanted["test"] == 0):
        raise GadConfigError(
            f"--val {options.val:g}, --test {options.test:g}: a side would stay empty with {len(texts)} rows; raise it"
        )
    if sum(wanted.values()) >= len(texts):
        raise GadConfigError(f"--val and --test take all {len(texts)} rows: leave some for training")
    shown = [None] * len(texts) if shown is None else shown
    distinct = sorted({text for text, images in zip(texts, shown, strict=True) if images is None})
    groups = group_near_duplicates(without_common_affixes(distinct), options.threshold)
    group_of = dict(zip(distinct, groups.labels.tolist(), strict=True))
    first = 1 + max(group_of.values(), default=-1)
    of_images = sorted({images for images in shown if images is not None})
    group_of_images = {images: first + number for number, images in enumerate(of_images)}
    rows_of = zip(texts, shown, strict=True)
    labels = np.array([group_of[text] if images is None else group_of_images[images] for text, images in rows_of])
    sizes = np.bincount(labels)
    keys = {label: _hash(f"images {images}", options.seed) for images, label in group_of_images.items()}
    for text, label in group_of.items():
        key = _hash(text, options.seed)
        keys[label] = min(key, keys.get(label, key))
    side_of_group = np.zeros(len(sizes), dtype=np.int8)
    for name in ("test", "val"):
        room = wanted[name]
        for label in sorted(keys, key=keys.__getitem__):
            if side_of_group[label] == 0 and 0 < sizes[label] <= room:
                side_of_group[label] = SIDES.index(name)
                room -= int(sizes[label])
    sides = side_of_group[labels]
    rows = {name: int((sides == number).sum()) for number, name in enumerate(SIDES)}
    prompts = len(set(zip(texts, shown, strict=True)))
    result = SplitResult(rows, prompts, len(sizes), int(sizes.max()), groups.unchecked, wanted)
    for name in SIDES:
        if rows[name] == 0 and (name == "train" or wanted[name] > 0):
            raise GadDataError(
                f"the {name} side would stay empty: near-duplicate prompts, or rows of one image, stay together; "
                f"the largest group has {result.largest_group} of {len(texts)} rows. Raise --near-duplicates (now "
                f"{options.threshold:g}) or ask for a larger side"
            )
    return sides, result


def split_file(path: str | Path, output: Path, options: SplitOptions, overwrite: bool = False) -> SplitResult:
    """Write ``train.parquet``, ``val.parquet`` and, if wanted, ``test.parquet`` with a card into a folder.

    Columns, their types and the order of the rows stay as they are.

    Raises:
        GadConfigError, GadDataError: Names what is wrong and the remedy; nothing is written then.
        FileExistsError: If an output exists.
    """
    if not 0 < options.threshold <= 1:
        raise GadConfigError(f"--near-duplicates {options.threshold:g}: give a similarity above 0, up to 1")
    if output.exists() and not output.is_dir():
        raise GadConfigError(f"--output {output}: the name of a folder is needed, this is a file")
    names = [name for name in SIDES if name != "test" or options.test > 0]
    paths, card = {name: output / f"{name}.parquet" for name in names}, output / "card.json"
    check_apart({"the card": card} | {f"the {name} side": paths[name] for name in names}, {"the input": path})
    opened = open_gad_file(path, options.prompt_key, options.teacher_key)
    with outputs(overwrite) as files:
        files.add(card)
        for target in paths.values():
            files.add(target)
        texts = [prompt_text(messages) for messages in opened.values(options.prompt_key)]
        has_images = options.image_key in opened.schema.names
        shown = image_groups(list(image_digests(opened, options.image_key))) if has_images else None
        sides, result = assign(texts, options, shown)
        _write(opened, sides, [files.temporary(paths[name]) for name in names])
        files.write_card(
            card,
            {
                "command": "data split",
                "inputs": [describe_file(opened.path)],
                "outputs": [
                    describe_file(files.temporary(target), target.name) | {"rows": result.rows[name]}
                    for name, target in paths.items()
                ],
                "choices": plain(options),
                "counts": plain(result),
            },
        )
    return result


def _write(opened: GadFile, sides: NDArray[np.int8], paths: list[Path]) -> None:
    writers = [parquet.ParquetWriter(path, opened.schema, compression="zstd") for path in paths]
    pending: list[list[pa.RecordBatch]] = [[] for _ in paths]
    try:
        start = 0
        for batch in opened.batches():
            of_rows = sides[start : start + batch.num_rows]
            start += batch.num_rows
            for number in range(len(paths)):
                pending[number].append(batch.filter(pa.array(of_rows == number)))
                if sum(part.num_rows for part in pending[number]) >= 5000:
                    writers[number].write_table(pa.Table.from_batches(pending[number]))
                    pending[number] = []
        for writer, parts in zip(writers, pending, strict=True):
            if parts:
                writer.write_table(pa.Table.from_batches(parts))
    finally:
        for writer in writers:
            writer.close()
