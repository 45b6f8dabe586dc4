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
"""Whether a chat template lets a student think before it answers, its marks, and the switch that turns it off."""

from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, open_dict

from gad_verl.config import GadConfig, ThinkingConfig, load_gad_config
from gad_verl.config.thinking import OFF
from gad_verl.data.tokenizer import load_tokenizer
from gad_verl.data.tokens import Messages, SequenceBuilder
from gad_verl.errors import GadConfigError, GadDataError

# What templates call the switch: Qwen3 and its kin; DeepSeek, Granite.
SWITCHES = ("enable_thinking", "thinking")
CHAT = ({"role": "user", "content": "Why?"},)
OPTIONS = "apply_chat_template_kwargs"
# verl's agent loop of one answer to a prompt, and ours, which do more in the same place.
SINGLE_TURN, AGENT_LOOP, THINKING_AGENT_LOOP = "single_turn_agent", "gad_agent", "gad_thinking_agent"
# verl's with tools.
TOOL_AGENT = "tool_agent"
_MODEL = "actor_rollout_ref.model"


@dataclass(frozen=True)
class Marks:
    """What stands around a student's thoughts.

    Args:
        open: Before them.
        close: Behind them; the answer follows.
        empty_block: Thoughts of nothing, with what separates them from the answer.
        ending: What ends thoughts in the middle, with what separates them from the answer.
    """

    open: str
    close: str
    empty_block: str
    ending: str


def _block(begin: str, end: str) -> Marks:
    return Marks(begin, end, f"{begin}\n\n{end}\n\n", f"\n{end}\n\n")


_FINAL = "<|channel|>final<|message|>"


# The first whose closing mark stands in a chat template is taken: those that others hold come first.
KNOWN_MARKS = (
    _block("<seed:think>", "</seed:think>"),
    _block("<think>", "</think>"),
    _block("<thinking>", "</thinking>"),
    _block("<thought>", "</thought>"),
    _block("[THINK]", "[/THINK]"),
    _block("<|START_THINKING|>", "<|END_THINKING|>"),
    _block("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    # Between both a turn ends and another one begins.
    Marks("<|channel|>analysis<|message|>", _FINAL, _FINAL, f"<|end|><|start|>assistant{_FINAL}"),
)
USUAL_MARKS = KNOWN_MARKS[1]


def marks_of(thinking: ThinkingConfig, chat_template: Any) -> Marks:
    """The marks of a student's thoughts: those that are configured, or those of its template.

    Args:
        thinking: ``gad.thinking``.
        chat_template: Of the student's tokenizer.
    """
    if thinking.open is not None and thinking.close is not None:
        found = next((known for known in KNOWN_MARKS if known.close == thinking.close.strip()), None)
        given = _block(thinking.open.strip(), thinking.close.strip())
        marks = found if found is not None and found.open == given.open else given
    else:
        template = str(chat_template)
        # A template writes a closing mark in one piece, or splits earlier turns at it; some name the opening one alone.
        named = [known for mark in ("close", "open") for known in KNOWN_MARKS if getattr(known, mark) in template]
        marks = named[0] if named else USUAL_MARKS
    if thinking.empty_block is None:
        return marks
    return replace(marks, empty_block=thinking.empty_block)


def opens_thoughts(rendered: str) -> bool:
    """Whether a rendered prompt ends in thoughts that the answer goes on with (DeepSeek-R1 and others)."""
    return rendered.rstrip().endswith(tuple(marks.open for marks in KNOWN_MARKS))


def thinking_switch(builder: SequenceBuilder) -> str | None:
    """Name of a switch that would turn thinking off where the builder's options leave it on; None if there is none."""
    try:
        rendered = builder.render(CHAT)
        named = [name for name in SWITCHES if name in str(builder.tokenizer.chat_template)]
        return next((name for name in named if builder.with_option(name, False).render(CHAT) != rendered), None)
    except GadDataError:
        # A template that refuses this chat is judged by the prompts of the data.
        return None


class Unopened(SequenceBuilder):
    """Prompts without the mark that opens thoughts at their end.

    Args:
        builder: With the prompts.
        mark: The mark.
    """

    def __init__(self, builder: SequenceBuilder, mark: str) -> None:
        limits = builder.max_prompt_length, builder.max_response_length
        super().__init__(builder.tokenizer, *limits, builder.stop_ids, builder.chat_template_kwargs)
        self._mark = mark

    def render(self, messages: Messages) -> str:
        rendered = super().render(messages)
        bare = rendered.rstrip()
        return bare.removesuffix(self._mark) if bare.endswith(self._mark) else rendered


def closed_prompts(builder: SequenceBuilder, marks: Marks | None = None) -> tuple[dict[str, Any], str]:
    """How the prompts of an answer without thoughts are made of a builder's: a switch of the template, else a mark.

    Args:
        builder: Renders the prompts.
        marks: Around the student's thoughts; None looks for those that are known.

    Returns:
        Options of the template, and the mark that is taken off the end of what it renders; empty where there is none.
    """
    switch = thinking_switch(builder)
    if switch is not None:
        return {switch: False}, ""
    try:
        bare = builder.render(CHAT).rstrip()
    except GadDataError:
        return {}, ""
    openings = [*([] if marks is None else [marks.open]), *(known.open for known in KNOWN_MARKS)]
    return {}, next((opening for opening in openings if bare.endswith(opening)), "")


def without_thoughts(builder: SequenceBuilder, marks: Marks | None = None) -> SequenceBuilder:
    """The same builder with the prompts of an answer without thoughts, for whoever reads answers alone.

    Args:
        builder, marks: See :func:`closed_prompts`.
    """
    options, mark = closed_prompts(builder, marks)
    for name, value in options.items():
        builder = builder.with_option(name, value)
    return Unopened(builder, mark) if mark else builder


def settled_config(config: DictConfig) -> GadConfig:
    """Read ``gad``, and write into verl's part of the configuration what ``gad.thinking`` means for it, in place.

    With ``off`` the template's switch; with a budget the agent loop that keeps it; with ``gad.trajectory`` verl's loop
    with tools. Else in the place of verl's agent loop of one answer comes the one that encodes it.

    Raises:
        GadConfigError: As :func:`gad_verl.config.load_gad_config`, or the student's template has no switch.
    """
    gad = load_gad_config(config)
    if gad.thinking.mode == OFF:
        _switch_off(config)
    agent = config.actor_rollout_ref.rollout.agent
    with open_dict(config):
        if gad.thinking.budget is not None:
            agent.default_agent_loop = THINKING_AGENT_LOOP
        elif agent.get("default_agent_loop", SINGLE_TURN) == SINGLE_TURN:
            agent.default_agent_loop = TOOL_AGENT if gad.trajectory.enable else AGENT_LOOP
    return gad


def _switch_off(config: DictConfig) -> None:
    data, model = config.data, config.actor_rollout_ref.model
    options = dict(data.get(OPTIONS, {}) or {})
    limits = data.max_prompt_length, data.max_response_length
    builder = SequenceBuilder(load_tokenizer(_MODEL, model), *limits, chat_template_kwargs=options)
    switch = thinking_switch(builder)
    if switch is None:
        if any(options.get(name) is False for name in SWITCHES):
            # By hand, or by the check before the run.
            return
        raise GadConfigError(
            f"gad.thinking.mode=off: no switch ({', '.join(SWITCHES)}) does anything in the chat template of {_MODEL}. "
            f"Give a switch of another name in data.{OPTIONS} and set gad.thinking.mode=none, or take "
            "gad.thinking.mode=hidden"
        )
    if switch in options:
        raise GadConfigError(
            f"gad.thinking.mode=off, but data.{OPTIONS}.{switch}={options[switch]}: leave one of them out"
        )
    options[switch] = False
    with open_dict(config):
        config.data[OPTIONS] = options
