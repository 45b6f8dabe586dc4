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
"""Evaluation of a student with tools: verl's own tool agent loop, asked by an engine of the evaluation."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gad_verl.data.tokens import SequenceBuilder
from gad_verl.data.tools import CallReader, ToolLimits, load_tools, schemas_of
from gad_verl.data.trajectories import TrajectoryBuilder, turns_of
from gad_verl.data.trajectory_messages import messages_of
from gad_verl.errors import GadConfigError
from gad_verl.tools.evaluation.engines import Engine, Job
from gad_verl.tools.evaluation.rows import Row

# Trajectories that are on their way at the same time: what they have said is on disk when all of them are over.
_AT_ONCE = 64


@dataclass(frozen=True)
class ToolOptions:
    """The tools of an evaluation.

    Args:
        path: File of function tools, as ``actor_rollout_ref.rollout.multi_turn.function_tool_path``.
        form: verl's name of the parser of calls.
        limits: Of the agent loop.
    """

    path: Path
    form: str = "hermes"
    limits: ToolLimits = ToolLimits()


@dataclass(frozen=True)
class Turns:
    """What a trajectory consists of.

    Args:
        text: All of it, marks of the template and results included, without its end-of-text token.
        finished: Whether the student ended it by a turn that calls nothing.
        turns, calls, invalid_calls: See :class:`gad_verl.data.tools.CallCount`.
        mask: 1 for each token of the student.
    """

    text: str
    finished: bool
    turns: int
    calls: int
    invalid_calls: int
    mask: list[int]


class _Servers:
    """Stands for verl's rollout servers: what all trajectories ask for at a time is one batch of the engine.

    Args:
        engine: Answers.
        room: Longest trajectory in tokens.
    """

    def __init__(self, engine: Engine, room: int) -> None:
        self._engine, self._room = engine, room
        self._waiting: list[tuple[Job, asyncio.Future]] = []
        self.running = 0
        # By the ids of the requests: verl's loop hands nothing else of its caller's on.
        self.jobs: dict[str, Job] = {}

    async def generate(self, request_id: str, *, prompt_ids: list[int], **_: Any) -> Any:
        """As verl's ``LLMServerClient.generate``; the request's id is the trajectory's job."""
        from verl.workers.rollout.replica import TokenOutput

        job = self.jobs[request_id]
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((Job(job.prompt, job.sample, list(prompt_ids)), future))
        ids = await future
        left = len(job.prompt_ids) + self._room - len(prompt_ids)
        return TokenOutput(token_ids=ids[: max(1, left)], log_probs=None, extra_fields={})

    def _answers(self, jobs: list[Job]) -> list[tuple[Job, list[int]]]:
        return list(self._engine.run(jobs))

    async def serve(self) -> None:
        """Answer as long as trajectories are on their way, once all of them wait."""
        while self.running:
            if len(self._waiting) < self.running:
                await asyncio.sleep(0.001)
                continue
            asked, self._waiting = self._waiting, []
            futures = {(job.prompt, job.sample): future for job, future in asked}
            jobs = [job for job, _ in asked]
            try:
                for job, ids in await asyncio.to_thread(self._answers, jobs):
                    futures[job.prompt, job.sample].set_result(ids)
            except Exception as error:  # of the engine: the trajectories end with it
                for future in futures.values():
                    if not future.done():
                        future.set_exception(error)
            # Let them take their answers before they are counted again.
            await asyncio.sleep(0)


class ToolTurns:
    """Rolls students with tools out and reads what they did.

    Args:
        options: The tools.
        builder: Of the student, with the options of its template.
        model_type: Of the student's configuration.

    Raises:
        GadConfigError: The tools cannot be loaded.
    """

    def __init__(self, options: ToolOptions, builder: SequenceBuilder, model_type: str | None) -> None:
        tools = load_tools({"function_tool_path": str(options.path.expanduser().absolute())})
        self.tools, self.options, self._model_type = tools, options, model_type
        self._trajectories = TrajectoryBuilder(builder, schemas_of(tools), options.limits, model_type)
        self._calls = CallReader(builder.tokenizer, options.form, tools)
        self._plain = builder
        self._masks: dict[tuple[int, int], list[int]] = {}

    def settings(self) -> dict[str, Any]:
        """What decides the trajectories beside the schemas, which the options of the template hold."""
        code = hashlib.sha256(self.options.path.expanduser().read_bytes()).hexdigest()[:16]
        return {"format": self.options.form, "file": code, **asdict(self.options.limits)}

    @property
    def builder(self) -> SequenceBuilder:
        """Renders prompts with the tools."""
        return self._trajectories.student

    def described(self, rows: Sequence[Row]) -> list[Row]:
        """Rows whose teacher's text is the whole trajectory as the student's is shown, from its messages."""
        found = []
        for row in rows:
            teacher = self._trajectories.teacher(row.messages, messages_of(row.teacher), row.teacher_finished)
            found.append(replace(row, teacher=self.builder.student_text(teacher.token_ids)[0]))
        return found

    def run(self, engine: Engine, jobs: Sequence[Job], rows: Sequence[Row]) -> Iterator[tuple[Job, list[int]]]:
        """Token ids of each trajectory, results included."""
        for start in range(0, len(jobs), _AT_ONCE):
            batch = jobs[start : start + _AT_ONCE]
            for job, (ids, mask) in zip(batch, asyncio.run(self._roll_out(engine, batch, rows)), strict=True):
                self._masks[job.prompt, job.sample] = mask
                yield job, ids

    async def _roll_out(
        self, engine: Engine, jobs: Sequence[Job], rows: Sequence[Row]
    ) -> list[tuple[list[int], list[int]]]:
        from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
        from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop

        class NamedLoop(ToolAgentLoop):
            """Whose requests bear the name of their job."""

            @staticmethod
            def _make_request_id(priority: int, full_determinism: bool) -> str:
                return str(priority)

        config = OmegaConf.create(self._rollout_config())
        servers = _Servers(engine, self.builder.max_response_length)

        async def one(number: int, job: Job) -> tuple[list[int], list[int]]:
            loop = NamedLoop(
                DictConfigWrap(config=config),
                servers,
                self.builder.tokenizer,
                None,
                object,
                DictConfigWrap(config=config.data),
                hf_model_type=self._model_type,
                tools=ToolListWrap(self.tools),
            )
            servers.jobs[str(number)] = job
            try:
                messages = [dict(message) for message in rows[job.prompt].messages]
                output = await loop.run({}, raw_prompt=messages, priority=number)
                return output.response_ids, output.response_mask
            finally:
                servers.running -= 1

        servers.running = len(jobs)
        serving = asyncio.create_task(servers.serve())
        try:
            return list(await asyncio.gather(*(one(number, job) for number, job in enumerate(jobs))))
        finally:
            servers.running = 0
            await serving

    def _rollout_config(self) -> dict[str, Any]:
        rollout = {
            "prompt_length": self.builder.max_prompt_length,
            "response_length": self.builder.max_response_length,
            "full_determinism": False,
            "multi_turn": {**vars(self.options.limits), "format": self.options.form},
        }
        data = {"apply_chat_template_kwargs": self._plain.chat_template_kwargs}
        return {"actor_rollout_ref": {"rollout": rollout}, "data": data}

    def read(self, job: Job, token_ids: Sequence[int]) -> Turns:
        """What a trajectory consists of."""
        mask = self._masks.pop((job.prompt, job.sample))
        turns = turns_of(token_ids, mask)
        counts = self._calls.count(turns)
        text, ended = self.builder.student_text(token_ids)
        return Turns(
            text=text,
            finished=ended and bool(mask[-1]) and counts[-1].parsed == 0,
            turns=len(turns),
            calls=sum(count.calls for count in counts),
            invalid_calls=sum(count.invalid for count in counts),
            mask=mask,
        )


def check_alone(options: ToolOptions | None, thoughts: object, teacher: object) -> None:
    """Raise GadConfigError for what an evaluation with tools cannot do."""
    if options is not None and thoughts is not None:
        raise GadConfigError("--tools with a student whose thoughts are hidden: take --thinking none")
    if options is not None and teacher is not None:
        raise GadConfigError(
            "--tools with --teacher-model: probabilities of trajectories are not measured; leave it out"
        )
