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
"""The builders of a run: the trainer's, and the same ones in every process that makes responses."""

from typing import Any

from omegaconf import DictConfig
from verl.utils.model import get_generation_config

from gad_verl.config import GadConfig
from gad_verl.data.answers import AnswerEncoder
from gad_verl.data.thinking import marks_of, without_thoughts
from gad_verl.data.thoughts import ThoughtReader
from gad_verl.data.tokens import SequenceBuilder, stop_token_ids


def has_own_tokenizer(config: DictConfig, gad: GadConfig) -> bool:
    """Whether the discriminator reads by another tokenizer than the student's."""
    return gad.has_discriminator and config.discriminator.model.path != config.actor_rollout_ref.model.path


def answer_encoder(config: DictConfig, gad: GadConfig, tokenizer: Any, other: Any | None) -> AnswerEncoder:
    """What reads the student's responses in a run.

    Args:
        config: The whole configuration.
        gad: Its section ``gad``.
        tokenizer: The student's.
        other: The discriminator's; None where it reads by the student's.
    """
    data, model = config.data, config.actor_rollout_ref.model
    template_kwargs = dict(data.get("apply_chat_template_kwargs", {}) or {})
    lengths = (data.max_prompt_length, gad.longest_answer(data.max_response_length))
    generation = get_generation_config(model.path, trust_remote_code=model.get("trust_remote_code", False))
    student = reader = SequenceBuilder(tokenizer, *lengths, stop_token_ids(tokenizer, generation), template_kwargs)
    if other is not None:
        reader = SequenceBuilder(other, *lengths, None, template_kwargs)
    if not gad.thinking.hides:
        return AnswerEncoder(student, reader)
    thoughts = ThoughtReader(student, marks_of(gad.thinking, tokenizer.chat_template))
    return AnswerEncoder(student, without_thoughts(reader, thoughts.marks), thoughts)
