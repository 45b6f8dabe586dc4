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
"""Import of conversations with calls of tools: one trajectory, whatever layout it comes in."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tool_language import adding

from gad_verl.cli import main
from gad_verl.data.schema import check_file
from gad_verl.data.trajectory_messages import trajectory_texts

TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}, "b": {}}}},
}
ARGUMENTS = {"a": 3, "b": 4}
OPENAI = {
    "messages": [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "3+4"},
        *adding(3, 4),
        {"role": "user", "content": "thanks"},
        {"role": "assistant", "content": "welcome"},
    ],
    "tools": [TOOL],
}
LEGACY = {
    "messages": [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "3+4"},
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "add", "arguments": json.dumps(ARGUMENTS)},
        },
        {"role": "function", "name": "add", "content": "7"},
        {"role": "assistant", "content": "it is 7"},
    ],
    "functions": [TOOL["function"]],
}
SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "Be short."},
        {"from": "human", "value": "3+4"},
        {"from": "function_call", "value": json.dumps({"name": "add", "arguments": ARGUMENTS})},
        {"from": "observation", "value": "7"},
        {"from": "gpt", "value": "it is 7"},
    ],
    "tools": json.dumps([TOOL["function"]]),
}
HERMES = {
    "conversations": [
        {"from": "system", "value": f"You may call <tools>{json.dumps([TOOL])}</tools>"},
        {"from": "human", "value": "3+4"},
        {"from": "gpt", "value": f"<tool_call>\n{json.dumps({'arguments': ARGUMENTS, 'name': 'add'})}\n</tool_call>"},
        {"from": "tool", "value": "<tool_response>\n7\n</tool_response>"},
        {"from": "gpt", "value": "it is 7"},
    ],
    "tools": json.dumps([TOOL]),
}


def imported(tmp_path: Path, *rows: dict[str, Any], options: tuple[str, ...] = ()) -> pd.DataFrame:
    source, output = tmp_path / "rows.jsonl", tmp_path / "out.parquet"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["data", "import", str(source), "--output", str(output), "--layout", "trajectory", "--overwrite"]
    assert main([*command, *options]) in (0, None)
    return pd.read_parquet(output)


@pytest.mark.parametrize("row", [OPENAI, LEGACY, SHAREGPT, HERMES], ids=["openai", "legacy", "sharegpt", "hermes"])
def test_every_layout_gives_the_same_trajectory(tmp_path: Path, row: dict[str, Any]) -> None:
    found = imported(tmp_path, row).iloc[0]
    assert [found["teacher_messages"]] == trajectory_texts(adding(3, 4), "here")
    assert json.loads(found["tools"]) == [TOOL]
    asked = [dict(message) for message in found["prompt"]]
    assert asked[-1] == {"role": "user", "content": "3+4"}
    # The list of tools is the template's, what else the system message says stays.
    assert asked[:-1] == ([] if row is HERMES else [{"role": "system", "content": "Be short."}])
    path = tmp_path / "out.parquet"
    assert check_file(path, "prompt", "teacher_messages", read_texts=trajectory_texts) == 1


def test_several_calls_of_one_turn_and_text_beside_them(tmp_path: Path) -> None:
    calls = "".join(f'<tool_call>{{"name": "add", "arguments": {{"a": {a}, "b": 1}}}}</tool_call>' for a in (1, 2))
    row = {
        "conversations": [
            {"from": "human", "value": "?"},
            {"from": "gpt", "value": f"I add. {calls}"},
            {"from": "tool", "value": "<tool_response>2</tool_response><tool_response>3</tool_response>"},
            {"from": "gpt", "value": "2 and 3"},
        ]
    }
    messages = json.loads(imported(tmp_path, row).iloc[0]["teacher_messages"])
    assert messages[0]["content"] == "I add." and len(messages[0]["tool_calls"]) == 2
    assert [message["content"] for message in messages[1:]] == ["2", "3", "2 and 3"]


def test_rows_that_are_no_trajectories_are_left_out_with_reasons(tmp_path: Path) -> None:
    no_answer = {"messages": OPENAI["messages"][:4]}
    broken = {"conversations": [HERMES["conversations"][1], {"from": "gpt", "value": "<tool_call>add</tool_call>"}]}
    picture = {**OPENAI, "images": ["x"]}
    plain = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
    rejected = tmp_path / "rejected.jsonl"
    frame = imported(tmp_path, no_answer, broken, picture, plain, options=("--rejected", str(rejected)))
    assert json.loads(frame.iloc[0]["teacher_messages"]) == [{"role": "assistant", "content": "hello"}]
    reasons = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [one["row"] for one in reasons] == [0, 1, 2] and len({one["reason"] for one in reasons}) == 3


def test_other_layouts_still_leave_tools_out(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(SHAREGPT) + "\n")
    assert main(["data", "import", str(source), "--output", str(tmp_path / "out.parquet")]) == 2
