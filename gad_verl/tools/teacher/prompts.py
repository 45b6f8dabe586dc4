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
"""Prompts of a file or data set, one after another: as given, and as the teacher is asked."""

import copy
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gad_verl.data.images import for_api, row_images, with_images
from gad_verl.data.reading import BadRow, Source
from gad_verl.data.schema import check_messages
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.data.chats import chat_or_text
from gad_verl.tools.data.row_values import WrongType
from gad_verl.tools.data.templates import NONE, Template

Messages = tuple[dict[str, Any], ...]

# Columns of whole chats, whose last answers are somebody's already.
_CHATS = frozenset({"conversations", "messages"})


@dataclass(frozen=True)
class Framing:
    """What stands around a prompt when the teacher is asked.

    Attributes:
        system: System message; chats that have one keep theirs.
        template: Wrapper around prompts that are plain text.
        examples: Messages between the system message and the prompt.
    """

    system: str | None = None
    template: Template = NONE
    examples: Messages = ()


@dataclass(frozen=True)
class Prompt:
    """One row.

    Attributes:
        index: Row in the source, from 0.
        given: The prompt as a chat, without anything around it.
        asked: The chat that the teacher gets.
        occurrence: How often the same chat was asked by rows before.
        first_index: The first row that asks it; ``index`` itself for most.
        id: The row's ``id``, where it has one.
        data_source: The row's ``data_source``, or the name of the source.
        images: Contents of the files that stand at the places ``<image>`` of the chat, in their order.
    """

    index: int
    given: Messages
    asked: Messages
    occurrence: int
    first_index: int
    id: str | None
    data_source: str
    images: tuple[bytes, ...] = ()

    @property
    def request(self) -> Messages:
        """The chat as the API takes it: with images, contents are lists of parts."""
        return tuple(for_api(with_images(self.asked, self.images))) if self.images else self.asked


class Prompts:
    """All prompts of a source. Every iteration reads it anew, so that its size does not matter.

    Args:
        source: Rows.
        prompt_key: Column of the prompt: plain text, or a list of chat messages, as JSON text too.
        context_key: Column with an input to the instruction, for templates that have a place for it.
        data_source: Overrides the rows' own.
        limit: Only the first rows; None for all.
        image_key: Column of the images, which need not be there.

    Raises:
        GadDataError: The column is missing; while iterating: a row that cannot be asked, by file, row and column.
    """

    def __init__(
        self,
        source: Source,
        prompt_key: str = "prompt",
        context_key: str | None = None,
        data_source: str | None = None,
        limit: int | None = None,
        image_key: str = "images",
    ) -> None:
        for key, option in ((prompt_key, "--prompt-key"), (context_key, "--context-key")):
            if key is not None and key not in source.columns:
                chats = _CHATS.intersection(source.columns) if key == prompt_key else ()
                more = ", or make rows with prompts out of the chats: `gad-verl data import`" if chats else ""
                raise GadDataError(
                    f"{source.name} has no column {key!r}; it has {', '.join(source.columns)}. Set {option}{more}"
                )
        self.source = source
        self.limit = limit
        self._prompt_key = prompt_key
        self._context_key, self._image_key = context_key, image_key
        self._framing = Framing()
        self._data_source = data_source
        name = source.path.stem if source.path is not None else Path(source.name).name
        # The name of a file may be any bytes.
        self._default_source = name.encode("utf-8", "replace").decode("utf-8")

    @property
    def has_images(self) -> bool:
        """Whether there is a column of images; rows may have none all the same."""
        return self._image_key in self.source.columns

    def framed(self, framing: Framing) -> Self:
        """The same prompts with something around them when the teacher is asked."""
        prompts = copy.copy(self)
        prompts._framing = framing
        return prompts

    def __iter__(self) -> Iterator[Prompt]:
        seen: dict[bytes, tuple[int, int]] = {}
        for index, row in enumerate(itertools.islice(self.source.rows(), self.limit)):
            if isinstance(row, BadRow):
                raise GadDataError(row.message)
            where = f"{self.source.name}, row {index}, column {self._prompt_key!r}"
            try:
                given, asked = self._chats(row, where)
            except WrongType as error:
                raise GadDataError(f"{self.source.name}, row {index}, {error}") from None
            names = {key: str(row[key]) for key in ("id", "data_source") if row.get(key) is not None}
            for key, text in names.items():
                _check_unicode(text, f"{self.source.name}, row {index}, column {key!r}")
            images = row_images(row.get(self._image_key), asked, f"{self.source.name}, row {index}", self._image_key)
            content = [asked, *(hashlib.sha256(image).hexdigest() for image in images)]
            digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).digest()
            first_index, occurrence = seen.get(digest, (index, 0))
            seen[digest] = (first_index, occurrence + 1)
            yield Prompt(
                index=index,
                given=given,
                asked=asked,
                occurrence=occurrence,
                first_index=first_index,
                id=names.get("id"),
                data_source=self._data_source or names.get("data_source") or self._default_source,
                images=images,
            )

    def _chats(self, row: Mapping[str, Any], where: str) -> tuple[Messages, Messages]:
        value = chat_or_text(row.get(self._prompt_key), self._prompt_key)
        if isinstance(value, str):
            if not value.strip():
                raise GadDataError(f"{where}: the prompt is empty; remove the row")
            context = row.get(self._context_key) or "" if self._context_key else ""
            if not isinstance(context, str):
                raise GadDataError(f"{where}: the input in {self._context_key!r} is no text")
            given: Messages = ({"role": "user", "content": NONE.render(value, context)},)
            wrapped: Messages = ({"role": "user", "content": self._framing.template.render(value, context)},)
        else:
            check_messages(value, where)
            given = wrapped = tuple({"role": str(m["role"]), "content": m["content"]} for m in value)
            if self._framing.template is not NONE:
                raise GadConfigError(f"--template {self._framing.template.name}: {where} holds a whole chat already")
        head: Messages = ()
        if wrapped[0]["role"] == "system":
            head, wrapped = wrapped[:1], wrapped[1:]
        elif self._framing.system:
            head = ({"role": "system", "content": self._framing.system},)
        asked = (*head, *self._framing.examples, *wrapped)
        for message in asked:
            _check_unicode(message["content"], where)
        return given, asked


def _check_unicode(text: str, where: str) -> None:
    """Raise for what no file could hold, before anything is asked."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise GadDataError(f"{where}: broken Unicode (half of a surrogate pair); mend or remove it") from None
