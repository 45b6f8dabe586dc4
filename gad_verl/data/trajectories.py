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
"""Trajectories as tokens: turns of the assistant, and between them what the template and the tools put in.

Both sides are made of the same pieces. A turn is encoded from its text by the one function for all responses
(``SequenceBuilder.response``). What stands between turns the rollout has put together by verl's continuous-token
builder; of a teacher's messages the same builder puts the same together.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from omegaconf import DictConfig
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from gad_verl.config import GadConfig
from gad_verl.data.reading import one_line
from gad_verl.data.tokens import EncodedResponse, Messages, SequenceBuilder
from gad_verl.data.tools import ToolLimits, load_tools, schemas_of
from gad_verl.data.trajectory_messages import ASSISTANT, TOOL, Message
from gad_verl.errors import GadConfigError, GadDataError

# What the discriminator reads in the place of all results, with gad.trajectory.hide_context.
HIDDEN_RESULT = "(hidden)"
_MOST_REMEMBERED = 4096


@dataclass(frozen=True)
class Trajectory(EncodedResponse):
    """A trajectory behind its prompt.

    Args:
        token_ids: Turns of the assistant and what stands between them; it ends with a turn.
        finished: Whether the assistant ended it by a turn that calls nothing.
        cut: Whether it ends without EOS.
        mask: 1 for each token of the assistant, 0 for the others.
    """

    mask: list[int]

    @property
    def own_ids(self) -> list[int]:
        return [token for token, own in zip(self.token_ids, self.mask, strict=True) if own]

    @property
    def ends(self) -> list[int]:
        """Positions of the last token of each turn of the assistant."""
        return turn_ends(self.mask)


def turn_ends(mask: Sequence[int]) -> list[int]:
    """Positions of the last token of each turn of the assistant."""
    return [place for place, own in enumerate(mask) if own and (place + 1 == len(mask) or not mask[place + 1])]


def turns_of(ids: Sequence[int], mask: Sequence[int]) -> list[list[int]]:
    """Token ids of each turn of the assistant."""
    return [piece for own, piece in segments(ids, mask) if own]


def segments(ids: Sequence[int], mask: Sequence[int]) -> list[tuple[bool, list[int]]]:
    """A response in pieces: whether the assistant wrote it, and its ids."""
    parts = groupby(zip(mask, ids, strict=True), key=lambda pair: bool(pair[0]))
    return [(own, [token for _, token in pairs]) for own, pairs in parts]


class TrajectoryBuilder:
    """Builds trajectories of both sides.

    Args:
        student: Builder of the student's tokenizer, without the tools.
        schemas: Tools that the template is shown (:func:`gad_verl.data.tools.schemas_of`).
        limits: Of verl's agent loop.
        model_type: Of the student's configuration; verl's builder goes by it.
        hide_context: ``gad.trajectory.hide_context``.

    Raises:
        GadConfigError: verl has no builder for the tokenizer.
    """

    def __init__(
        self,
        student: SequenceBuilder,
        schemas: Sequence[dict[str, Any]],
        limits: ToolLimits,
        model_type: str | None,
        hide_context: bool = False,
    ) -> None:
        self.schemas, self.limits, self.hide_context = list(schemas), limits, hide_context
        # Renders prompts as the rollout is asked.
        self.student = student.with_option("tools", self.schemas)
        try:
            self._rollout = create_continuous_token_builder(
                student.tokenizer, hf_model_type=model_type, chat_template_kwargs=student.chat_template_kwargs
            )
        except ValueError as error:
            raise GadConfigError(
                f"gad.trajectory.enable=True: verl builds no trajectories with this tokenizer: {one_line(error)}"
            ) from None
        self._end = student.decode([student.eos_token_id])
        self._remembered: dict[tuple[str, str], Trajectory] = {}

    # ------------------------------ the teacher's side ------------------------------

    def teacher(self, prompt: Messages, messages: Sequence[Message], finished: bool = True) -> Trajectory:
        """The trajectory that a rollout with these messages would be.

        Args:
            prompt: Before it.
            messages: Of :func:`gad_verl.data.trajectory_messages.normal_messages`.
            finished: Whether the author ended the last turn.

        Raises:
            GadDataError: The template does not render them as a rollout would go.
        """
        key = json.dumps([list(map(dict, prompt)), finished]), json.dumps(messages)
        if key not in self._remembered:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = self._walk(prompt, messages, finished)
        return self._remembered[key]

    def _walk(self, prompt: Messages, messages: Sequence[Message], finished: bool) -> Trajectory:
        limit = self.student.max_response_length
        history: list[Message] = [dict(message) for message in prompt]
        runtime, mask = self.student.prompt(prompt), list[int]()
        rest, turns = list(messages), 0
        while True:
            message, rest = rest[0], rest[1:]
            turn = self.student.response(self.turn_text(history, message), finished or bool(rest), limit - len(mask))
            merged = self._rollout.merge_assistant_tokens(runtime, turn.token_ids)
            mask, _ = self._rollout.align_response_metadata(merged, mask)
            runtime = merged.token_ids
            history, turns = [*history, message], turns + 1
            if turn.cut or not rest or len(mask) >= limit or self.limits.end_turns(turns):
                return self._ended(runtime[len(runtime) - len(mask) :], mask, not rest and not turn.cut)
            count = next((at for at, one in enumerate(rest) if one["role"] != TOOL), len(rest))
            results = [
                {"role": TOOL, "content": self.limits.cut_result(one["content"])}
                for one in rest[: min(count, self.limits.max_parallel_calls)]
            ]
            merged = self._merge(history, results, runtime)
            grown, _ = self._rollout.align_response_metadata(merged, mask)
            if len(grown) >= limit:
                # As verl: no room for another turn.
                return self._ended(runtime[len(runtime) - len(mask) :], mask, False)
            runtime, mask = merged.token_ids, grown
            history, rest = [*history, *results], rest[count:]

    def _ended(self, ids: list[int], mask: list[int], finished: bool) -> Trajectory:
        """A trajectory up to its last turn: a result behind which nothing is said is not read."""
        while mask and not mask[-1]:
            ids, mask = ids[:-1], mask[:-1]
        return Trajectory(ids, finished, ids[-1:] != [self.student.eos_token_id], mask)

    def _merge(self, history: list[Message], results: list[Message], runtime: list[int]) -> Any:
        try:
            return self._rollout.merge_context_tokens(history, [*history, *results], runtime, tools=self.schemas)
        except Exception as error:  # verl's, and whatever a template raises
            raise GadDataError(f"verl cannot put the result of a tool behind its call: {one_line(error)}") from None

    def turn_text(self, history: Sequence[Message], message: Message) -> str:
        """What the assistant writes for a message: calls as the template writes them, without the end of the turn.

        Args:
            history: The messages before it.
            message: The assistant's.

        Raises:
            GadDataError: The template writes it otherwise than a rollout could go.
        """
        before = self.student.render(history)
        try:
            whole = self.student.tokenizer.apply_chat_template(
                [*history, message], tokenize=False, **self.student.chat_template_kwargs
            )
        except Exception as error:  # Jinja's, and whatever a template raises
            raise GadDataError(f"the chat template refuses a message of the assistant: {one_line(error)}") from None
        written, end, after = whole[len(before) :].rpartition(self._end)
        if not whole.startswith(before) or not end or after.strip():
            raise GadDataError(
                "the chat template does not write a turn of the assistant behind its generation prompt and up to "
                f"{self._end!r}, the tokenizer's EOS: a rollout could not have written it. Another "
                "actor_rollout_ref.model.custom_chat_template can"
            )
        return written

    # ------------------------------ the student's side ------------------------------

    def own(self, ids: Sequence[int], mask: Sequence[int], finished: bool) -> Trajectory:
        """A rollout as the discriminator reads it.

        Args:
            ids, mask: As the agent loop returned them.
            finished: Whether the last turn calls nothing.
        """
        limit, parts = self.student.max_response_length, segments(ids, mask)
        found, own_mask, ended = list[int](), list[int](), False
        for number, (own, piece) in enumerate(parts):
            if not own:
                if len(found) + len(piece) >= limit:
                    break
                found, own_mask = found + piece, own_mask + [0] * len(piece)
                continue
            turn = self.student.response(*self.student.student_text(piece), limit - len(found))
            found, own_mask = found + turn.token_ids, own_mask + [1] * len(turn.token_ids)
            ended = number == len(parts) - 1 and not turn.cut
            if len(found) >= limit:
                break
        return self._ended(found, own_mask, ended and finished)

    # ------------------------------ what the discriminator reads ------------------------------

    @cached_property
    def _hidden_context(self) -> list[int]:
        call = {"type": "function", "function": {"name": self.schemas[0]["function"]["name"], "arguments": {}}}
        history: list[Message] = [
            {"role": "user", "content": ""},
            {"role": ASSISTANT, "content": "", "tool_calls": [call]},
        ]
        runtime = [self.student.eos_token_id]
        merged = self._merge(history, [{"role": TOOL, "content": HIDDEN_RESULT}], runtime)
        return merged.token_ids[len(runtime) - merged.removed_prefix_token_count :]

    def shown(self, trajectory: Trajectory) -> Trajectory:
        """A trajectory as the discriminator reads it: with one result in the place of all, if results are hidden."""
        if not self.hide_context:
            return trajectory
        ids, mask = list[int](), list[int]()
        for own, piece in segments(trajectory.token_ids, trajectory.mask):
            shown = piece if own else self._hidden_context
            ids, mask = ids + shown, mask + [int(own)] * len(shown)
        return Trajectory(ids, trajectory.finished, trajectory.cut, mask)


def trajectory_builder(config: DictConfig, gad_config: GadConfig, student: SequenceBuilder) -> TrajectoryBuilder:
    """Of a whole configuration.

    Args:
        config: The whole configuration.
        gad_config: Its section ``gad``.
        student: With the student's tokenizer and the run's options of its template.

    Raises:
        GadConfigError: There are no tools, or verl has no builder for the tokenizer.
    """
    from transformers import AutoConfig

    model, multi_turn = config.actor_rollout_ref.model, config.actor_rollout_ref.rollout.multi_turn
    hf_config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.get("trust_remote_code", False))
    return TrajectoryBuilder(
        student,
        schemas_of(load_tools(multi_turn)),
        ToolLimits.of(multi_turn),
        getattr(hf_config, "model_type", None),
        gad_config.trajectory.hide_context,
    )
