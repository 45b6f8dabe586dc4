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
"""The agent loop that encodes its answer, with rollout servers that are scripted."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig
from tiny_model import build_other_model, build_tokenizer
from transformers import AutoTokenizer
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, DictConfigWrap, _agent_loop_registry
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.workers.rollout.replica import TokenOutput

from gad_verl.data.answers import ENCODED, ENCODED_TEACHER, unpack_answer, unpack_teacher
from gad_verl.data.thinking import AGENT_LOOP, CHAT, settled_config
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.rollout.encoding_agent import EncodingAgentLoop, encoder_of

TOKENIZER = build_tokenizer()
BUILDER = SequenceBuilder(TOKENIZER, 64, 64)
# A special token that is spelled out in the text.
TEACHER = "another <|im_end|> house"
SAYS = [*BUILDER.text_ids("a <|im_end|> house"), BUILDER.eos_token_id]


class Servers:
    async def generate(self, request_id: str, **_: Any) -> TokenOutput:
        return TokenOutput(token_ids=SAYS, log_probs=[-1.0] * len(SAYS), num_preempted=1, extra_fields={"a": 1})


def answered(kind: type[SingleTurnAgentLoop], config: DictConfig, session: int = 0) -> AgentLoopOutput:
    async def run() -> AgentLoopOutput:
        data = DictConfigWrap(config=config.data)
        loop = kind(DictConfigWrap(config=config), Servers(), TOKENIZER, None, object, data)
        row = {"index": 0, "teacher_response": TEACHER, "extra_info": {}, "session_id": session}
        return await loop.run({"temperature": 1.0}, raw_prompt=list(CHAT), priority=0, **row)

    return asyncio.run(run())


def plain(columns: dict[str, Any]) -> dict[str, Any]:
    found = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in columns.items()}
    # Seconds, which no two calls share.
    return {name: value for name, value in found.items() if name != "metrics"}


@pytest.mark.parametrize("other", [False, True])
def test_a_trajectory_has_the_answer_as_the_discriminator_reads_it(
    tiny_config: DictConfig, tmp_path: Path, other: bool
) -> None:
    reader = BUILDER
    if other:
        tiny_config.discriminator.model.path = str(build_other_model(tmp_path / "other"))
        limits = tiny_config.data.max_prompt_length, tiny_config.data.max_response_length
        reader = SequenceBuilder(AutoTokenizer.from_pretrained(tmp_path / "other"), *limits)
    output = answered(EncodingAgentLoop, tiny_config)
    columns = output.as_dict()
    found = unpack_answer(columns.pop(ENCODED), SAYS, hides_thoughts=False)
    builder = SequenceBuilder(TOKENIZER, tiny_config.data.max_prompt_length, tiny_config.data.max_response_length)
    assert found.encoded == builder.student_response(SAYS, reader if other else builder)
    # The teacher's text comes with the first session alone.
    brought = [unpack_teacher(answered(EncodingAgentLoop, tiny_config, n).as_dict()[ENCODED_TEACHER]) for n in (0, 1)]
    assert brought == [builder.response_for(reader if other else builder, TEACHER), None]
    assert unpack_teacher(columns.pop(ENCODED_TEACHER)) == brought[0]
    # The rest is verl's.
    assert plain(columns) == plain(answered(SingleTurnAgentLoop, tiny_config).as_dict())
    # verl writes into it what it learns later.
    output.reward_score = 0.5
    assert output.as_dict()["rm_scores"].sum() == 0.5


def test_verls_tokenizer_is_left_alone(tiny_config: DictConfig) -> None:
    # verl renders prompts by it in other threads, where a special token has to stay one.
    encoder = encoder_of(tiny_config, TOKENIZER)
    assert encoder.student.tokenizer is not TOKENIZER and encoder_of(tiny_config, TOKENIZER) is encoder
    TOKENIZER("x", split_special_tokens=False)
    answered(EncodingAgentLoop, tiny_config)
    assert not TOKENIZER.backend_tokenizer.encode_special_tokens


def test_a_run_gets_it_in_the_place_of_verls(tiny_config: DictConfig) -> None:
    agent = tiny_config.actor_rollout_ref.rollout.agent
    settled_config(tiny_config)
    assert agent.default_agent_loop == AGENT_LOOP
    settled_config(tiny_config)
    assert agent.default_agent_loop == AGENT_LOOP
    agent.default_agent_loop = "tool_agent"
    settled_config(tiny_config)
    assert agent.default_agent_loop == "tool_agent"
    module, _, name = _agent_loop_registry[AGENT_LOOP]["_target_"].rpartition(".")
    assert (module, name) == (EncodingAgentLoop.__module__, EncodingAgentLoop.__name__)
