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
"""verl's single-turn agent loop, which also encodes its response as the discriminator will read it.

A response costs the trainer's process nothing then but the copying of its ids (``gad_verl.data.answers``).
"""

import copy
from typing import Any

import torch
from omegaconf import DictConfig
from pydantic import PrivateAttr
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.utils.config import omega_conf_to_dataclass

from gad_verl.config import load_gad_config
from gad_verl.data.answers import ENCODED, AnswerEncoder, pack_answer
from gad_verl.data.builders import answer_encoder, has_own_tokenizer

# Of this process, with the configuration that it was made for: each rollout has an agent loop of its own.
_made: list[tuple[DictConfig, AnswerEncoder]] = []


def encoder_of(config: DictConfig, tokenizer: Any) -> AnswerEncoder:
    """What reads the responses of a run, made once in a process.

    Args:
        config: The whole configuration.
        tokenizer: The student's.
    """
    if not _made or _made[0][0] is not config:
        gad = load_gad_config(config)
        other = (
            omega_conf_to_dataclass(config.discriminator).model.tokenizer if has_own_tokenizer(config, gad) else None
        )
        # A copy: whether special tokens are split is a state of a tokenizer, and verl renders prompts by this one in
        # other threads.
        _made[:] = [(config, answer_encoder(config, gad, copy.deepcopy(tokenizer), other))]
    return _made[0][1]


class EncodedOutput(AgentLoopOutput):
    """verl's output with one more column."""

    _encoded: torch.Tensor = PrivateAttr()

    @classmethod
    def of(cls, output: AgentLoopOutput, encoder: AnswerEncoder) -> "EncodedOutput":
        """The same output, encoded."""
        # Its fields have been checked.
        encoded = cls.model_construct(_fields_set=set(output.model_fields_set), **output.__dict__)
        answer = encoder.encode(output.prompt_ids, output.response_ids)
        encoded._encoded = pack_answer(answer, output.response_ids)
        return encoded

    def as_dict(self) -> dict[str, Any]:
        """The columns of its trajectory."""
        return {**super().as_dict(), ENCODED: self._encoded}


class EncodingAgentLoop(SingleTurnAgentLoop):
    """One answer to each prompt, encoded for the discriminator."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.encoder = encoder_of(self.config, self.tokenizer)

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> AgentLoopOutput:
        return EncodedOutput.of(await super().run(sampling_params, priority, **kwargs), self.encoder)
