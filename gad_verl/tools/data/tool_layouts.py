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
"""Conversations with calls of tools, as OpenAI, ShareGPT and Hermes write them, to a prompt and a trajectory.

=========  =====================================================  =====================================================
layout     call                                                   result
=========  =====================================================  =====================================================
OpenAI     ``tool_calls`` (or ``function_call``) of a message     role ``tool`` (or ``function``)
ShareGPT   a turn ``function_call`` with JSON                     a turn ``observation``
Hermes     ``<tool_call>`` in the text of a turn ``gpt``          ``<tool_response>`` in a turn ``tool``
=========  =====================================================  =====================================================
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from gad_verl.data.schema import ROLES
from gad_verl.data.trajectory_messages import ASSISTANT, TOOL, normal_messages, tool_schemas
from gad_verl.errors import GadDataError
from gad_verl.tools.data.row_values import Row, Unusable, WrongType, is_missing, list_of_objects, parsed

_CALLS = ("function_call", "function-call", "tool_call", "tool-call")
_RESULTS = (
    *(TOOL, "tools", "function", "observation", "ipython", "tool_response", "tool-response"),
    *("function_response", "function-response"),
)
_CALL_MARK = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_RESULT_MARK = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
_WHERE = "the trajectory"

Message = dict[str, Any]


def _called(value: Any) -> list[Message]:
    """A call, or several, from JSON: ``{"name": .., "arguments": ..}``."""
    found = json.loads(value) if isinstance(value, str) else value
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls):
        raise ValueError
    return [
        {"function": {"name": call["name"], "arguments": call.get("arguments", call.get("parameters", {}))}}
        for call in calls
    ]


def _assistant(turn: Mapping[str, Any], content: Any, who: str) -> Message:
    try:
        if who in _CALLS:
            return {"role": ASSISTANT, "content": "", "tool_calls": _called(content)}
        if turn.get("function_call"):
            return {"role": ASSISTANT, "content": content, "tool_calls": _called(turn["function_call"])}
        if turn.get("tool_calls"):
            return {"role": ASSISTANT, "content": content, "tool_calls": list(parsed(turn["tool_calls"], "tool_calls"))}
        marked = _CALL_MARK.findall(content) if isinstance(content, str) else []
        if marked:
            calls = [call for one in marked for call in _called(one.strip())]
            return {"role": ASSISTANT, "content": _CALL_MARK.sub("", content).strip(), "tool_calls": calls}
    except (ValueError, TypeError, RecursionError):
        raise Unusable("a call that is no JSON of a name and arguments") from None
    return {"role": ASSISTANT, "content": content}


def read_conversation(turns: list[dict[str, Any]], name: str) -> list[Message]:
    """Turns of any of the layouts as OpenAI's messages; a system message that lists tools is left out.

    Args:
        turns: Of a row.
        name: Column, for errors.

    Raises:
        Unusable, WrongType: A turn is of no known kind.
    """
    found: list[Message] = []
    for turn in turns:
        who = turn.get("from") or turn.get("role")
        if not isinstance(who, str):
            raise WrongType(f"column {name!r}: a turn needs texts 'from' and 'value' (or 'role' and 'content')")
        who, content = who.lower(), turn.get("value") if turn.get("value") is not None else turn.get("content")
        if who in _RESULTS:
            marked = _RESULT_MARK.findall(content) if isinstance(content, str) else []
            results = [one.strip() for one in marked] or [content]
            at = {"tool_call_id": turn["tool_call_id"]} if turn.get("tool_call_id") and len(results) == 1 else {}
            found += [{"role": TOOL, "content": one, **at} for one in results]
        elif who in _CALLS or ROLES.get(who) == ASSISTANT:
            found.append(_assistant(turn, content, who))
        elif who not in ROLES:
            raise Unusable("a turn of a role that is not known")
        elif not isinstance(content, str):
            raise Unusable("a turn without text")
        elif ROLES[who] != "system" or "<tools>" not in content:
            # The template of the student lists the tools in its own way.
            found.append({"role": ROLES[who], "content": content})
    return found


def split_conversation(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """The prompt, and the teacher's trajectory behind it.

    The trajectory is the first one with a call, up to where the user speaks again; of a conversation without calls it
    is the last answer.

    Raises:
        Unusable: There is none.
    """
    calls = [place for place, one in enumerate(messages) if one.get("tool_calls")]
    spoken = [place for place, one in enumerate(messages) if one["role"] == ASSISTANT]
    if not spoken:
        raise Unusable("no turn of the assistant")
    first = calls[0] if calls else spoken[-1]
    while first > 0 and messages[first - 1]["role"] == ASSISTANT:
        first -= 1
    end = first
    while end < len(messages) and messages[end]["role"] in (ASSISTANT, TOOL):
        end += 1
    prompt = messages[:first]
    if not prompt or prompt[-1]["role"] != "user":
        raise Unusable("no question before the trajectory")
    return prompt, messages[first:end]


def read_trajectory(row: Row) -> tuple[list[Message], str, list[dict[str, Any]]]:
    """Prompt, trajectory (as JSON text) and tools of a row.

    Raises:
        Unusable, WrongType: See :mod:`gad_verl.tools.data.layouts`.
    """
    name = "messages" if is_missing(row.get("conversations")) else "conversations"
    prompt, trajectory = split_conversation(read_conversation(list_of_objects(row, name), name))
    offered = row.get("tools") if not is_missing(row.get("tools")) else row.get("functions")
    try:
        messages = normal_messages(trajectory, _WHERE)
        tools = tool_schemas(None if is_missing(offered) else offered, "the tools")
    except GadDataError as error:
        # Of one reason for all rows of the kind: without its place and what it holds.
        raise Unusable(re.sub(r"^.*?: ", "", str(error)).split(";")[0].split(", got ")[0]) from None
    if any(one["role"] == ASSISTANT for one in prompt) and any(not str(one["content"]).strip() for one in prompt):
        raise Unusable("an empty turn")
    return prompt, json.dumps(messages, ensure_ascii=False), tools
