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
"""What a model card is made of: files of any form are read as far as they go, and paths of a machine are taken out."""

import json
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_run

from gad_verl.tools.data.writing import sha256
from gad_verl.tools.export.card.page import Exported, collect_facts, write_card
from gad_verl.tools.export.card.request import CardRequest
from gad_verl.tools.export.card.run_facts import read_run_facts, without_paths


@pytest.mark.parametrize(
    "content",
    [
        {"command": "teacher collect", "output": "SHA", "settings": {}},
        {"command": "teacher collect", "output": "SHA", "settings": {"teachers": ["t"]}},
        {"command": "teacher collect", "output": "SHA", "settings": {"teachers": [], "framing": 3}, "answers": [1]},
        {"command": "data x", "outputs": ["train.jsonl"]},
        {"command": "data x", "outputs": 3},
        {"command": "data x", "output": "SHA", "inputs": ["raw"]},
        {"command": "data import", "output": "SHA", "choices": ["a"], "counts": "many"},
        {"command": "data import", "output": "SHA", "choices": {}, "counts": {"teachers": 3}},
        {"command": "data normalize", "output": "SHA", "counts": {"changed": [1]}},
        {"command": "data split", "output": "SHA", "counts": {"rows": {"a": "many"}}},
        {"command": ["data"], "output": "SHA"},
    ],
    ids=str,
)
def test_a_data_card_of_another_form_does_not_fail_an_export(tmp_path: Path, content: dict[str, Any]) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("{}\n")
    if content.get("output") == "SHA":
        content = content | {"output": {"sha256": sha256(data)}}
    (tmp_path / "train.card.json").write_text(json.dumps(content))
    checkpoint = write_run(tmp_path / "run", {"data": {"train_files": str(data)}}, 5)
    facts = collect_facts(checkpoint, "student", read_run_facts(checkpoint), CardRequest())
    text = write_card(facts, Exported(tmp_path, adapter=True, dtype="float32")).read_text(encoding="utf-8")
    assert "| `train.jsonl` | unknown |" in text and "## Training settings" in text


@pytest.mark.parametrize("record", [{"config": [1], "versions": "new"}, {"config": {"data": {"train_files": 3}}}])
def test_a_record_of_another_form_is_none(tmp_path: Path, record: dict[str, Any]) -> None:
    checkpoint = write_run(tmp_path / "run", {}, 5)
    (tmp_path / "run" / "record" / "run.json").write_text(json.dumps(record))
    facts = collect_facts(checkpoint, "student", read_run_facts(checkpoint), CardRequest())
    assert "| step | 5 |" in write_card(facts, Exported(tmp_path, adapter=True, dtype="float32")).read_text()


def test_figures_are_those_of_the_run_and_not_of_the_one_in_its_old_place(tmp_path: Path) -> None:
    write_run(tmp_path / "checkpoints", {"seed": 1}, 7, metrics={7: {"disc/accuracy": 0.9}})
    (tmp_path / "checkpoints").rename(tmp_path / "run_a")
    write_run(tmp_path / "checkpoints", {"seed": 2}, 7, metrics={7: {"disc/accuracy": 0.5}})
    facts = read_run_facts(tmp_path / "run_a" / "global_step_7")
    assert facts.get("seed") == 1 and facts.metrics == {"disc/accuracy": 0.9}


def test_paths_are_taken_out_and_other_texts_stay() -> None:
    value = {"a": ["see /data/x/y.json, or ~/z", "C:\\Users\\me"], "b": "https://arxiv.org/abs/1 and 1/2", "c": 3}
    cleaned = without_paths(value)
    assert cleaned["b"] == value["b"] and cleaned["c"] == 3
    assert cleaned["a"][0] == "see (a local path), or (a local path)" and "Users" not in cleaned["a"][1]


@pytest.mark.parametrize(
    "text",
    [
        r"\d+\s*$",
        r"(?:Answer|answer):\s*(\d+)",
        r"\boxed{\frac{1}{2}}",
        r"$\alpha_1 \\ \hline$",
        r"^\\d+\\s*$",
        "<think>so</think>",
        "[INST] a [/INST]",
        "<|im_end|> and/or 1/2",
    ],
)
def test_expressions_formulas_and_marks_are_no_paths(text: str) -> None:
    assert without_paths(text) == text


@pytest.mark.parametrize(
    "path",
    [
        "/home/me/x",
        "~/x",
        "C:\\Users\\me",
        "C:\\\\Users\\\\me",
        "d:/data/x",
        r"\\server\share\x",
        "/tmp",
        "[/home/me/x]",
    ],
)
def test_paths_of_each_system_are_taken_out(path: str) -> None:
    for text in (path, f"see {path}, please", f"'{path}'", f"({path})", f"<{path}/y>"):
        cleaned = without_paths(text)
        assert "(a local path)" in cleaned and not any(part in cleaned for part in ("me", "server", "data", "tmp"))
