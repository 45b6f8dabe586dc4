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
"""The command and the rows of docs/images.md, with a tiny model and pictures of one colour."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from doc_blocks import bash_blocks, blocks
from fault_server import FaultServer
from omegaconf import DictConfig
from tiny_vlm import build_vlm, picture

from gad_verl import cli
from gad_verl.config import load_gad_config
from gad_verl.data.image_prompts import PROCESSORS
from gad_verl.data.schema import check_file
from gad_verl.errors import GadDataError
from gad_verl.preflight.image_check import check_images

PAGE = Path(__file__).parents[2] / "docs" / "images.md"


def command_of(name: str) -> list[str]:
    [command] = [block for block in bash_blocks(PAGE) if name in block]
    return shlex.split(command.replace("\\\n", " "))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose_config: Callable[..., DictConfig]) -> DictConfig:
    """The run of the page's command, in a folder with the rows that its Python writes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(picture("red", size=(640, 480)))
    [python] = blocks(PAGE, "python")
    exec(python, {})
    (tmp_path / "val.parquet").write_bytes((tmp_path / "train.parquet").read_bytes())
    build_vlm(tmp_path / "model")
    overrides = command_of("verl.trainer.main_ppo")[5:]
    config = compose_config("gad_trainer", *overrides)
    config.actor_rollout_ref.model.path = str(tmp_path / "model")
    return config


def test_the_rows_of_the_page_pass_the_check(config: DictConfig) -> None:
    assert check_file("train.parquet", config.data.prompt_key, config.gad.teacher_key) == 1
    check_images(config, load_gad_config(config))


def test_the_size_of_the_page_is_that_of_the_run(config: DictConfig) -> None:
    """28 x 28 pixels a token: a picture of 640 x 480 has several hundred, or as few as it is told."""
    config.data.max_prompt_length = 100
    with pytest.raises(GadDataError, match="row 0: the prompt has .* tokens with its 1 images"):
        check_images(config, load_gad_config(config))
    config.data.mm_processor_kwargs.max_pixels = 50 * 28 * 28
    check_images(config, load_gad_config(config))


def test_the_commands_of_the_page_collect_and_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    (tmp_path / "red.png").write_bytes(picture("red"))
    rows = [{"prompt": "<image>Which colour?", "images": ["red.png"]}, {"prompt": "Text alone."}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with FaultServer() as server:
        given = {"https://api.example.com/v1": server.base_url, "teacher": server.model}
        command, action, *options = command_of("gad-verl teacher collect")[1:]
        assert cli.main([command, action, *(given.get(one, one) for one in options)]) == 0
        assert any("image_url" in json.dumps(request.body) for request in server.received)
    (tmp_path / "train.parquet").rename("val.parquet")
    build_vlm(tmp_path / "checkpoints" / "global_step_600")
    limits = ["--max-response-length", "4", "--two-sample-splits", "2"]
    assert cli.main([*command_of("gad-verl evaluate")[1:], *limits]) == 0
    assert "2 prompts of val.parquet" in capsys.readouterr().out


def test_the_table_has_every_processor() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| Qwen")]
    assert {row.split("`")[1] for row in rows} == set(PROCESSORS)
