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
"""The held-out prompts with the teacher's texts."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_verl.data.endings import cut_texts
from gad_verl.data.images import refuse_films, row_images, with_images
from gad_verl.data.reading import open_file
from gad_verl.data.schema import chat_id, check_file, teacher_texts
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.record.files import plain
from gad_verl.tools.evaluation.checks import Check, checks_of

logger = logging.getLogger(__name__)

# Films and sound, as verl names their columns.
_REFUSED = ("videos", "audios")


@dataclass(frozen=True)
class Row:
    """One held-out prompt.

    Args:
        messages: The chat that waits for an answer.
        teacher: The teacher's text; the first one where there are several.
        teacher_finished: False where the row says that it was cut when it was written.
        checks: What an answer has to pass.
        images: Contents of the files that are shown at the places ``<image>`` of the messages, in their order.
    """

    messages: tuple[dict[str, str], ...]
    teacher: str
    teacher_finished: bool = True
    checks: tuple[Check, ...] = ()
    images: tuple[bytes, ...] = ()

    @property
    def question(self) -> str:
        """The chat as a judge reads it: the last message alone, or all of them with their roles."""
        if len(self.messages) == 1:
            return self.messages[0]["content"]
        return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in self.messages)

    @property
    def prompt_id(self) -> str:
        """The same for the same chat in every file and process."""
        return chat_id(self.chat)

    @property
    def checks_id(self) -> str | None:
        """Changes with any check; None without any."""
        if not self.checks:
            return None
        content = plain([[check.kind, check.arguments] for check in self.checks])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def chat(self) -> Sequence[dict[str, Any]]:
        """The messages as chat templates take them: with images, their contents are lists of parts."""
        return with_images(self.messages, self.images) if self.images else self.messages


def load_rows(
    path: str | Path,
    prompt_key: str = "prompt",
    teacher_key: str = "teacher_response",
    limit: int | None = None,
    checks_key: str | None = None,
    read_texts: Callable[[Any, str], list[str]] = teacher_texts,
    image_key: str = "images",
) -> list[Row]:
    """The rows of a data file in the schema of :mod:`gad_verl.data.schema`.

    Args:
        path: Parquet, JSON or JSONL.
        prompt_key: Column of the prompt.
        teacher_key: Column of the teacher's texts.
        limit: Only so many of the first rows.
        checks_key: Column of the checks (:mod:`gad_verl.tools.evaluation.checks`); None makes none.
        read_texts: Reads the column of the teacher.
        image_key: Column of the images.

    Raises:
        GadDataError: Names file, row, column and remedy.
        GadConfigError: If the limit is below 1.
    """
    path = Path(path).expanduser()
    if limit is not None and limit < 1:
        raise GadConfigError(f"--limit must be at least 1; got {limit}")
    if path.is_dir():
        raise GadDataError(f"--data {path} is a folder: name a file in it")
    if not path.is_file():
        raise GadDataError(f"{path}: no such data file (--data)")
    check_file(path, prompt_key, teacher_key, ("--prompt-key", "--teacher-key"), read_texts=read_texts)
    rows, left_out = [], Counter[str]()
    for number, record in enumerate(open_file(path).rows()):
        if number == limit:
            break
        messages = tuple({"role": m["role"], "content": m["content"]} for m in record[prompt_key])
        where = f"{path}, row {number}"
        refuse_films(record, _REFUSED, where)
        images = row_images(record.get(image_key), messages, where, image_key)
        texts = read_texts(record[teacher_key], f"{where}, column {teacher_key!r}")
        checks = () if checks_key is None else checks_of(record, checks_key, where, left_out)
        rows.append(Row(messages, texts[0], not cut_texts(record, len(texts), where)[0], checks, images))
    if (repeated := len(rows) - len({row.prompt_id for row in rows})) > 0:
        logger.warning(
            "%s: %d of %d rows repeat a prompt. Intervals count them as prompts of their own and are too narrow; "
            "gad-verl data clean removes repeated rows",
            path,
            repeated,
            len(rows),
        )
    if left_out:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in left_out.most_common())
        logger.warning(
            "%s, column %r: no rule checks %s. They are left out, and a row of nothing else has no check",
            path,
            checks_key,
            kinds,
        )
    return rows


def digest(rows: Sequence[Row]) -> str:
    """Changes with any prompt or teacher text, or their order."""
    content = json.dumps([[row.prompt_id, row.teacher] for row in rows], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
