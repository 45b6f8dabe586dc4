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
"""docs/teacher.md says what is there: its settings file loads, its options and its Python exist."""

import argparse
import re
from pathlib import Path

import pytest
from fault_server import FaultServer

from gad_verl.tools.commands.teacher import add_to
from gad_verl.tools.teacher.settings import read_settings_file, teachers_of

PAGE = (Path(__file__).parents[2] / "docs" / "teacher.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The one block of code of a language."""
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


def test_the_settings_file_loads(tmp_path: Path) -> None:
    (tmp_path / "teachers.yaml").write_text(block("yaml"), encoding="utf-8")
    large, local = teachers_of(read_settings_file(tmp_path / "teachers.yaml"), {})
    assert (large.name, large.weight, large.price) == ("large", 3.0, (2.0, 8.0))
    assert dict(large.sampling) == {"max_tokens": 1024, "temperature": 0.7}
    assert (large.endpoint.api_key_env, large.endpoint.tokens_per_minute) == ("EXAMPLE_KEY", 200000)
    assert dict(local.sampling) == {"max_tokens": 1024} and local.endpoint.is_local


def test_every_option_exists_and_every_option_is_explained() -> None:
    parser = argparse.ArgumentParser()
    add_to(parser.add_subparsers())
    [teacher] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    [actions] = [
        action for action in teacher.choices["teacher"]._actions if isinstance(action, argparse._SubParsersAction)
    ]
    known = {option for action in actions.choices["collect"]._actions for option in action.option_strings}
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert named <= known
    left_to_help = {"-h", "--help", "--name", "--api-key-env", "--timeout", "--overwrite"}
    assert known - named <= left_to_help | {"--data-source"}


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with FaultServer(model="my-model") as server:
        names = {"texts": ["one", "two"]}
        exec(block("python").replace("http://127.0.0.1:8000/v1", server.base_url), names)
    assert names["first"] == "Answer to: one" and names["summary"].answered == 2
