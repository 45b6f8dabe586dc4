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
"""The study of trajectories in its shortest form: that it runs, goes on, and counts what the tool says."""

import json
from pathlib import Path

import pytest
import tools_language
from tools_language import LIMITS, Language, Size, prompt, teacher

SMALL = Size(rows=16, held_out=4, seqkd_steps=2, more_steps=5, hidden=32, batch=4, n=2)


def test_it_runs_and_goes_on_where_it_was(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    assert tools_language.main(["--small", "--seeds", "1", "--rows", str(rows)]) == 0
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["arm"] for row in found] == list(tools_language.ARMS)
    assert all(0 <= row[name] <= 1 for row in found for name in ("valid", "right_call", "right_answer"))
    before = rows.read_bytes()
    tools_language.main(["--small", "--seeds", "1", "--rows", str(rows)])
    assert rows.read_bytes() == before
    both, difference = tools_language.tables(found)
    assert all(arm in both for arm in tools_language.ARMS) and "GAD less" in difference


def test_a_teacher_is_right_by_the_tools_own_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    language = Language(SMALL, seed=0)
    eos = language.tokenizer.eos_token_id

    def speaks(_: object, prompts: list[list[int]], *more: object) -> list[object]:
        """The teacher's own turns, of whatever conversation it is asked."""
        from gad_verl.rollout.batching import GeneratedResponse

        answers = []
        for ids in prompts:
            text = language.tokenizer.decode(ids)
            a, b = map(int, text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0].split("+"))
            messages, history = teacher(a, b), prompt(a, b)
            place = 2 if "<r>" in text else 0
            said = language.builder.turn_text([*history, *messages[:place]], messages[place])
            answers.append(GeneratedResponse([*language.builder.student.text_ids(said), eos], None))
        return answers

    monkeypatch.setattr(tools_language, "generate_batch", speaks)
    assert language.measured(None) == {"valid": 1.0, "right_call": 1.0, "right_answer": 1.0}
    assert LIMITS.max_assistant_turns == 3
    # What is read of it is the teacher's own row.
    pair = language.known[0]
    [(read, ids, mask, turns)] = language.rollouts(None, [pair], temperature=0.0)
    assert read == language.taught[pair] and (ids, mask) == (read.token_ids, read.mask) and turns.calls == 1
