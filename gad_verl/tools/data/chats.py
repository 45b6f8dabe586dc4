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
"""Chats of all layouts, read into turns of system, user and assistant; what is more than text makes a row unusable."""

from collections.abc import Mapping, Sequence
from typing import Any

from gad_verl.data.content import OtherPartError, text_of
from gad_verl.data.schema import ROLES
from gad_verl.tools.data.row_values import Row, Unusable, WrongType, is_missing, list_of_objects, parsed

Messages = list[dict[str, str]]

PICTURES = "pictures, sound or films beside the text"
TOOLS = "calls or offers of tools"
HISTORY = "history"

_TOOL_ROLES = (
    *("tool", "tools", "tool_call", "tool_response", "tool-call", "tool-response"),
    *("function", "function_call", "function-call", "function_response", "function-response"),
    *("observation", "ipython"),
)
_TOOL_PARTS = ("tool_use", "tool_result", "tool_call", "function_call", "tool_reference")

# Columns that change what a text answers, in any layout.
PICTURE_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")
TOOL_COLUMNS = ("tools", "functions")


def _text_of_turn(turn: Mapping[str, Any], name: str) -> str:
    # Parquet has every key in every turn, some of them null.
    content = turn.get("value") if turn.get("value") is not None else turn.get("content")
    try:
        found = text_of(content)
    except OtherPartError as other:
        if other.kind in _TOOL_PARTS:
            raise Unusable(TOOLS) from None
        if other.kind == "part without text":
            raise WrongType(f"column {name!r}: a part of a content says it is text and has none") from None
        raise Unusable(PICTURES if _is_picture(other.kind) else f"a part of the kind {other.kind}") from None
    except TypeError as error:
        raise WrongType(
            f"column {name!r}: a turn needs texts 'from' and 'value' (or 'role' and 'content'), got {error}"
        ) from None
    if found is None:
        if "value" not in turn and "content" not in turn:
            raise WrongType(f"column {name!r}: a turn needs texts 'from' and 'value' (or 'role' and 'content')")
        raise Unusable("a turn without text")
    return found


def _is_picture(kind: str) -> bool:
    return any(word in kind for word in ("image", "audio", "video", "file", "document"))


def read_turns(turns: Sequence[Mapping[str, Any]], name: str) -> Messages:
    """Turns with ``from`` and ``value``, or ``role`` and ``content``, as chat messages.

    Args:
        turns: Of a row.
        name: Column, for errors.

    Raises:
        Unusable: A turn is of another role, has no text, or more than text.
        WrongType: It is no turn.
    """
    messages = []
    for turn in turns:
        who = turn.get("from") or turn.get("role")
        if not isinstance(who, str):
            raise WrongType(f"column {name!r}: a turn needs texts 'from' and 'value' (or 'role' and 'content')")
        if who.lower() in _TOOL_ROLES or turn.get("tool_calls") or turn.get("function_call"):
            raise Unusable(TOOLS)
        role = ROLES.get(who.lower())
        if role is None:
            raise Unusable("a turn of another role than system, user and assistant")
        messages.append({"role": role, "content": _text_of_turn(turn, name)})
    if messages and messages[-1]["role"] == "assistant" and turns[-1].get("weight") == 0:
        # OpenAI's files for fine-tuning: a turn that is not to be learned.
        raise Unusable("the last answer has weight 0")
    return messages


def _are_turns(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, dict) and (turn.keys() & {"role", "from"}) for turn in value
    )


def chat_or_text(value: Any, name: str) -> Any:
    """The turns of a chat that stands in a cell as JSON text, as in CSV; a text that happens to be JSON stays one.

    Raises:
        WrongType: It is a chat written as Python text.
    """
    content = parsed(value, name)
    return content if not isinstance(value, str) or (_are_turns(content) and content) else value


def prompt_of(row: Row, name: str) -> Messages:
    """A prompt: messages that wait for an answer, or a text that is the user's.

    Raises:
        Unusable, WrongType: See :func:`read_turns`.
    """
    value = row.get(name)
    if is_missing(value):
        raise Unusable(f"{name} is missing")
    content = chat_or_text(value, name)
    if isinstance(content, str):
        if not content.strip():
            raise Unusable(f"{name} is empty")
        return [{"role": "user", "content": content}]
    messages = read_turns(list_of_objects({name: content}, name), name)
    if messages[-1]["role"] == "assistant":
        raise Unusable("the prompt ends with the assistant")
    if not messages[-1]["content"].strip():
        raise Unusable("the last message is empty")
    return messages


def checked_turns(messages: Messages) -> Messages:
    """A prompt in which user and assistant take turns, the user last; empty system messages go.

    Raises:
        Unusable: Chat templates of several model families refuse such a chat.
    """
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if any(message["role"] == "system" for message in messages[1:]):
        raise Unusable("a system turn in the middle")
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise Unusable("user and assistant do not take turns")
    if any(not message["content"].strip() for message in messages if message["role"] != "system"):
        raise Unusable("an empty turn")
    return [message for message in messages if message["content"].strip()]


def history_of(row: Row) -> Messages:
    """Earlier turns of a single instruction: ``history``, pairs of what was asked and answered.

    Raises:
        Unusable, WrongType: They are no pairs of texts, or one is empty.
    """
    value = row.get(HISTORY)
    value = None if is_missing(value) or value == "" else parsed(value, HISTORY)
    messages: Messages = []
    for pair in value if isinstance(value, list) else [value] if value else ():
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
            raise WrongType("column 'history': expected pairs of texts, what was asked and what was answered")
        if not all(one.strip() for one in pair):
            raise Unusable("an empty turn")
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return messages


def refuse_more_than_text(row: Row, with_tools: bool = False) -> None:
    """Raise Unusable for a row whose answer rests on pictures or tools that the prompt would not have.

    Args:
        row: Of the file.
        with_tools: Whether tools may be there.
    """
    for columns, reason in ((PICTURE_COLUMNS, PICTURES), (TOOL_COLUMNS, TOOLS))[: 1 if with_tools else 2]:
        for name in columns:
            value = row.get(name)
            if not is_missing(value) and value not in ("", "[]", "{}", "null", "None") and value not in ([], {}, b""):
                raise Unusable(reason)
