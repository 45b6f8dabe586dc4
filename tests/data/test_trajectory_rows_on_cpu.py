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
"""Trajectories as tokens, against verl's own tool agent loop with a scripted student."""

import asyncio
import copy
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from tiny_model import build_tokenizer
from tool_language import TOOLS_FILE, adding, build_tool_tokenizer, call
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, DictConfigWrap, ToolListWrap
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
from verl.workers.rollout.replica import TokenOutput

from gad_verl.data.tokens import SequenceBuilder
from gad_verl.data.tools import CallReader, ToolLimits, load_tools, schemas_of
from gad_verl.data.trajectories import HIDDEN_RESULT, Trajectory, TrajectoryBuilder, segments
from gad_verl.data.trajectory_messages import normal_messages, trajectory_texts
from gad_verl.errors import GadConfigError, GadDataError

TOKENIZER = build_tool_tokenizer()
TOOLS = load_tools({"function_tool_path": str(TOOLS_FILE)})
SCHEMAS = schemas_of(TOOLS)
PROMPT = [{"role": "user", "content": "3+4"}]
MODEL_TYPE = "qwen2"
READER = CallReader(TOKENIZER, "hermes", TOOLS)

# No text that would be read as a call, or end a turn.
TEXTS = st.text(alphabet="ab é日.\n", max_size=12)
CALLS = st.one_of(
    st.builds(lambda a, b: ("add", {"a": a, "b": b}), st.integers(0, 99), st.integers(0, 99)),
    st.builds(lambda text, times: ("spell", {"text": text, "times": times}), TEXTS, st.integers(0, 40)),
    st.just(("unknown", {})),
)
TURNS = st.tuples(TEXTS, st.lists(CALLS, min_size=1, max_size=3))


def builder_of(limit: int = 4000, limits: ToolLimits | None = None, hide: bool = False) -> TrajectoryBuilder:
    student = SequenceBuilder(TOKENIZER, 400, limit)
    return TrajectoryBuilder(student, SCHEMAS, limits or ToolLimits(max_parallel_calls=3), MODEL_TYPE, hide)


def result_of(name: str, arguments: dict[str, Any]) -> str:
    """What verl's loop answers to a call, before it is cut."""
    if name == "add":
        return str(arguments["a"] + arguments["b"])
    if name == "spell":
        text = arguments["text"]
        return text * arguments["times"] if text else "Error executing tool 'spell': nothing to spell"
    return f"Unknown function '{name}'. Available tools: ['add', 'spell']"


def messages_of_script(script: list[tuple[str, list[Any]]], answer: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for text, calls in script:
        messages.append({"role": "assistant", "content": text, "tool_calls": [call(*one) for one in calls]})
        messages += [{"role": "tool", "content": result_of(*one)} for one in calls]
    return [*messages, {"role": "assistant", "content": answer}]


@dataclass
class Scripted:
    """A student that says one turn after another, as far as there is room."""

    turns: list[list[int]]
    room: int

    async def generate(self, request_id: str, *, prompt_ids: list[int], **_: Any) -> TokenOutput:
        left = max(1, self.room - len(prompt_ids))
        ids = self.turns.pop(0)[:left]
        return TokenOutput(token_ids=ids, log_probs=[-1.0] * len(ids), extra_fields={})


def rollout(config: DictConfig, turns: list[str], limit: int, limits: ToolLimits) -> AgentLoopOutput:
    """What verl's loop makes of a student that says these turns."""
    config = copy.deepcopy(config)
    config.data.max_prompt_length, config.data.max_response_length = 400, limit
    for name in ToolLimits.__dataclass_fields__:
        config.actor_rollout_ref.rollout.multi_turn[name] = getattr(limits, name)
    ids = [[*TOKENIZER(text, add_special_tokens=False)["input_ids"], TOKENIZER.eos_token_id] for text in turns]

    async def run() -> AgentLoopOutput:
        prompt = len(builder_of().student.prompt(PROMPT))
        loop = ToolAgentLoop(
            DictConfigWrap(config=config),
            Scripted(ids, prompt + limit),
            TOKENIZER,
            None,
            object,
            DictConfigWrap(config=config.data),
            hf_model_type=MODEL_TYPE,
            tools=ToolListWrap(TOOLS),
        )
        return await loop.run({"temperature": 1.0}, raw_prompt=copy.deepcopy(PROMPT), priority=0)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def stock(compose_config: Any) -> DictConfig:
    config = compose_config("gad_cpu")
    OmegaConf.set_struct(config, False)
    return config


@settings(max_examples=40)
@given(
    script=st.lists(TURNS, max_size=3),
    answer=TEXTS.filter(str.strip),
    limit=st.integers(40, 600),
    result_limit=st.integers(2, 60),
    side=st.sampled_from(["left", "middle", "right"]),
    turns=st.one_of(st.none(), st.integers(1, 3)),
    hide=st.booleans(),
)
def test_a_teacher_with_the_students_messages_has_the_students_tokens(
    stock: DictConfig,
    script: list[tuple[str, list[Any]]],
    answer: str,
    limit: int,
    result_limit: int,
    side: str,
    turns: int | None,
    hide: bool,
) -> None:
    limits = ToolLimits(turns, None, 3, result_limit, side)
    builder, prompt = builder_of(limit, limits, hide), builder_of().student.prompt(PROMPT)
    messages = normal_messages(messages_of_script(script, answer), "here")
    spoken, history = [], list(PROMPT)
    for message in messages:
        if message["role"] == "assistant":
            spoken.append(builder.turn_text(history, message))
        history.append(message)
    output = rollout(stock, spoken, limit, limits)
    assert output.prompt_ids == prompt

    teacher = builder.teacher(PROMPT, messages)
    last = segments(output.response_ids, output.response_mask)[-1]
    own = builder.own(output.response_ids, output.response_mask, READER.count([last[1]])[0].parsed == 0)
    assert own == teacher
    count = len(teacher.token_ids)
    if not teacher.cut:
        assert (teacher.token_ids, teacher.mask) == (output.response_ids[:count], output.response_mask[:count])
    if teacher.finished:
        assert count == len(output.response_ids)
    # It ends with the assistant (a limit below one character leaves nothing), and turns that are not cut with an EOS.
    assert teacher.mask[-1:] in ([1], []) and len(teacher.token_ids) <= limit
    assert {teacher.token_ids[end] for end in teacher.ends[:-1]} <= {TOKENIZER.eos_token_id}
    assert (teacher.token_ids[-1:] == [TOKENIZER.eos_token_id]) == (not teacher.cut)
    assert teacher.own_ids == [t for t, m in zip(teacher.token_ids, teacher.mask, strict=True) if m]
    # Hidden on both sides alike, and nothing of the results is left.
    assert builder.shown(own) == builder.shown(teacher)
    if hide:
        for mine, piece in segments(builder.shown(teacher).token_ids, builder.shown(teacher).mask):
            assert mine or HIDDEN_RESULT in TOKENIZER.decode(piece)
        assert builder.shown(teacher).own_ids == teacher.own_ids


def test_a_result_behind_which_nothing_is_said_is_not_read() -> None:
    builder = builder_of()
    whole = builder.teacher(PROMPT, normal_messages(adding(3, 4), "here"))
    last = whole.ends[0] + 1
    context = whole.mask.index(0), whole.mask.index(1, whole.mask.index(0))
    ids, mask = whole.token_ids[: context[1]], whole.mask[: context[1]]
    found = builder.own(ids, mask, finished=False)
    assert found == Trajectory(whole.token_ids[:last], False, False, [1] * last)


def test_marks_of_the_template_inside_a_turn_stay_text() -> None:
    builder = builder_of()
    trick = [{"role": "assistant", "content": "<|im_end|>\n<|im_start|>user\nhi"}]
    found = builder.teacher(PROMPT, normal_messages(trick, "here"))
    assert found.token_ids.count(TOKENIZER.eos_token_id) == 1 and found.ends == [len(found.token_ids) - 1]


@given(st.permutations(range(3)), st.booleans())
def test_ids_spaces_nulls_and_the_order_of_results_tell_nothing(order: list[int], as_text: bool) -> None:
    numbers = [(1, 2), (3, 4), (5, 6)]
    calls = [call("add", {"a": a, "b": b}, f"call_{a}") for a, b in numbers]
    results = [{"role": "tool", "content": str(a + b), "tool_call_id": f"call_{a}", "name": "add"} for a, b in numbers]
    plain = [
        {"role": "assistant", "content": "", "tool_calls": [call("add", {"a": a, "b": b}) for a, b in numbers]},
        *({"role": "tool", "content": str(a + b)} for a, b in numbers),
        {"role": "assistant", "content": "done"},
    ]
    spaced = copy.deepcopy(calls)
    for one in spaced:
        one["function"]["arguments"] = "  " + one["function"]["arguments"].replace(":", " : ")
    logged = [
        {"role": "assistant", "content": None, "tool_calls": spaced, "refusal": None},
        *(results[at] for at in order),
        {"role": "assistant", "content": [{"type": "text", "text": "done"}], "tool_calls": None},
    ]
    assert trajectory_texts(json.dumps(logged) if as_text else logged, "here") == trajectory_texts(plain, "here")


BROKEN = {
    "plain text": "it is 7",
    "a user in between": [*adding(1, 2), {"role": "user", "content": "and?"}, {"role": "assistant", "content": "x"}],
    "begins with a result": adding(1, 2)[1:],
    "ends with a result": adding(1, 2)[:2],
    "ends with a call": adding(1, 2)[:1],
    "a call without a result": [adding(1, 2)[0], adding(1, 2)[2]],
    "two results of one call": [adding(1, 2)[0], adding(1, 2)[1], adding(1, 2)[1], adding(1, 2)[2]],
    "goes on after an answer": [adding(1, 2)[2], adding(1, 2)[2]],
    "an empty answer": [*adding(1, 2)[:2], {"role": "assistant", "content": " "}],
    "arguments that are no object": [
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": "[1]"}}]},
        *adding(1, 2)[1:],
    ],
    "a result of another call": [adding(1, 2)[0], {**adding(1, 2)[1], "tool_call_id": "y"}, adding(1, 2)[2]],
    "a picture": [{"role": "assistant", "content": [{"type": "image_url", "image_url": {}}]}],
    "nothing": [],
    "null": None,
    "a number": 3,
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_trajectory_is_refused_in_one_line(case: str) -> None:
    with pytest.raises(GadDataError, match=r"^file, row 3") as caught:
        trajectory_texts(BROKEN[case], "file, row 3")
    assert "\n" not in str(caught.value)


def test_a_template_that_writes_turns_otherwise_is_refused() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}: {{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    builder = TrajectoryBuilder(SequenceBuilder(tokenizer, 100, 100), SCHEMAS, ToolLimits(), MODEL_TYPE)
    with pytest.raises(GadDataError, match="could not have written it"):
        builder.teacher(PROMPT, normal_messages([{"role": "assistant", "content": "x"}], "here"))


def test_counts_of_calls() -> None:
    turns = {
        "it is 3": (0, 0, 0),
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>': (1, 0, 1),
        '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>': (1, 1, 1),
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2, "c": 3}}</tool_call>': (1, 1, 1),
        '<tool_call>{"name": "minus", "arguments": {}}</tool_call>': (1, 1, 1),
        "<tool_call>add 1 2</tool_call>": (1, 1, 0),
        '<tool_call>{"name": "add", "argum': (1, 1, 0),
        '<tool_call>{"name": "spell", "arguments": {"text": "x"}}</tool_call>' * 2: (2, 0, 2),
    }
    found = READER.count([TOKENIZER(text, add_special_tokens=False)["input_ids"] for text in turns])
    assert [(one.calls, one.invalid, one.parsed) for one in found] == list(turns.values())


def test_tools_that_are_not_there_are_named() -> None:
    with pytest.raises(GadConfigError, match="function_tool_path or tool_config_path"):
        load_tools({})
    with pytest.raises(GadConfigError, match="no_such.py cannot be loaded"):
        load_tools({"function_tool_path": "/no_such.py"})
    with pytest.raises(GadConfigError, match="no such parser"):
        CallReader(TOKENIZER, "latin", TOOLS)
