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
"""What becomes of a student's thoughts, and whether that fits its template and the teacher's texts."""

import logging
from collections.abc import Iterator
from itertools import islice

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.config.checks import require
from gad_verl.config.thinking import HIDDEN, NONE, OFF, OWN_THOUGHTS
from gad_verl.data.file_stamps import file_list
from gad_verl.data.reading import BadRow, open_file
from gad_verl.data.schema import teacher_texts
from gad_verl.data.thinking import CHAT, OPTIONS, Marks, marks_of, opens_thoughts, thinking_switch, without_thoughts
from gad_verl.data.thoughts import ThoughtReader
from gad_verl.data.tokenizer import load_tokenizer
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadDataError

logger = logging.getLogger(__name__)

_MODEL = "actor_rollout_ref.model"
_ROWS = 100


def check_thinking(config: DictConfig, gad_config: GadConfig) -> None:
    """Check the limits of thoughts and answers against verl's.

    Raises:
        GadConfigError: Names the keys and the remedy.
    """
    limit = int(config.data.max_response_length)
    longest, budget = gad_config.max_answer_length, gad_config.thinking.budget
    require(
        longest is None or longest <= limit,
        f"gad.max_answer_length={longest} is more than data.max_response_length={limit}, which holds thoughts and "
        "answer: lower one or raise the other",
    )
    require(
        budget is None or budget < limit,
        f"gad.thinking.budget={budget} leaves nothing of data.max_response_length={limit} for the answer: lower one or "
        "raise the other",
    )


def thinking_in_words(config: DictConfig, gad_config: GadConfig, student: SequenceBuilder) -> str:
    """What thinking does in a run, for people.

    Args:
        config: The whole configuration.
        gad_config: Its section ``gad``.
        student: With the student's tokenizer and the run's options of its template.

    Raises:
        GadDataError: The template refuses a chat.
    """
    thinking, rendered = gad_config.thinking, student.render(CHAT)
    if thinking.mode == OFF:
        options = OmegaConf.to_container(OmegaConf.create(config.data.get(OPTIONS, {}) or {}))
        return f"off: data.{OPTIONS}={options}"
    if thinking.mode == NONE:
        if opens_thoughts(rendered):
            return "none, but the template opens thoughts in the prompt"
        switch = thinking_switch(student)
        return "none" if switch is None else f"none, but the template lets the student think ({switch})"
    marks = marks_of(thinking, student.tokenizer.chat_template)
    opened = ", opened in the prompt" if ThoughtReader(student, marks).begins_inside(student.prompt(CHAT)) else ""
    budget = "" if thinking.budget is None else f", at most {thinking.budget} tokens"
    limits = f"answers of at most {gad_config.longest_answer(config.data.max_response_length)} tokens"
    own = thinking.warmup == OWN_THOUGHTS and gad_config.has_discriminator
    behind = "the student's own thoughts" if own else "an empty block"
    return f"hidden: {marks.open!r} .. {marks.close!r}{opened}{budget}; {limits}; texts are learned behind {behind}"


def thinking_of_run(config: DictConfig, gad_config: GadConfig) -> str:
    """:func:`thinking_in_words` of a configuration.

    Raises:
        GadConfigError, GadDataError: The student has no tokenizer, or its template refuses a chat.
    """
    data = config.data
    tokenizer = load_tokenizer(_MODEL, config.actor_rollout_ref.model)
    options = dict(data.get(OPTIONS, {}) or {})
    builder = SequenceBuilder(tokenizer, data.max_prompt_length, data.max_response_length, chat_template_kwargs=options)
    return thinking_in_words(config, gad_config, builder)


def look_at_thinking(config: DictConfig, gad_config: GadConfig, student: SequenceBuilder) -> None:
    """Say where template, teacher's texts and ``gad.thinking`` do not fit.

    Args:
        config: The whole configuration.
        gad_config: Its section ``gad``.
        student: With the student's tokenizer and the run's options of its template.

    Raises:
        GadConfigError: The teacher's texts show thoughts that the student's answers will not have.
    """
    if gad_config.trajectory.enable:
        # Their own check refuses a student that thinks.
        return
    try:
        rendered, switch = student.render(CHAT), thinking_switch(student)
    except GadDataError:
        # The prompts of the data say so.
        return
    thinking = gad_config.thinking
    marks = marks_of(thinking, student.tokenizer.chat_template)
    if thinking.mode == HIDDEN:
        _check_hidden(config, gad_config, student, marks)
    elif opens_thoughts(rendered) or switch is not None:
        if thinking.mode == NONE and not _teacher_thinks(config, gad_config, marks):
            _warn(rendered, switch)


def _check_hidden(config: DictConfig, gad_config: GadConfig, student: SequenceBuilder, marks: Marks) -> None:
    require(
        not _teacher_thinks(config, gad_config, marks, rows=None),
        f"gad.thinking.mode=hidden, and teacher texts of {', '.join(file_list(config.data.train_files))} show thoughts "
        f"({marks.close!r}): the discriminator would know the teacher by them. Take them off (gad-verl data normalize "
        "--strip-thinking)",
    )
    logger.info("thinking: %s", thinking_in_words(config, gad_config, student))
    logger.info("the discriminator's prompts end with %r", without_thoughts(student, marks).render(CHAT)[-40:])
    limit, budget = int(config.data.max_response_length), gad_config.thinking.budget
    ending = len(ThoughtReader(student, marks).ending)
    require(
        budget is None or budget + ending < limit,
        f"gad.thinking.budget={budget} and the {ending} tokens that end thoughts leave nothing of "
        f"data.max_response_length={limit} for the answer: lower one or raise the other",
    )
    template = str(student.tokenizer.chat_template)
    if gad_config.thinking.open is None and not any(mark in template for mark in (marks.open, marks.close)):
        logger.warning(
            "gad.thinking.mode=hidden, but the chat template of %s has no marks that are known: %r and %r are looked "
            "for. Name the student's own with gad.thinking.open and gad.thinking.close",
            _MODEL,
            marks.open,
            marks.close,
        )


def _teacher_thinks(config: DictConfig, gad_config: GadConfig, marks: Marks, rows: int | None = _ROWS) -> bool:
    """Whether a text of the first so many rows of each file shows thoughts; None looks at all rows."""
    return any(marks.close in text for text in _first_texts(config, gad_config, rows))


def _first_texts(config: DictConfig, gad_config: GadConfig, rows: int | None) -> Iterator[str]:
    for path in file_list(config.data.train_files):
        for row in islice(open_file(path).rows([gad_config.teacher_key]), rows):
            if not isinstance(row, BadRow):
                yield from teacher_texts(row[gad_config.teacher_key], path)


def _warn(rendered: str, switch: str | None) -> None:
    if switch is not None:
        logger.warning(
            "the chat template of %s lets the student think before it answers, and the teacher's texts show no "
            "thoughts: supervised steps would teach it not to think, and the discriminator would tell both sides apart "
            "by the thoughts alone. Set gad.thinking.mode=hidden (it goes on to think) or off (data.%s.%s=False)",
            _MODEL,
            OPTIONS,
            switch,
        )
        return
    logger.warning(
        "the chat template of %s opens the student's thoughts in the prompt (%r), and the teacher's texts show none: "
        "supervised steps would teach it to answer inside of its thoughts. Set gad.thinking.mode=hidden, or "
        "%s.custom_chat_template to one that opens none",
        _MODEL,
        rendered[-20:],
        _MODEL,
    )
