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
"""The two sides that are compared: teacher texts and student texts, with their prompts as groups."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gad_verl.data.endings import cut_marks
from gad_verl.data.images import row_images, with_images
from gad_verl.data.reading import BadRow, check_path, open_file
from gad_verl.data.schema import chat_id
from gad_verl.errors import GadDataError
from gad_verl.tools.data.row_file import SUFFIXES

logger = logging.getLogger(__name__)

# Fewer common prompts than this, and all texts are compared instead.
MIN_COMMON = 30


@dataclass(frozen=True)
class Side:
    """Texts of one side.

    Args:
        texts: The texts.
        prompts: Fingerprint of the chat that each answers; None where the file does not say.
        rows: Row of each text in its file.
        unfinished: Whether each was stopped by a limit; None where the file does not say.
    """

    texts: list[str]
    prompts: list[str] | None
    rows: list[int]
    unfinished: list[bool] | None

    def keep(self, places: Sequence[int]) -> "Side":
        """Only the texts at these places."""
        return Side(
            [self.texts[place] for place in places],
            None if self.prompts is None else [self.prompts[place] for place in places],
            [self.rows[place] for place in places],
            None if self.unfinished is None else [self.unfinished[place] for place in places],
        )


def _asked(row: dict[str, Any], value: Any, image_key: str, where: str) -> str | None:
    """Fingerprint of the chat that a row answers, its images included; None where it does not say.

    Responses of ``gad-verl evaluate`` carry it in ``prompt_id``; their ``prompt`` is a number.
    """
    messages = [{"role": "user", "content": value}] if isinstance(value, str) else value
    if isinstance(messages, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    ):
        images = row_images(row.get(image_key), messages, where, image_key)
        return chat_id(with_images(messages, images) if images else messages)
    known = row.get("prompt_id")
    return known if isinstance(known, str) else None


def load_side(
    path: str | Path, text_key: str, prompt_key: str, what: str, setting: str, image_key: str = "images"
) -> Side:
    """Texts of a parquet, JSON or JSONL file; a row may have one text or a list.

    Args:
        path: The file.
        text_key: Column of the texts.
        prompt_key: Column of the prompts (chat messages or text); may lack.
        what: "teacher" or "student", for errors.
        setting: The option that names the column, for errors.
        image_key: Column of the prompts' images; may lack.

    Raises:
        GadDataError: Names the file, row and column.
    """
    source = open_file(check_path(path, SUFFIXES))
    if text_key not in source.columns:
        raise GadDataError(
            f"{path} has no column {text_key!r} for the {what}'s texts; it has {', '.join(source.columns)}. Name it by "
            f"{setting}"
        )
    texts: list[str] = []
    prompts: list[str | None] = []
    rows: list[int] = []
    unfinished: list[bool | None] = []
    for number, row in enumerate(source.rows()):
        if isinstance(row, BadRow):
            raise GadDataError(row.message)
        value, prompt = row.get(text_key), _asked(row, row.get(prompt_key), image_key, f"{path}, row {number}")
        of_row = value if isinstance(value, list) else [value]
        unfinished.extend(cut_marks(row, len(of_row), f"{path}, row {number}"))
        for text in of_row:
            if not isinstance(text, str):
                raise GadDataError(
                    f"{path}, row {number}, column {text_key!r}: expected text, got {type(text).__name__}. Mend or "
                    "remove the row"
                )
            texts.append(text)
            prompts.append(prompt)
            rows.append(number)
    if not texts:
        raise GadDataError(f"{path}, column {text_key!r}: not one text")
    known = [value for value in unfinished if value is not None]
    return Side(
        texts,
        None if None in prompts else prompts,
        rows,
        known if len(known) == len(unfinished) else None,
    )


@dataclass(frozen=True)
class Pairing:
    """Both sides as they are compared.

    Args:
        teacher: Teacher's side.
        student: Student's side.
        groups: Number of the prompt of each text, the teacher's first.
        how: In words, how the texts were paired.
        warning: Why the comparison may mislead; empty if nothing speaks against it.
    """

    teacher: Side
    student: Side
    groups: NDArray[np.int64]
    how: str
    warning: str = ""


def chosen(keys: Sequence[str], most: int, seed: int) -> list[int]:
    """Places of at most so many texts, chosen by a hash of their prompt: both sides choose the same prompts."""
    if len(keys) <= most:
        return list(range(len(keys)))

    def hashed(place: int) -> bytes:
        return hashlib.blake2b(f"{seed}\0{keys[place]}".encode("utf-8", "surrogatepass"), digest_size=8).digest()

    return sorted(sorted(range(len(keys)), key=hashed)[:most])


def _numbered(keys: Sequence[str]) -> NDArray[np.int64]:
    number: dict[str, int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)


def pair(teacher: Side, student: Side, most: int, seed: int = 0) -> Pairing:
    """Pair two sides by prompt; without prompts by row, if there are as many; else not at all.

    Args:
        teacher: Teacher's side.
        student: Student's side.
        most: At most so many texts of each side.
        seed: Of the choice.
    """
    warning = ""
    if teacher.prompts is not None and student.prompts is not None:
        keys = [teacher.prompts, student.prompts]
        common = set(keys[0]) & set(keys[1])
        if len(common) >= MIN_COMMON:
            places = [[place for place, prompt in enumerate(names) if prompt in common] for names in keys]
            teacher, student = teacher.keep(places[0]), student.keep(places[1])
            keys = [[names[place] for place in kept] for names, kept in zip(keys, places, strict=True)]
            how = f"paired by prompt: {len(common)} prompts that both sides answer"
        else:
            how = "not paired"
            warning = (
                f"only {len(common)} prompts are answered by both sides: differences may come from the prompts, not "
                "from who wrote the texts. Let the student answer the teacher's prompts"
            )
    elif max(teacher.rows) == max(student.rows):
        how = "paired by row: the files have as many rows, and not both say what is answered"
        keys = [[str(row) for row in teacher.rows], [str(row) for row in student.rows]]
    else:
        how = "not paired"
        warning = (
            "the files do not both say what is answered: differences may come from the prompts, not from who wrote "
            "the texts"
        )
        keys = [[f"t{row}" for row in teacher.rows], [f"s{row}" for row in student.rows]]
    kept = [chosen(names, most, seed) for names in keys]
    groups = [names[place] for names, places in zip(keys, kept, strict=True) for place in places]
    return Pairing(teacher.keep(kept[0]), student.keep(kept[1]), _numbered(groups), how, warning)
