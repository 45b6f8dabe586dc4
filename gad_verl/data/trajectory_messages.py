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
"""Trajectories of a teacher as rows hold them: the messages after the prompt, with calls of tools and their results.

A row holds one trajectory, as a list of messages or as JSON text, or several as a list of JSON texts. Read in, it is
JSON text of one form: what differs between APIs and tells nothing (ids of calls, spaces in arguments, the order of
results, keys that are null) is gone.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gad_verl.data.content import OtherPartError, is_blank, text_of
from gad_verl.data.schema import check_unicode
from gad_verl.errors import GadDataError

ASSISTANT, TOOL = "assistant", "tool"

Message = dict[str, Any]


def _parsed(value: str, where: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise GadDataError(
            f"{where}: plain text, where messages of a trajectory are expected; gad.teacher_key must name a column of "
            "messages (or of their JSON text), or set gad.trajectory.enable=False"
        ) from None


def _content(message: Mapping[str, Any], where: str) -> str:
    try:
        found = text_of(message.get("content"))
    except OtherPartError as other:
        raise GadDataError(f"{where}: a part of the kind {other.kind!r}; trajectories hold text alone") from None
    except TypeError as error:
        raise GadDataError(f"{where}: the content of a message must be text, got {error}") from None
    check_unicode(found or "", where)
    return found or ""


def _arguments(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, Mapping):
        raise GadDataError(f"{where}: the arguments of a call must be a JSON object; remove the row or mend the call")
    return dict(value)


def _call(value: Any, where: str) -> tuple[str | None, Message]:
    """Id and normal form of a call."""
    function = value.get("function") if isinstance(value, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name.strip():
        raise GadDataError(
            f"{where}: a call needs the form {{'function': {{'name': .., 'arguments': ..}}}}, got {value!r:.80}"
        )
    called = {"name": name, "arguments": _arguments(function.get("arguments"), f"{where}, call of {name!r}")}
    check_unicode(json.dumps(called, ensure_ascii=False), where)
    return value.get("id"), {"type": "function", "function": called}


def _in_order(ids: Sequence[str | None], results: list[Mapping[str, Any]], where: str) -> list[Mapping[str, Any]]:
    """Results in the order of their calls, in which verl's agent loop brings them."""
    if len(results) != len(ids):
        raise GadDataError(f"{where}: {len(ids)} calls and {len(results)} results; remove the row or mend it")
    named = [result.get("tool_call_id") for result in results]
    if None in named or None in ids:
        return results
    if sorted(map(str, named)) != sorted(map(str, ids)) or len(set(named)) != len(named):
        raise GadDataError(f"{where}: results of the calls {named}, but the calls are {list(ids)}; mend the row")
    return [results[named.index(one)] for one in ids]


def normal_messages(value: Any, where: str) -> list[Message]:
    """The messages of one trajectory in the form that all readers take.

    Args:
        value: Messages, or their JSON text.
        where: File, row and column, for the error.

    Raises:
        GadDataError: It is no trajectory: the assistant first and last, each call with one result behind it, and
            nobody else in between.
    """
    messages = _parsed(value, where) if isinstance(value, str) else value
    if isinstance(messages, Mapping | bytes) or not hasattr(messages, "__len__") or len(messages) == 0:
        raise GadDataError(f"{where}: a trajectory is a list of messages, got {messages!r:.80}")
    found: list[Message] = []
    place, messages = 0, list(messages)
    while place < len(messages):
        message, at = messages[place], f"{where}, message {place}"
        if not isinstance(message, Mapping) or message.get("role") not in (ASSISTANT, TOOL):
            role = message.get("role") if isinstance(message, Mapping) else message
            raise GadDataError(
                f"{at}: after the prompt only 'assistant' and 'tool' speak, got {role!r:.40}: a rollout has nobody who "
                "could answer for others. Cut the row before it, or put what came before into the prompt"
            )
        if message["role"] == TOOL:
            raise GadDataError(f"{at}: a result without a call before it; remove the row or mend it")
        calls = message.get("tool_calls")
        called = [_call(one, at) for one in (calls if calls is not None else ())]
        end = place + 1
        while end < len(messages) and isinstance(messages[end], Mapping) and messages[end].get("role") == TOOL:
            end += 1
        spoken: Message = {"role": ASSISTANT, "content": _content(message, at)}
        if called:
            spoken["tool_calls"] = [call for _, call in called]
        elif end < len(messages) or end > place + 1:
            raise GadDataError(f"{at}: the assistant calls no tool here, so its trajectory ends; cut the row behind it")
        elif is_blank(spoken["content"]):
            raise GadDataError(f"{at}: the last answer is empty; remove the row (or collect it again)")
        if called and end == len(messages) and end == place + 1:
            raise GadDataError(f"{at}: the trajectory ends with a call; it must end with an answer: remove the row")
        results = _in_order([one for one, _ in called], messages[place + 1 : end], at)
        found += [spoken, *({"role": TOOL, "content": _content(one, at)} for one in results)]
        if called and end == len(messages):
            raise GadDataError(f"{at}: the trajectory ends with a result; it must end with an answer: remove the row")
        place = end
    return found


def trajectory_texts(value: Any, where: str) -> list[str]:
    """The trajectories of a row, each as JSON text of :func:`normal_messages`.

    Args:
        value: Content of the teacher's column: messages, their JSON text, or a list of JSON texts.
        where: File, row and column, for the error.

    Raises:
        GadDataError: See :func:`normal_messages`.
    """
    if isinstance(value, str) or value is None:
        several = [value]
    else:
        several = list(value) if hasattr(value, "__len__") and not isinstance(value, Mapping | bytes) else [value]
        if not several or not all(isinstance(one, str) for one in several):
            several = [value]
    return [json.dumps(normal_messages(one, where), ensure_ascii=False) for one in several]


def messages_of(text: str) -> list[Message]:
    """The messages of a text of :func:`trajectory_texts`."""
    return json.loads(text)


def tool_schemas(value: Any, where: str) -> list[dict[str, Any]]:
    """The tools of a row (column ``tools``) in OpenAI's form.

    Args:
        value: A list of tools, or its JSON text; empty or None for none.
        where: File, row and column, for the error.

    Raises:
        GadDataError: It is no list of tools.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise GadDataError(f"{where}: the tools must be JSON, got {value!r:.80}") from None
    tools = [] if value is None or isinstance(value, str) else value
    if isinstance(tools, Mapping) or not hasattr(tools, "__len__"):
        raise GadDataError(f"{where}: the tools must be a list, got {tools!r:.80}")
    found = []
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise GadDataError(f"{where}: a tool needs the form {{'function': {{'name': ..}}}}, got {tool!r:.80}")
        found.append({"type": "function", "function": dict(function)})
    return found
