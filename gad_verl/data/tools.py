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
"""The tools of a run as verl's agent loop has them: what the student is shown and may call, how results are cut."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser
from verl.tools.tool_registry import load_all_tools
from verl.utils.import_utils import resolve_config_path

from gad_verl.data.reading import one_line
from gad_verl.errors import GadConfigError

MULTI_TURN = "actor_rollout_ref.rollout.multi_turn"
PATHS = ("function_tool_path", "tool_config_path")
# What verl says of a call that it could not make; it does not cut that.
_FAILED = ("Unknown function '", "Invalid JSON in arguments for '", "Error executing tool '")
# What a call begins with, of the formats of which it is known: what is no call for all that, is an invalid one.
_BEGINS = {"hermes": "<tool_call>"}


@dataclass(frozen=True)
class ToolLimits:
    """Limits of verl's tool agent loop (``actor_rollout_ref.rollout.multi_turn``); of turns None means no limit."""

    max_assistant_turns: int | None = None
    max_user_turns: int | None = None
    max_parallel_calls: int = 1
    max_tool_response_length: int = 256
    tool_response_truncate_side: str = "middle"

    @classmethod
    def of(cls, multi_turn: Any) -> "ToolLimits":
        """Of verl's section."""
        return cls(**{name: multi_turn.get(name) for name in cls.__dataclass_fields__})

    def cut_result(self, text: str) -> str:
        """The result of a tool as verl shows it (verl/experimental/agent_loop/tool_agent_loop.py, ``_call_tool``)."""
        limit = self.max_tool_response_length
        if len(text) <= limit or text.startswith(_FAILED):
            return text
        if self.tool_response_truncate_side == "left":
            return "(truncated)..." + text[-limit:]
        if self.tool_response_truncate_side == "right":
            return text[:limit] + "...(truncated)"
        half = limit // 2
        return text[:half] + "...(truncated)..." + text[-half:]

    def end_turns(self, assistant_turns: int) -> bool:
        """Whether a trajectory ends after so many turns of the assistant, whatever it calls."""
        return bool(
            (self.max_assistant_turns and assistant_turns >= self.max_assistant_turns)
            # verl counts the results of a turn as a turn of the user.
            or (self.max_user_turns and assistant_turns - 1 >= self.max_user_turns)
        )


def load_tools(multi_turn: Any) -> list[Any]:
    """verl's tools of a configuration.

    Args:
        multi_turn: The section of verl's configuration.

    Raises:
        GadConfigError: There is none, or they cannot be loaded.
    """
    paths = {name: multi_turn.get(name) for name in PATHS}
    if not any(paths.values()):
        raise GadConfigError(
            f"gad.trajectory.enable=True needs the tools that the student may call: set {MULTI_TURN}.{PATHS[0]} or "
            f"{PATHS[1]}"
        )
    try:
        functions, classes = (resolve_config_path(paths[name]) if paths[name] else None for name in PATHS)
        tools = load_all_tools(tool_config_path=classes, function_tool_path=functions)
    except Exception as error:  # whatever the user's file raises
        named = ", ".join(f"{name}={path}" for name, path in paths.items() if path)
        raise GadConfigError(f"{MULTI_TURN}: the tools of {named} cannot be loaded: {one_line(error)}") from None
    if not tools:
        raise GadConfigError(f"{MULTI_TURN}.{PATHS[0]}={paths[PATHS[0]]} registers no tool: mark one by @function_tool")
    return tools


def schemas_of(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """What a template is shown of tools, as verl's agent loop does it."""
    return [tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True) for tool in tools]


@dataclass(frozen=True)
class CallCount:
    """Calls of one turn of the assistant.

    Args:
        calls: That were tried, those that are no calls for a fault of form included.
        invalid: Of these: broken, of an unknown tool, or with arguments that the tool does not take.
        parsed: Calls that the agent loop finds, whatever becomes of them.
    """

    calls: int
    invalid: int
    parsed: int


def fits_schema(name: str, arguments: Any, schemas: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a call names a tool, all arguments that it needs and none that it does not have."""
    for schema in schemas:
        function = schema["function"]
        if function["name"] == name:
            parameters = function.get("parameters") or {}
            known, needed = set(parameters.get("properties") or {}), set(parameters.get("required") or ())
            return isinstance(arguments, Mapping) and needed <= set(arguments) <= known
    return False


class CallReader:
    """Finds the calls of the student, by verl's parser.

    Args:
        tokenizer: The student's.
        form: verl's name of the parser (``multi_turn.format``).
        tools: verl's (:func:`load_tools`).

    Raises:
        GadConfigError: There is no such parser.
    """

    def __init__(self, tokenizer: Any, form: str, tools: Sequence[Any]) -> None:
        try:
            self._parser = ToolParser.get_tool_parser(form, tokenizer)
        except ValueError:
            known = ", ".join(sorted(ToolParser._registry))
            raise GadConfigError(f"{MULTI_TURN}.format={form}: verl has no such parser of calls, but {known}") from None
        self._tokenizer, self._begins = tokenizer, _BEGINS.get(form)
        self._tools = [tool.tool_schema for tool in tools]
        self._schemas = schemas_of(tools)

    def parse(self, turns: Sequence[Sequence[int]]) -> list[tuple[str, list[FunctionCall]]]:
        """Text and calls of each turn, as verl's agent loop reads them.

        Args:
            turns: Token ids of turns of the assistant.
        """

        async def all_of_them() -> list[tuple[str, list[FunctionCall]]]:
            return [await self._parser.extract_tool_calls(list(ids), self._tools) for ids in turns]

        # In a thread of its own: whoever asks may be inside a loop.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, all_of_them()).result()

    def count(self, turns: Sequence[Sequence[int]]) -> list[CallCount]:
        """Calls of each turn, and how many of them are in vain."""
        found = []
        for ids, (_, calls) in zip(turns, self.parse(turns), strict=True):
            good = sum(self._is_good(call) for call in calls)
            tried = len(calls)
            if self._begins is not None:
                tried = max(tried, self._tokenizer.decode(list(ids)).count(self._begins))
            found.append(CallCount(tried, tried - good, len(calls)))
        return found

    def _is_good(self, call: FunctionCall) -> bool:
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            return False
        return fits_schema(call.name, arguments, self._schemas)


def call_reader(config: DictConfig, tokenizer: Any) -> CallReader:
    """Of a whole configuration."""
    multi_turn = config.actor_rollout_ref.rollout.multi_turn
    return CallReader(tokenizer, multi_turn.format, load_tools(multi_turn))
