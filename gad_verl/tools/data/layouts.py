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

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from gad_verl.data.content import is_blank
from gad_verl.data.endings import MARKS, cut_marks
from gad_verl.data.schema import teacher_names, teacher_texts
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.data.batches import FAILED
from gad_verl.tools.data.chats import (
    HISTORY,
    PICTURE_COLUMNS,
    TOOL_COLUMNS,
    checked_turns,
    history_of,
    prompt_of,
    read_turns,
    refuse_more_than_text,
)
from gad_verl.tools.data.preferences import CHOSEN, LABELS, PROMPTS, chosen_pair, refuse_unwanted
from gad_verl.tools.data.row_values import (
    Row,
    Unusable,
    WrongType,
    is_missing,
    list_of_objects,
    optional,
    optional_text,
    text,
)
from gad_verl.tools.data.tool_layouts import read_trajectory

# Read in any layout: who asks with them is answered otherwise, or not at all.
_SYSTEM = ("system", "system_prompt")
_IN_ANY = (*_SYSTEM, *LABELS, *PICTURE_COLUMNS, *TOOL_COLUMNS)


@dataclass(frozen=True)
class Example:
    """A row as all layouts have it in common.

    Args:
        teacher_response: The teacher's text, or several.
        instruction: What is asked, for layouts of single instructions; None for chats.
        context: Input to the instruction; may be empty.
        messages: The chat before the teacher's text; before the instruction, where there is one.
        system: System message for a chat that has none.
        id: Identifier in the source.
        teacher: Which teacher, where the row says so; of several texts perhaps a list, with the teacher of each.
        source: Which data set, where the row says so.
        category: Kind of task, where the row says so.
        cut: Whether each teacher text was cut when it was written; None where the row does not say.
        tools: What the teacher could call, of trajectories.
    """

    teacher_response: str | list[str]
    instruction: str | None = None
    context: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)
    system: str | None = None
    id: str | None = None
    teacher: str | list[str | None] | None = None
    source: str | None = None
    category: str | None = None
    cut: tuple[bool | None, ...] | None = None
    tools: list[dict[str, Any]] | None = None


Converter = Callable[[Row], Iterator[Example]]


@dataclass(frozen=True)
class Layout:
    """A published layout.

    Args:
        name: Name for ``--layout``.
        needed: Columns without which a file is not of this layout; of a group in a tuple one is enough.
        convert: Turns a row into examples.
        is_chat: Whether rows hold whole chats, which no template is put around.
        optional: Further columns that the converter reads, besides those that are read in any layout.
        before: Layouts that would read the same file, and would take the wrong answer for the teacher's.
        has_tools: Whether teacher's texts are trajectories with calls of tools; found only where it is named.
    """

    name: str
    needed: tuple[tuple[str, ...], ...]
    convert: Converter
    is_chat: bool = False
    optional: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    has_tools: bool = False

    def examples(self, row: Row) -> Iterator[Example]:
        """What a row gives to learn from.

        Raises:
            Unusable, WrongType: See the module.
        """
        refuse_unwanted(row)
        refuse_more_than_text(row, with_tools=self.has_tools)
        if HISTORY not in self.optional and row.get(HISTORY):
            raise WrongType(
                f"column {HISTORY!r} holds earlier turns, which the layout {self.name} does not read. If it is "
                f"something else, rename it: --rename {HISTORY}=past"
            )
        system = optional(row, *_SYSTEM)
        for example in self.convert(row):
            if isinstance(example.teacher, list) and isinstance(example.teacher_response, str):
                example = replace(example, teacher=_names(example, 1)[0])
            yield replace(example, system=system, cut=example.cut or _cut(row, example))

    def unused(self, columns: Collection[str]) -> list[str]:
        """Columns that an import leaves behind."""
        used = {name for group in self.needed for name in group} | {*self.optional, *ABOUT, *MARKS, *_IN_ANY}
        return [name for name in columns if name not in used]

    def fits(self, columns: Collection[str]) -> bool:
        """Whether a file with these columns can be of this layout."""
        return all(any(name in columns for name in group) for group in self.needed)


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


def _about(row: Row) -> dict[str, Any]:
    names = row.get("teacher")
    return {
        "id": optional(row, "id", "question_id", "conversation_id"),
        "teacher": [optional({"name": name}, "name") for name in names]
        if isinstance(names, list) and names
        else optional(row, "teacher", "model", "model_id"),
        "source": optional(row, "data_source", "source"),
        "category": optional(row, "category", "motivation_app"),
    }


def _cut(row: Row, example: Example) -> tuple[bool | None, ...]:
    texts = example.teacher_response
    return _marks(row, 1 if isinstance(texts, str) else len(texts))


def _marks(row: Row, count: int) -> tuple[bool | None, ...]:
    try:
        return tuple(cut_marks(row, count, "the answers"))
    except GadDataError as error:
        raise WrongType(str(error)) from None


def _names(example: Example, count: int) -> list[str | None]:
    try:
        return teacher_names(example.teacher, count, "column 'teacher'")
    except GadDataError as error:
        raise WrongType(str(error)) from None


def names_each_teacher(row: Row) -> bool:
    """Whether a row of GAD's schema has a list of teachers, one for each of its texts."""
    return isinstance(_with_extra(row).get("teacher"), list)


def _with_texts(example: Example, row: Row, name: str = "teacher_response") -> Example:
    value = row.get(name)
    if is_missing(value) or isinstance(value, str):
        return replace(example, teacher_response=text(row, name))
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise WrongType(f"column {name!r}: expected a text or a list of texts, got {type(value).__name__}")
    named = zip(value, _marks(row, len(value)), _names(example, len(value)), strict=True)
    kept = [one for one in named if not is_blank(one[0])]
    if not kept:
        raise Unusable(f"{name} is empty")
    texts, cut, names = zip(*kept, strict=True)
    return replace(
        example,
        teacher_response=teacher_texts(list(texts), name),
        cut=cut,
        teacher=list(names) if isinstance(example.teacher, list) else example.teacher,
    )


def _with_extra(row: Row) -> Row:
    extra = row.get("extra_info")
    return {**extra, **row} if isinstance(extra, dict) else row


def _gad(row: Row) -> Iterator[Example]:
    yield _with_texts(Example("", messages=prompt_of(row, "prompt"), **_about(_with_extra(row))), row)


def _lmsys(row: Row) -> Iterator[Example]:
    yield _with_texts(Example("", messages=prompt_of(row, "content"), **_about(row)), row)


def _single(answer: str, context: str) -> Converter:
    """Converter of a layout of single instructions, by the columns of answer and input."""

    def convert(row: Row) -> Iterator[Example]:
        asked = text(row, "instruction"), optional_text(row, context)
        yield Example(text(row, answer), *asked, history_of(row), **_about(row))

    return convert


def _selfinst(row: Row) -> Iterator[Example]:
    instruction = text(row, "instruction")
    for instance in list_of_objects(row, "instances"):
        yield Example(text(instance, "output"), instruction, optional_text(instance, "input"), **_about(row))


def _sharegpt(row: Row) -> Iterator[Example]:
    name = "messages" if is_missing(row.get("conversations")) else "conversations"
    messages = read_turns(list_of_objects(row, name), name)
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise Unusable("no turn of the assistant")
    *prompt, answer = messages
    yield Example(text({"answer": answer["content"]}, "answer"), messages=checked_turns(prompt), **_about(row))


def _batch(row: Row) -> Iterator[Example]:
    if row.get(FAILED):
        raise Unusable(row[FAILED])
    yield from _gad(row)


def _trajectory(row: Row) -> Iterator[Example]:
    prompt, trajectory, tools = read_trajectory(row)
    yield Example(trajectory, messages=prompt, tools=tools, **_about(row))


def _preference(row: Row) -> Iterator[Example]:
    prompt, answer = chosen_pair(row)
    yield Example(answer, messages=prompt, **_about(row))


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("gad", (("prompt",), ("teacher_response",)), _gad, is_chat=True, optional=("extra_info",)),
        # Replies of an API, as open_replies turns them into rows.
        Layout("batch", (("prompt",), ("teacher_response",), (FAILED,)), _batch, is_chat=True),
        Layout("lmsys", (("content",), ("teacher_response",)), _lmsys, is_chat=True),
        Layout(
            "dolly",
            (("instruction",), ("context",), ("response",)),
            _single("response", "context"),
            optional=(HISTORY,),
        ),
        Layout("selfinst", (("instruction",), ("instances",)), _selfinst),
        Layout("alpaca", (("instruction",), ("output",)), _single("output", "input"), optional=("input", HISTORY)),
        Layout("sharegpt", (("conversations", "messages"),), _sharegpt, is_chat=True),
        Layout("trajectory", (("conversations", "messages"),), _trajectory, is_chat=True, has_tools=True),
        Layout("plain", (("instruction",), ("response",)), _single("response", "input"), optional=("input", HISTORY)),
        Layout(
            "preference",
            ((CHOSEN,), ("rejected",)),
            _preference,
            is_chat=True,
            optional=(*PROMPTS, "input", HISTORY),
            before=("sharegpt",),
        ),
    )
}


_ASKED = ("instruction", "question", "query", "input", "user", "human", "problem")
_ANSWERED = ("response", "answer", "output", "completion", "reply", "assistant", "chatgpt", "gpt", "solution", "text")


def _renaming(columns: Collection[str]) -> str:
    """The options that make one of the layouts of the columns, where their names tell; else an example."""
    asked = next((name for name in ("prompt", *_ASKED) if name in columns), "question")
    answered = next((name for name in _ANSWERED if name in columns and name != asked), "answer")
    new = {asked: "instruction", answered: "response"}
    if asked == "prompt":
        # The one name under which a chat is read too.
        new = {answered: "teacher_response"}
    return " ".join(f"--rename {old}={name}" for old, name in new.items() if old != name)


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
        for other in LAYOUTS.values():
            if name in other.before and other.fits(columns):
                raise GadDataError(
                    f"{where}: the layout {name} would leave {', '.join(group[0] for group in other.needed)} behind, "
                    f"which say which answer is wanted; the layout {other.name} reads them"
                )
        return layout
    fitting = [layout for layout in LAYOUTS.values() if layout.fits(columns) and not layout.has_tools]
    fitting = [one for one in fitting if not any(set(one.needed) < set(other.needed) for other in fitting)]
    fitting = [one for one in fitting if not any(one.name in other.before for other in fitting)]
    if not fitting:
        raise GadDataError(
            f"{where}: the columns fit none of the layouts {', '.join(LAYOUTS)}; the file has {has}. Rename them by "
            f"--rename OLD=NEW, for example {_renaming(columns)}"
        )
    if len(fitting) > 1:
        names = ", ".join(layout.name for layout in fitting)
        raise GadDataError(f"{where}: the columns fit several layouts ({names}); name one by --layout. It has {has}")
    return fitting[0]
