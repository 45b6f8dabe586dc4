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
"""Prompts as the chat template renders them: whether it can, and whether what is asked is in it."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.data.reading import BadRow, open_file
from gad_verl.data.tokenizer import load_tokenizer
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadDataError

logger = logging.getLogger(__name__)


def _squeezed(text: str) -> str:
    """Without white space: templates strip texts, and some join lines."""
    return "".join(text.split())


def _where(path: str, number: int, key: str) -> str:
    return f"{path}, row {number}, column {key!r}"


class RenderedPrompts:
    """Renders the prompts of files by one model's template.

    Args:
        key: Of the model in the configuration, for messages.
        builder: With its tokenizer and the options of its template.
    """

    def __init__(self, key: str, builder: SequenceBuilder) -> None:
        self._key = key
        self.builder = builder
        self._lost: dict[str, str] = {}

    def check_file(self, path: str, prompt_key: str) -> None:
        """Render every prompt of a file.

        Raises:
            GadDataError: Names the file, the row and the column, what the template says, and the remedy.
        """
        for number, messages in enumerate(_prompts(path, prompt_key)):
            self.check(messages, _where(path, number, prompt_key))

    def check(self, messages: Sequence[Mapping[str, Any]], where: str) -> None:
        """Render one prompt.

        Raises:
            GadDataError: The template refuses it, or leaves the last message out.
        """
        try:
            rendered = self.builder.render(messages)
        except GadDataError as error:
            raise GadDataError(
                f"{where}: {error} ({self._key}). Change the prompt (another role, turns that alternate), or set "
                f"{self._key}.custom_chat_template"
            ) from None
        squeezed = _squeezed(rendered)
        last = messages[-1]
        if not _shows(squeezed, last["content"]):
            raise GadDataError(
                f"{where}: the chat template of {self._key} leaves the last message (role {last['role']!r}) out, so "
                f"nothing would be asked. Use the role 'user', or set {self._key}.custom_chat_template"
            )
        for message in messages[:-1]:
            # Templates drop the thoughts of earlier turns on purpose.
            said = message["content"].rpartition("</think>")[2]
            if message["role"] not in self._lost and not _shows(squeezed, said):
                self._lost[message["role"]] = where

    def warn(self) -> None:
        """Say which roles the template leaves out."""
        for role, where in self._lost.items():
            logger.warning(
                "the chat template of %s leaves messages of the role %r out or changes them (first: %s): neither the "
                "student nor the discriminator would see them",
                self._key,
                role,
                where,
            )


def _shows(squeezed: str, content: str) -> bool:
    """Whether a rendered prompt holds a content, as it is or as JSON, in which templates write results of tools."""
    as_json = (json.dumps(content, ensure_ascii=ascii_alone)[1:-1] for ascii_alone in (False, True))
    return any(_squeezed(text) in squeezed for text in (content, *as_json))


def _prompts(path: str, key: str) -> Iterator[Any]:
    for row in open_file(path).rows([key]):
        if isinstance(row, BadRow):
            raise GadDataError(row.message)
        yield row[key]


def prompt_readers(config: DictConfig, gad_config: GadConfig) -> Iterator[RenderedPrompts]:
    """The student's template, and the discriminator's where it is another."""
    data, student, judge = config.data, config.actor_rollout_ref.model, config.discriminator.model
    models = {"actor_rollout_ref.model": student}
    if gad_config.has_discriminator and judge.path != student.path:
        models["discriminator.model"] = judge
    options = dict(data.get("apply_chat_template_kwargs", {}) or {})
    for key, model in models.items():
        tokenizer = load_tokenizer(key, model)
        builder = SequenceBuilder(
            tokenizer, data.max_prompt_length, data.max_response_length, chat_template_kwargs=options
        )
        yield RenderedPrompts(key, builder)
