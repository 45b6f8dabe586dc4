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
"""Trajectories before a run: whether a rollout could be what the teacher's rows are, and nothing gives a side away."""

import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.config.checks import require
from gad_verl.data.file_stamps import file_list
from gad_verl.data.reading import BadRow, open_file
from gad_verl.data.thinking import CHAT, OPTIONS, opens_thoughts, thinking_switch
from gad_verl.data.tokenizer import load_tokenizer
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.data.tools import MULTI_TURN, CallReader, fits_schema, load_tools
from gad_verl.data.trajectories import TrajectoryBuilder, trajectory_builder
from gad_verl.data.trajectory_messages import messages_of, tool_schemas, trajectory_texts
from gad_verl.errors import GadDataError

logger = logging.getLogger(__name__)

TOOLS_COLUMN = "tools"
_SELECTION = "tool_selection"


def check_trajectories(config: DictConfig, gad_config: GadConfig) -> None:
    """Check tools, templates and every row, where ``gad.trajectory.enable`` asks for trajectories.

    Raises:
        GadConfigError: Names the key and the remedy.
        GadDataError: Names the file, the row and the column, and the remedy.
    """
    if not gad_config.trajectory.enable:
        return
    data, key = config.data, "actor_rollout_ref.model"
    tokenizer = load_tokenizer(key, config.actor_rollout_ref.model)
    options = dict(data.get(OPTIONS, {}) or {})
    student = SequenceBuilder(tokenizer, data.max_prompt_length, data.max_response_length, chat_template_kwargs=options)
    builder = trajectory_builder(config, gad_config, student)
    CallReader(tokenizer, config.actor_rollout_ref.rollout.multi_turn.format, load_tools(_multi_turn(config)))
    require(
        student.render(CHAT) != builder.student.render(CHAT),
        f"gad.trajectory.enable=True, but the chat template of {key} does not show the student its tools: set "
        f"{key}.custom_chat_template to one that does",
    )
    require(
        not opens_thoughts(student.render(CHAT)) and thinking_switch(student) is None,
        "gad.trajectory.enable=True with a student that thinks: the teacher's turns show no thoughts, by which the "
        "discriminator would know them. Set gad.thinking.mode=off",
    )
    if gad_config.has_discriminator:
        _check_reader(config, tokenizer)
    rows = _Rows(config, gad_config, builder)
    for path in dict.fromkeys([*file_list(data.train_files), *file_list(data.val_files)]):
        rows.check_file(path)
    rows.report()


def _multi_turn(config: DictConfig) -> Any:
    return config.actor_rollout_ref.rollout.multi_turn


def _check_reader(config: DictConfig, tokenizer: Any) -> None:
    judge = config.discriminator.model
    if judge.path == config.actor_rollout_ref.model.path:
        return
    other = load_tokenizer("discriminator.model", judge)
    require(
        other.get_vocab() == tokenizer.get_vocab(),
        f"gad.trajectory.enable=True: the discriminator reads the student's tokens, but discriminator.model.path="
        f"{judge.path} has another vocabulary; take a model of the student's family",
    )


class _Rows:
    """Looks at the rows one after another, and sums up what is cut."""

    def __init__(self, config: DictConfig, gad_config: GadConfig, builder: TrajectoryBuilder) -> None:
        self._prompt_key, self._key = config.data.prompt_key, gad_config.teacher_key
        self._overlong, self._builder = gad_config.teacher_overlong, builder
        self._rows = self._cut = self._results = self._unknown = 0
        self._first_unknown = ""

    def check_file(self, path: str) -> None:
        source = open_file(path)
        columns = [name for name in (TOOLS_COLUMN, "extra_info") if name in source.columns]
        for number, row in enumerate(source.rows([self._prompt_key, self._key, *columns])):
            if isinstance(row, BadRow):
                raise GadDataError(row.message)
            self._check(row, f"{path}, row {number}")

    def _check(self, row: Mapping[str, Any], where: str) -> None:
        extra = row.get("extra_info")
        if isinstance(extra, Mapping) and extra.get(_SELECTION) is not None:
            raise GadDataError(
                f"{where}: extra_info.{_SELECTION} chooses tools for a row, which is not supported with "
                "gad.trajectory.enable: every prompt is shown all tools of the run. Leave it out"
            )
        self._check_tools(row, where)
        for text in trajectory_texts(row[self._key], f"{where}, column {self._key!r}"):
            self._check_one(row[self._prompt_key], messages_of(text), f"{where}, column {self._key!r}")

    def _check_tools(self, row: Mapping[str, Any], where: str) -> None:
        shown = {one["function"]["name"] for one in self._builder.schemas}
        offered = {
            one["function"]["name"] for one in tool_schemas(row.get(TOOLS_COLUMN), f"{where}, column {TOOLS_COLUMN!r}")
        }
        if offered and offered != shown:
            raise GadDataError(
                f"{where}, column {TOOLS_COLUMN!r}: the teacher was offered the tools {', '.join(sorted(offered))}, "
                f"the student is offered {', '.join(sorted(shown))}: name the same ones in "
                f"{MULTI_TURN}.function_tool_path, or leave the row out"
            )

    def _check_one(self, prompt: Any, messages: list[dict[str, Any]], where: str) -> None:
        limits, builder = self._builder.limits, self._builder
        most = max(len(message.get("tool_calls", ())) for message in messages)
        if most > limits.max_parallel_calls:
            raise GadDataError(
                f"{where}: the teacher makes {most} calls in one turn, of which a rollout would get "
                f"{limits.max_parallel_calls} answered: raise {MULTI_TURN}.max_parallel_calls"
            )
        self._rows += 1
        try:
            trajectory = builder.teacher(prompt, messages)
            history = list(prompt)
            for message in messages:
                if message["role"] == "assistant":
                    self._check_marks(builder.turn_text(history, message), message)
                history.append(message)
        except GadDataError as error:
            raise GadDataError(f"{where}: {error}") from None
        self._cut += not trajectory.finished
        if not trajectory.finished and self._overlong == "error":
            raise GadDataError(
                f"{where}: the trajectory is longer than data.max_response_length="
                f"{builder.student.max_response_length}, or has more turns than {MULTI_TURN}.max_assistant_turns: "
                "raise the limit, or set gad.teacher_overlong=cut"
            )
        for message in messages:
            if message["role"] == "tool":
                self._results += limits.cut_result(message["content"]) != message["content"]
            for call in message.get("tool_calls", ()):
                if not fits_schema(call["function"]["name"], call["function"]["arguments"], builder.schemas):
                    self._unknown += 1
                    self._first_unknown = self._first_unknown or f"{where}: {call['function']}"

    def _check_marks(self, text: str, message: Mapping[str, Any]) -> None:
        student = self._builder.student
        if message.get("tool_calls") and message["content"] not in text:
            raise GadDataError(
                "the chat template leaves out what the assistant says beside a call; a rollout would keep it. Remove "
                "the content of the message, or set actor_rollout_ref.model.custom_chat_template"
            )
        said = student.marked_ids(message["content"]) != student.text_ids(message["content"])
        if message.get("tool_calls") and not said and student.marked_ids(text) != student.text_ids(text):
            raise GadDataError(
                "the chat template writes calls with special tokens, which are not supported in trajectories: they are "
                "taught as text. Set actor_rollout_ref.model.custom_chat_template to one that writes them in words"
            )

    def report(self) -> None:
        """Say what of the rows will be cut, and what the student's tools would not take."""
        if self._cut:
            logger.warning(
                "%d of %d trajectories are longer than rollouts may be (data.max_response_length, "
                "%s.max_assistant_turns) and are cut where a rollout would be",
                *(self._cut, self._rows, MULTI_TURN),
            )
        if self._results:
            logger.info(
                "%d results of the teacher's tools are cut as the student's are (%s.max_tool_response_length=%d)",
                *(self._results, MULTI_TURN, self._builder.limits.max_tool_response_length),
            )
        if self._unknown:
            logger.warning(
                "%d calls of the teacher are none that the student's tools take (first: %s): the student would learn "
                "them and get an error",
                *(self._unknown, self._first_unknown),
            )
