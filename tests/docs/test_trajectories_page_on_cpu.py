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
"""The commands of docs/trajectories.md, with the files of a tiny language and a teacher on loopback."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from doc_blocks import bash_blocks, blocks
from fault_server import FaultServer
from omegaconf import DictConfig, open_dict
from tool_language import adding, build_tool_folder

from gad_verl import cli
from gad_verl.data.tools import load_tools, schemas_of
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.preflight.config_check import check_config
from gad_verl.preflight.data_check import check_data
from gad_verl.preflight.trajectory_check import check_trajectories

PAGE = Path(__file__).parents[2] / "docs" / "trajectories.md"


def words(name: str) -> list[str]:
    """The words of the page's block with this command, without the command."""
    [found] = [block for block in bash_blocks(PAGE) if name in block]
    return shlex.split(found.replace("\\\n", " "))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the page's tools and what its commands read."""
    monkeypatch.chdir(tmp_path)
    [tools] = [text for text in blocks(PAGE, "python") if "function_tool" in text]
    # Names of tools are known once in a process.
    name = re.sub(r"\W", "_", tmp_path.name)
    Path("tools.py").write_text(tools.replace("def add(", f"def {name}("), encoding="utf-8")
    conversation = {"messages": [{"role": "user", "content": "3+4"}, *adding(3, 4)]}
    Path("conversations.jsonl").write_text(json.dumps(conversation) + "\n", encoding="utf-8")
    Path("prompts.jsonl").write_text('{"prompt": "3+4"}\n', encoding="utf-8")
    return tmp_path


def test_the_tools_of_the_page_are_tools(folder: Path) -> None:
    [schema] = schemas_of(load_tools({"function_tool_path": str(folder / "tools.py")}))
    assert set(schema["function"]["parameters"]["properties"]) == {"a", "b"}


def test_import_of_the_page(folder: Path) -> None:
    assert cli.main(words("gad-verl data import")[1:]) in (0, None)
    assert json.loads(pd.read_parquet("rows.parquet")["teacher_messages"][0])[-1]["content"] == "it is 7"


def test_collection_of_the_page(folder: Path) -> None:
    with FaultServer() as server:
        given = words("gad-verl teacher collect")[1:]
        given = [server.base_url if one.startswith("https:") else one for one in given]
        given = [
            server.model if one == "teacher" and given[at - 1] == "--model" else one for at, one in enumerate(given)
        ]
        assert cli.main(given) in (0, None)
    [messages] = pd.read_parquet("rows.parquet")["teacher_messages"]
    assert json.loads(messages) == [{"role": "assistant", "content": "Answer to: 3+4"}]


@pytest.fixture
def planned(tiny_config: DictConfig, tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    """The run of the page on the tiny language."""
    from tool_language import TOOLS_FILE

    files = build_tool_folder(tmp_path_factory.mktemp("tools"))
    given = dict(word.split("=", 1) for word in words("verl.trainer.main_ppo") if "=" in word)
    with open_dict(tiny_config):
        tiny_config.gad.trajectory.enable = given["gad.trajectory.enable"] == "True"
        tiny_config.gad.teacher_key = given["gad.teacher_key"]
        tiny_config.actor_rollout_ref.rollout.multi_turn.function_tool_path = str(TOOLS_FILE)
        tiny_config.actor_rollout_ref.model.path = str(files / "model")
        tiny_config.data.train_files = str(files / "train.parquet")
        tiny_config.data.val_files = str(files / "val.parquet")
        tiny_config.data.max_prompt_length, tiny_config.data.max_response_length = 128, 200
        tiny_config.data.train_batch_size = tiny_config.actor_rollout_ref.actor.ppo_mini_batch_size = 8
        tiny_config.actor_rollout_ref.rollout.max_model_len = 400
    return tiny_config


def test_the_check_before_the_run_takes_it_and_names_the_agent_loop(planned: DictConfig) -> None:
    gad = check_config(planned)
    check_data(planned, gad)
    check_trajectories(planned, gad)
    assert planned.actor_rollout_ref.rollout.agent.default_agent_loop == "tool_agent"


def rewritten(planned: DictConfig, **columns: Any) -> None:
    """Change columns of the first training row."""
    path = Path(planned.data.train_files)
    frame = pd.read_parquet(path)
    for name, value in columns.items():
        frame[name] = [value, *[None] * (len(frame) - 1)] if name not in frame else [value, *frame[name][1:]]
    changed = path.with_name("changed.parquet")
    frame.to_parquet(changed)
    planned.data.train_files = str(changed)


SUBTRACT = [{"type": "function", "function": {"name": "subtract"}}]
TWICE = [
    {"role": "assistant", "content": "", "tool_calls": adding(1, 2)[0]["tool_calls"] * 2},
    {"role": "tool", "content": "3"},
    {"role": "tool", "content": "3"},
    adding(1, 2)[2],
]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"tools": json.dumps(SUBTRACT)}, "the teacher was offered the tools subtract"),
        ({"extra_info": {"tool_selection": ["add"]}}, "chooses tools for a row"),
        ({"teacher_messages": json.dumps(TWICE)}, "raise .*max_parallel_calls"),
        ({"teacher_messages": json.dumps(adding(1, 2)[:2])}, "must end with an answer"),
    ],
)
def test_rows_that_give_a_side_away_are_named(planned: DictConfig, columns: dict[str, Any], words: str) -> None:
    gad = check_config(planned)
    rewritten(planned, **columns)
    with pytest.raises(GadDataError, match=rf"changed.parquet, row 0.*{words}"):
        check_data(planned, gad)
        check_trajectories(planned, gad)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"actor_rollout_ref.rollout.multi_turn.function_tool_path": None}, "needs the tools"),
        ({"actor_rollout_ref.rollout.agent.default_agent_loop": "other_agent"}, "set it to tool_agent"),
        ({"gad.teacher_overlong": "error", "data.max_response_length": 40}, "gad.teacher_overlong=cut"),
    ],
)
def test_settings_that_cannot_work_are_refused(planned: DictConfig, changes: dict[str, Any], words: str) -> None:
    from omegaconf import OmegaConf

    for key, value in changes.items():
        OmegaConf.update(planned, key, value, force_add=True)
    with pytest.raises((GadConfigError, GadDataError), match=words):
        check_trajectories(planned, check_config(planned))
