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
"""The layouts in which teacher data is published, each turned into one kind of example.

A converter takes a row and yields examples. It raises :class:`Unusable` for a row that must be left out (an empty
answer) and :class:`WrongType` for one that is not of its layout (a number where a text should be).
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gad_verl.data.schema import check_messages, teacher_texts
from gad_verl.errors import GadConfigError, GadDataError

Row = Mapping[str, Any]


class Unusable(Exception):
    """A row that cannot be trained on. Its message is the reason, the same for all rows of the kind."""


class WrongType(Exception):
    """A value of another type than the layout has. Its message names the column."""


@dataclass(frozen=True)
class Example:
    """A row as all layouts have it in common.

    Args:
        teacher_response: The teacher's text, or several.
        instruction: What is asked, for layouts of single instructions; None for chats.
        context: Input to the instruction; may be empty.
        messages: The chat before the teacher's text, for layouts of chats.
        id: Identifier in the source.
        teacher: Which teacher, where the row says so.
        source: Which data set, where the row says so.
        category: Kind of task, where the row says so.
    """

    teacher_response: str | list[str]
    instruction: str | None = None
    context: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)
    id: str | None = None
    teacher: str | None = None
    source: str | None = None
    category: str | None = None


Converter = Callable[[Row], Iterator[Example]]


@dataclass(frozen=True)
class Layout:
    """A published layout.

    Args:
        name: Name for ``--layout``.
        needed: Columns without which a file is not of this layout; of a group in a tuple one is enough.
        convert: Turns a row into examples.
        is_chat: Whether rows hold whole chats, which no template is put around.
        optional: Further columns that the converter reads, besides :data:`ABOUT`.
    """

    name: str
    needed: tuple[tuple[str, ...], ...]
    convert: Converter
    is_chat: bool = False
    optional: tuple[str, ...] = ()

    def unused(self, columns: Collection[str]) -> list[str]:
        """Columns that an import leaves behind."""
        used = {name for group in self.needed for name in group} | {*self.optional, *ABOUT}
        return [name for name in columns if name not in used]

    def fits(self, columns: Collection[str]) -> bool:
        """Whether a file with these columns can be of this layout."""
        return all(any(name in columns for name in group) for group in self.needed)


def _text(row: Row, name: str) -> str:
    """A needed text; an empty one makes the row unusable."""
    value = row.get(name)
    if value is None:
        raise Unusable(f"{name} is missing")
    if not isinstance(value, str):
        raise WrongType(f"column {name!r}: expected text, got {type(value).__name__}")
    if not value.strip():
        raise Unusable(f"{name} is empty")
    return value


def _optional(row: Row, *names: str) -> str | None:
    """The first of several optional texts; numbers become text."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    return None


def _context(row: Row, name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise WrongType(f"column {name!r}: expected text, got {type(value).__name__}")
    return value or ""


# What rows say about themselves, in any layout.
ABOUT = (
    "id",
    "question_id",
    "conversation_id",
    "teacher",
    "model",
    "model_id",
    "data_source",
    "source",
    "category",
    "motivation_app",
)


def _about(row: Row) -> dict[str, str | None]:
    return {
        "id": _optional(row, "id", "question_id", "conversation_id"),
        "teacher": _optional(row, "teacher", "model", "model_id"),
        "source": _optional(row, "data_source", "source"),
        "category": _optional(row, "category", "motivation_app"),
    }


def _parsed(value: Any) -> Any:
    """CSV has lists as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _list_of_dicts(row: Row, name: str) -> list[dict[str, Any]]:
    value = _parsed(row.get(name))
    if value is None:
        raise Unusable(f"{name} is missing")
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise WrongType(f"column {name!r}: expected a list of objects, got {type(value).__name__}")
    if not value:
        raise Unusable(f"{name} is empty")
    return value


def _teacher_texts(row: Row, name: str = "teacher_response") -> str | list[str]:
    value = row.get(name)
    if value is None:
        raise Unusable(f"{name} is missing")
    if isinstance(value, str):
        return _text(row, name)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise WrongType(f"column {name!r}: expected a text or a list of texts, got {type(value).__name__}")
    texts = [text for text in value if text.strip()]
    if not texts:
        raise Unusable(f"{name} is empty")
    return teacher_texts(texts, name)


def _messages(row: Row, name: str) -> list[dict[str, str]]:
    value = _parsed(row.get(name))
    if isinstance(value, str):
        return [{"role": "user", "content": _text(row, name)}]
    messages = _list_of_dicts({name: value}, name)
    try:
        check_messages(messages, f"column {name!r}")
    except GadDataError as error:
        if messages[-1].get("role") == "assistant":
            raise Unusable("the prompt ends with the assistant") from None
        raise WrongType(str(error)) from None
    if not messages[-1]["content"].strip():
        raise Unusable("the last message is empty")
    return [{"role": str(message["role"]), "content": message["content"]} for message in messages]


def _gad(row: Row) -> Iterator[Example]:
    yield Example(_teacher_texts(row), messages=_messages(row, "prompt"), **_about(_with_extra_info(row)))


def _with_extra_info(row: Row) -> Row:
    extra = row.get("extra_info")
    return {**extra, **row} if isinstance(extra, dict) else row


def _lmsys(row: Row) -> Iterator[Example]:
    yield Example(_teacher_texts(row), messages=_messages(row, "content"), **_about(row))


def _single(answer: str, context: str) -> Converter:
    """Converter of a layout of single instructions, by the columns of answer and input."""

    def convert(row: Row) -> Iterator[Example]:
        yield Example(_text(row, answer), _text(row, "instruction"), _context(row, context), **_about(row))

    return convert


def _selfinst(row: Row) -> Iterator[Example]:
    instruction = _text(row, "instruction")
    for instance in _list_of_dicts(row, "instances"):
        yield Example(_text(instance, "output"), instruction, _context(instance, "input"), **_about(row))


_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
}


def _turns(row: Row) -> list[dict[str, str]]:
    name = "conversations" if row.get("conversations") is not None else "messages"
    messages = []
    for turn in _list_of_dicts(row, name):
        # Parquet has every key in every turn, some of them null.
        who = turn.get("from") or turn.get("role")
        text = turn.get("value") if turn.get("value") is not None else turn.get("content")
        if not isinstance(who, str) or not isinstance(text, str):
            raise WrongType(f"column {name!r}: a turn needs texts 'from' and 'value' (or 'role' and 'content')")
        role = _ROLES.get(who.lower())
        if role is None:
            raise Unusable("a turn of another role than system, user and assistant")
        messages.append({"role": role, "content": text})
    return messages


def _sharegpt(row: Row) -> Iterator[Example]:
    messages = _turns(row)
    system = _optional(row, "system")
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise Unusable("no turn of the assistant")
    *prompt, answer = messages
    roles = [message["role"] for message in prompt if message["role"] != "system"]
    if any(message["role"] == "system" for message in prompt[1:]):
        raise Unusable("a system turn in the middle")
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        # Chat templates of several model families refuse such chats.
        raise Unusable("user and assistant do not take turns")
    if any(not message["content"].strip() for message in prompt if message["role"] != "system"):
        raise Unusable("an empty turn")
    prompt = [message for message in prompt if message["content"].strip()]
    yield Example(_text({"answer": answer["content"]}, "answer"), messages=prompt, **_about(row))


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("gad", (("prompt",), ("teacher_response",)), _gad, is_chat=True, optional=("extra_info",)),
        Layout("lmsys", (("content",), ("teacher_response",)), _lmsys, is_chat=True),
        Layout("dolly", (("instruction",), ("context",), ("response",)), _single("response", "context")),
        Layout("selfinst", (("instruction",), ("instances",)), _selfinst),
        Layout("alpaca", (("instruction",), ("output",)), _single("output", "input"), optional=("input",)),
        Layout("sharegpt", (("conversations", "messages"),), _sharegpt, is_chat=True, optional=("system",)),
        Layout("plain", (("instruction",), ("response",)), _single("response", "input"), optional=("input",)),
    )
}


def find_layout(columns: Collection[str], where: str, name: str | None = None) -> Layout:
    """The layout of a file with these columns.

    A layout gives way to one that needs the same columns and more: Dolly has those of ``plain`` and ``context``.

    Args:
        columns: Columns of the file.
        where: The file, for errors.
        name: The layout that the user names; None to detect it.

    Raises:
        GadConfigError: If there is no layout of that name.
        GadDataError: If the columns fit no layout or several.
    """
    has = ", ".join(map(str, columns)) or "none"
    if name is not None:
        if name not in LAYOUTS:
            raise GadConfigError(f"--layout {name}: choose one of {', '.join(LAYOUTS)}")
        layout = LAYOUTS[name]
        if not layout.fits(columns):
            wanted = " and ".join(" or ".join(group) for group in layout.needed)
            raise GadDataError(
                f"{where}: the layout {name} needs the columns {wanted}; the file has {has}. Rename them by "
                "--rename OLD=NEW"
            )
        return layout
    fitting = [layout for layout in LAYOUTS.values() if layout.fits(columns)]
    fitting = [one for one in fitting if not any(set(one.needed) < set(other.needed) for other in fitting)]
    if not fitting:
        raise GadDataError(
            f"{where}: the columns fit none of the layouts {', '.join(LAYOUTS)}; the file has {has}. Rename them by "
            "--rename OLD=NEW, for example --rename question=instruction --rename answer=response"
        )
    if len(fitting) > 1:
        names = ", ".join(layout.name for layout in fitting)
        raise GadDataError(f"{where}: the columns fit several layouts ({names}); name one by --layout. It has {has}")
    return fitting[0]
