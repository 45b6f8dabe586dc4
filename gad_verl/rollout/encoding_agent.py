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

A response costs the trainer's process nothing then but the copying of its ids (``gad_verl.data.answers``). The first
session of a prompt encodes the teacher's text too.
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
from gad_verl.data.answers import ENCODED, ENCODED_TEACHER, AnswerEncoder, pack_answer, pack_teacher
from gad_verl.data.builders import answer_encoder, has_own_tokenizer
from gad_verl.data.tokens import EncodedResponse

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
    """verl's output with two more columns."""

    _encoded: torch.Tensor = PrivateAttr()
    _teacher: torch.Tensor = PrivateAttr()

    @classmethod
    def of(
        cls, output: AgentLoopOutput, encoder: AnswerEncoder, teacher: EncodedResponse | None = None
    ) -> "EncodedOutput":
        """The same output, encoded.

        Args:
            output: verl's.
            encoder: Of the run.
            teacher: The teacher's text, encoded; None if this session does not bring it.
        """
        # Its fields have been checked.
        encoded = cls.model_construct(_fields_set=set(output.model_fields_set), **output.__dict__)
        answer = encoder.encode(output.prompt_ids, output.response_ids)
        encoded._encoded = pack_answer(answer, output.response_ids)
        encoded._teacher = pack_teacher(teacher)
        return encoded

    def as_dict(self) -> dict[str, Any]:
        """The columns of its trajectory."""
        return {**super().as_dict(), ENCODED: self._encoded, ENCODED_TEACHER: self._teacher}


class EncodingAgentLoop(SingleTurnAgentLoop):
    """One answer to each prompt, encoded for the discriminator."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.encoder, self.teacher_key = encoder_of(self.config, self.tokenizer), str(self.config.gad.teacher_key)

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> AgentLoopOutput:
        output = await super().run(sampling_params, priority, **kwargs)
        is_first = kwargs.get("session_id") == 0
        teacher = self.encoder.encode_teacher(kwargs, self.teacher_key) if is_first else None
        return EncodedOutput.of(output, self.encoder, teacher)
