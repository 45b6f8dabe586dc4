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
"""docs/evaluation.md: the columns of IFEval beside the texts of a teacher, in whose place a server stands."""

import json
import shlex
from pathlib import Path

import pytest
from doc_blocks import bash_blocks, blocks
from fault_server import FaultServer

from gad_verl import cli
from gad_verl.tools.evaluation.rows import load_rows

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def test_rows_of_ifeval_get_their_teachers_texts_and_keep_their_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kinds = [
        ("punctuation:no_comma", {}),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}),
        ("language:response_language", {"language": "hi"}),
        ("keywords:existence", {"keywords": ["one", "two"]}),
    ]
    # Rows 0 and 3 ask the same, and the second is dropped: what is behind it moves up.
    asked = [
        {"key": 1000 + n, "prompt": f"Question {n % 3}?", "instruction_id_list": [kind], "kwargs": [arguments]}
        for n, (kind, arguments) in enumerate(kinds)
    ]
    asked += [asked[0] | {"prompt": "Another?", "instruction_id_list": [kinds[3][0]], "kwargs": [kinds[3][1]]}]
    Path("ifeval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    [command] = [block for block in bash_blocks(PAGE) if "teacher collect" in block]
    with FaultServer(model="teacher") as server:
        said = shlex.split(command.replace("https://api.example.com/v1", server.base_url))[1:]
        assert cli.main([*said, "--drop", "duplicate-prompt"]) == 0
    [python] = blocks(PAGE, "python")
    exec(python, {})
    [evaluation] = [block for block in bash_blocks(PAGE) if "--checks" in block]
    options = shlex.split(evaluation)
    rows = load_rows(options[options.index("--data") + 1], checks_key=options[options.index("--checks") + 1])
    assert [row.question for row in rows] == ["Question 0?", "Question 1?", "Question 2?", "Another?"]
    assert [[(check.kind, dict(check.arguments)) for check in row.checks] for row in rows] == [
        [kinds[0]],
        [kinds[1]],
        [],
        [kinds[3]],
    ]
    assert all(row.teacher for row in rows)
