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
"""The agent loop that keeps a budget of thoughts, with rollout servers that are scripted."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig
from tiny_model import build_tokenizer
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, DictConfigWrap, _agent_loop_registry
from verl.workers.rollout.replica import TokenOutput

from gad_verl.data.thinking import CHAT, THINKING_AGENT_LOOP, USUAL_MARKS
from gad_verl.data.thoughts import ThoughtReader
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.rollout.thinking_agent import BudgetedServer, ThinkingAgentLoop

TOKENIZER = build_tokenizer()
BUILDER = SequenceBuilder(TOKENIZER, 400, 400)
READER = ThoughtReader(BUILDER, USUAL_MARKS)
PROMPT = BUILDER.prompt(CHAT)
LIMIT = 60


@dataclass
class Servers:
    """A student that would say ``says``, and answers when its thoughts are ended for it."""

    says: list[int]
    answer: list[int]
    logprobs: bool = True
    asked: list[tuple[list[int], int]] = field(default_factory=list)

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        most = sampling_params.pop("max_tokens")
        self.asked.append((prompt_ids, most))
        begun = prompt_ids[len(PROMPT) :]
        rest = self.says[len(begun) :] if begun == self.says[: len(begun)] else self.answer
        ids = rest[:most]
        log_probs = [-1.0] * len(ids) if self.logprobs else None
        steps = {"min_global_steps": len(self.asked), "max_global_steps": len(self.asked)}
        return TokenOutput(token_ids=ids, log_probs=log_probs, num_preempted=1, extra_fields=steps)


def ids_of(text: str) -> list[int]:
    return BUILDER.marked_ids(text)


def finished(text: str) -> list[int]:
    return [*ids_of(text), BUILDER.eos_token_id]


def asked_of(servers: Any, budget: int) -> tuple[TokenOutput, range, dict[str, Any]]:
    server, params = BudgetedServer(servers, READER, budget, LIMIT), {"temperature": 1.0}
    output = asyncio.run(server.generate("one", prompt_ids=list(PROMPT), sampling_params=params))
    return output, server.forced, params


@given(st.integers(0, 40), st.integers(1, 12), st.integers(9, 40), st.booleans())
def test_a_response_within_its_budget_is_what_it_would_be_without_one(
    thoughts: int, answer: int, budget: int, logprobs: bool
) -> None:
    says = finished(f"<think>{'x' * thoughts}</think>\n\n{'y' * answer}")
    servers = Servers(says, finished("z"), logprobs)
    output, forced, params = asked_of(servers, budget)
    assert params == {"temperature": 1.0}
    num_thoughts = len("<think></think>") + thoughts
    if budget >= num_thoughts:
        # Cut after its thoughts it goes on in a second request.
        assert output.token_ids == says[:LIMIT] and not forced
        assert len(servers.asked) == (1 if len(says) <= budget else 2)
    else:
        ending = ids_of("\n</think>\n\n")
        assert output.token_ids == [*says[:budget], *ending, *finished("z")][:LIMIT]
        assert list(forced) == list(range(budget, min(LIMIT, budget + len(ending))))
        read = READER.read(PROMPT, output.token_ids)
        assert read.answer_ids == finished("z")
    assert len(output.token_ids) <= LIMIT
    assert (output.log_probs is not None) == logprobs
    if output.log_probs is not None:
        assert len(output.log_probs) == len(output.token_ids)
        assert {output.log_probs[place] for place in forced} <= {0.0}
    # A response began with the weights of its first request, and counts both.
    assert output.extra_fields == {"min_global_steps": 1, "max_global_steps": len(servers.asked)}
    assert output.num_preempted == len(servers.asked)


def test_no_room_for_an_answer_leaves_thoughts_as_they_are() -> None:
    servers = Servers(ids_of("<think>" + "x" * 100), finished("z"))
    output, forced, _ = asked_of(servers, LIMIT - 5)
    assert len(output.token_ids) == LIMIT - 5 and not forced and len(servers.asked) == 1


def test_thoughts_that_ended_at_the_budget_are_not_asked_on() -> None:
    says = finished("<think>ab")
    output, forced, _ = asked_of(Servers(says, finished("z")), len(says))
    assert output.token_ids == says and not forced


@pytest.mark.parametrize("thinks", [True, False])
def test_the_agent_loop_masks_what_the_student_did_not_choose(tiny_config: DictConfig, thinks: bool) -> None:
    tiny_config.gad.thinking.mode, tiny_config.gad.thinking.budget = "hidden", 20
    says = ids_of("<think>" + "x" * 100) if thinks else finished("y")

    async def run() -> AgentLoopOutput:
        loop = ThinkingAgentLoop(
            DictConfigWrap(config=tiny_config),
            Servers(says, finished("z")),
            TOKENIZER,
            None,
            object,
            DictConfigWrap(config=tiny_config.data),
        )
        return await loop.run({"temperature": 1.0}, raw_prompt=list(CHAT), priority=0)

    output = asyncio.run(run())
    assert output.prompt_ids == PROMPT and len(output.response_mask) == len(output.response_ids)
    chosen = [token for token, mask in zip(output.response_ids, output.response_mask, strict=True) if mask]
    assert chosen == ([*says[:20], *finished("z")] if thinks else says)
    assert len(output.response_ids) - len(chosen) == (len(ids_of("\n</think>\n\n")) if thinks else 0)


def test_verl_knows_the_agent_loop_by_its_name() -> None:
    module, _, name = _agent_loop_registry[THINKING_AGENT_LOOP]["_target_"].rpartition(".")
    assert (module, name) == (ThinkingAgentLoop.__module__, ThinkingAgentLoop.__name__)
