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
"""Collection of trajectories: the teacher calls tools, which are run here, until it answers.

Every answer of the teacher and every result of a tool is stored under the conversation that led to it, so that an
interrupted collection goes on where it was, without asking or running anything twice.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from gad_verl.data.tools import load_tools, schemas_of
from gad_verl.data.trajectory_messages import normal_messages
from gad_verl.errors import GadConfigError, GadDataError, GadEndpointError
from gad_verl.record.files import plain
from gad_verl.tools.api.check import check_endpoint
from gad_verl.tools.api.client import answer_all
from gad_verl.tools.api.replies import WITH_TOOLS
from gad_verl.tools.api.requests import ChatAnswer, ChatRequest, request_key
from gad_verl.tools.api.store import AnswerStore
from gad_verl.tools.data.importing import row_schema
from gad_verl.tools.data.writing import RowWriter, card_path, describe_file, outputs
from gad_verl.tools.teacher.collect import check_output
from gad_verl.tools.teacher.plan import Plan
from gad_verl.tools.teacher.progress import CollectProgress
from gad_verl.tools.teacher.prompts import Prompt
from gad_verl.tools.teacher.settings import Teacher

logger = logging.getLogger(__name__)

_NO_LIMIT = 1 << 40
_RESULT = "tool"


@dataclass
class _Trajectory:
    """One that is on its way.

    Attributes:
        prompt: What was asked.
        messages: What came after it.
        ended: Why it is over; empty while it is not.
        model: What the API says has answered.
        tokens: Of all requests, prompts and answers.
    """

    prompt: Prompt
    messages: list[dict[str, Any]] = field(default_factory=list)
    ended: str = ""
    model: str = ""
    tokens: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def turns(self) -> int:
        return sum(message["role"] == "assistant" for message in self.messages)


class ToolCollection:
    """Rolls a teacher out with tools.

    Args:
        plan: Prompts and the teacher; one teacher, one trajectory a prompt.
        tools_file: Function tools (``actor_rollout_ref.rollout.multi_turn.function_tool_path``).
        max_turns: Turns of the teacher after which a trajectory without an answer is given up.

    Raises:
        GadConfigError: There are several teachers or samples, or the tools cannot be loaded.
    """

    def __init__(self, plan: Plan, tools_file: Path, max_turns: int) -> None:
        settings = plan.settings
        if len(settings.teachers) > 1 or settings.samples > 1:
            raise GadConfigError(
                "--tools collects one trajectory a prompt from one teacher: leave --samples out, and name one teacher"
            )
        if settings.teachers[0].endpoint.stream:
            raise GadConfigError("--tools with --stream: calls are not read from streams; leave --stream out")
        if plan.prompts.has_images:
            raise GadConfigError("--tools with a column of images: trajectories have text alone; take the column out")
        self._plan, self._max_turns = plan, max_turns
        self._tools = load_tools({"function_tool_path": str(tools_file.expanduser().absolute())})
        self.schemas = schemas_of(self._tools)

    @property
    def _teacher(self) -> Teacher:
        return self._plan.settings.teachers[0]

    def _request(self, one: _Trajectory) -> ChatRequest:
        sampling = {**self._teacher.sampling, WITH_TOOLS: self.schemas}
        messages = (*one.prompt.asked, *one.messages)
        endpoint = self._teacher.endpoint
        key = request_key(messages, sampling, self._teacher.name, endpoint.model, one.prompt.occurrence)
        return ChatRequest(key, messages, sampling)

    def collect(self, output: Path, *, overwrite: bool = False, allow_missing: bool = False) -> dict[str, Any]:
        """Ask, run tools, and write the file.

        Args:
            output: Parquet file; answers and results are kept beside it.
            overwrite, allow_missing: See :func:`gad_verl.tools.teacher.collect.collect`.

        Returns:
            The card.

        Raises:
            GadConfigError, GadDataError, GadEndpointError: One line each. What was given is kept.
        """
        path = check_output(output, overwrite)
        trajectories = [_Trajectory(prompt) for prompt in self._plan.kept_prompts()]
        identity = {**self._plan.settings.identity(), "tools": self.schemas}
        with AnswerStore(path, identity) as store:
            if any(self._request(one).key not in store for one in trajectories):
                check_endpoint(self._teacher.endpoint, self._teacher.sampling)
            with closing(CollectProgress(len(trajectories))) as progress:
                for turn in range(self._max_turns):
                    asked = [one for one in trajectories if not one.ended]
                    if not asked:
                        break
                    requests = [self._request(one) for one in asked]
                    shown = progress.of(self._teacher, is_extra=turn > 0)
                    asyncio.run(
                        answer_all(self._teacher.endpoint, iter(requests), store, progress=shown, heard=turn > 0)
                    )
                    for one, request in zip(asked, requests, strict=True):
                        self._take(one, store.get(request.key), store.rejection(request.key), store)
            for one in trajectories:
                one.ended = one.ended or "turns"
            return self._write(trajectories, store, output, allow_missing)

    def _take(self, one: _Trajectory, answer: ChatAnswer | None, rejected: str | None, store: AnswerStore) -> None:
        """Take over an answer, and run what it calls."""
        if answer is None:
            one.ended = "missing" if rejected is None else "rejected"
            return
        one.model = answer.model
        one.tokens[0] += answer.prompt_tokens or 0
        one.tokens[1] += answer.completion_tokens or 0
        message = json.loads(answer.text)
        calls = message.get("tool_calls") or []
        if answer.finish_reason not in ("stop", "tool_calls", "unknown"):
            one.ended = answer.finish_reason
            return
        one.messages.append({"role": "assistant", "content": message.get("content") or ""})
        if not calls:
            one.ended = "stop"
            return
        one.messages[-1]["tool_calls"] = calls
        for place, call in enumerate(calls):
            key = request_key((*one.prompt.asked, *one.messages), {}, _RESULT, place)
            if (stored := store.get(key)) is None:
                stored = ChatAnswer(key, self._result(call), "stop", None, None, _RESULT, _now())
                store.put(stored)
            one.messages.append({"role": "tool", "tool_call_id": call.get("id") or "", "content": stored.text})

    def _result(self, call: Mapping[str, Any]) -> str:
        """The result of a call, in verl's words where it fails; not cut, which the training does."""
        from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
        from verl.experimental.agent_loop.tool_parser import FunctionCall

        function = call.get("function") or {}
        arguments = function.get("arguments")
        asked = FunctionCall(
            name=str(function.get("name")),
            arguments=arguments if isinstance(arguments, str) else json.dumps(arguments or {}),
        )
        loop = SimpleNamespace(
            tools={tool.name: tool for tool in self._tools},
            max_tool_response_length=_NO_LIMIT,
            tool_response_truncate_side="right",
        )
        response, _, _ = asyncio.run(ToolAgentLoop._call_tool(loop, asked, {}, SimpleNamespace()))
        return response.text or ""

    def _write(
        self, trajectories: list[_Trajectory], store: AnswerStore, output: Path, allow_missing: bool
    ) -> dict[str, Any]:
        ended = Counter(one.ended for one in trajectories)
        if ended["missing"] and not allow_missing:
            raise GadEndpointError(
                f"{ended['missing']} of {len(trajectories)} trajectories lack an answer; the others are kept in "
                f"{store.path}. The same command goes on; --allow-missing writes the file without them"
            )
        turns, calls, rows, broken = 0, 0, 0, Counter[str]()
        tools = json.dumps(self.schemas, ensure_ascii=False)
        with outputs(overwrite=True) as files:
            temporary = files.add(output)
            files.add(card_path(output))
            with RowWriter(temporary, _schema()) as writer:
                for one in trajectories:
                    if one.ended != "stop":
                        continue
                    try:
                        messages = normal_messages(one.messages, "the trajectory")
                    except GadDataError as error:
                        broken[str(error)[:100]] += 1
                        continue
                    rows, turns = rows + 1, turns + one.turns
                    calls += sum(len(message.get("tool_calls", ())) for message in messages)
                    writer.write(self._row(one, messages, tools))
            if not rows:
                told = ", ".join(f"{name}: {number}" for name, number in (ended + broken).most_common(3))
                raise GadDataError(f"no trajectory can be used ({told}); nothing was written")
            card = {
                "command": "teacher collect",
                "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
                "output": describe_file(temporary, output.name) | {"rows": rows},
                "trajectories": {"wanted": len(trajectories), "ended": dict(ended), "broken": dict(broken)},
                "turns": turns / rows,
                "calls": calls / rows,
                "tokens": {name: sum(one.tokens[at] for one in trajectories) for at, name in enumerate(("in", "out"))},
                "settings": plain(self._plan.settings) | {"max_turns": self._max_turns, "tools": self.schemas},
            }
            files.write_card(card_path(output), card)
        return card

    def _row(self, one: _Trajectory, messages: list[dict[str, Any]], tools: str) -> dict[str, Any]:
        given = self._plan.settings.student_prompt != "asked"
        return {
            "prompt": list(one.prompt.given if given else one.prompt.asked),
            "teacher_messages": json.dumps(messages, ensure_ascii=False),
            "tools": tools,
            "teacher": self._teacher.name,
            "data_source": one.prompt.data_source,
            "extra_info": {"index": one.prompt.index, "id": one.prompt.id, "category": None},
        }


def _schema() -> pa.Schema:
    return row_schema(several_texts=False, has_tools=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
