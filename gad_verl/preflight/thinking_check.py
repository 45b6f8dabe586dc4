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
"""Whether the student would think before it answers, which is not supported yet: said, not refused."""

import logging
from collections.abc import Iterator
from itertools import islice

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.data.file_stamps import file_list
from gad_verl.data.reading import BadRow, open_file
from gad_verl.data.schema import teacher_texts
from gad_verl.data.thinking import CHAT, opens_thoughts, thinking_switch
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadDataError

logger = logging.getLogger(__name__)

_MODEL = "actor_rollout_ref.model"
_OPTIONS = "data.apply_chat_template_kwargs"
_CLOSED = "</think>"
_ROWS = 100


def _first_texts(config: DictConfig, gad_config: GadConfig) -> Iterator[str]:
    path = file_list(config.data.train_files)[0]
    for row in islice(open_file(path).rows([gad_config.teacher_key]), _ROWS):
        if not isinstance(row, BadRow):
            yield from teacher_texts(row[gad_config.teacher_key], path)


def warn_of_thinking(config: DictConfig, gad_config: GadConfig, student: SequenceBuilder) -> None:
    """Say where the student's template lets it think, and the teacher's texts show no thoughts.

    Args:
        config: The whole configuration.
        gad_config: Its section ``gad``.
        student: With the student's tokenizer and the run's options of its template.
    """
    try:
        opened, switch = opens_thoughts(student.render(CHAT)), thinking_switch(student)
    except GadDataError:
        return
    if not opened and switch is None:
        return
    if any(_CLOSED in text for text in _first_texts(config, gad_config)):
        return
    if switch is not None:
        logger.warning(
            "the chat template of %s lets the student think before it answers, and the teacher's texts show no "
            "thoughts: supervised steps would teach it not to think, and the discriminator would tell both sides apart "
            "by the thoughts alone. Switch it off (+%s.%s=False); thinking students are not supported yet",
            _MODEL,
            _OPTIONS,
            switch,
        )
        return
    logger.warning(
        "the chat template of %s opens the student's thoughts in the prompt (%r), and the teacher's texts show none: "
        "supervised steps would teach it to answer inside of its thoughts. Set %s.custom_chat_template to one that "
        "opens none, or take another student; thinking students are not supported yet",
        _MODEL,
        student.render(CHAT)[-20:],
        _MODEL,
    )
