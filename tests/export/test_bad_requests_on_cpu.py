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
"""Exports that cannot be: one line says what is wrong and what to do, and nothing is left behind."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from run_folders import build_discriminator, save_part, write_run
from tiny_model import build_model
from transformers import AutoModelForCausalLM

from gad_verl import cli

SHARD = "model_world_size_1_rank_0.pt"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with both parts."""
    root = tmp_path_factory.mktemp("whole")
    source = build_model(root / "source", layers=1)
    checkpoint = write_run(root / "run", {"gad": {"stage": "auto"}}, 5)
    save_part(checkpoint / "actor", AutoModelForCausalLM.from_pretrained(source), source)
    save_part(checkpoint / "discriminator", build_discriminator(source), source)
    return checkpoint


@pytest.fixture
def checkpoint(whole: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    shutil.copytree(whole.parent, tmp_path / "run")
    return tmp_path / "run" / whole.name


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs an export that must end with code 2, and gives its one line."""

    def run(checkpoint: Path, output: Path | str, *more: str) -> str:
        capsys.readouterr()
        assert cli.main(["export", str(checkpoint), "--output", str(output), *more]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gad-verl: ")]
        assert len(lines) == 1 and "Errno" not in lines[0]
        return lines[0]

    return run


# -------------------------------------------------------------------------------------------------------------- output


def test_a_link_to_an_empty_folder_is_written_through(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert cli.main(["export", str(whole), "--output", str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "model.safetensors").is_file()
    # One whose folder is still to be made.
    (tmp_path / "ahead").symlink_to(tmp_path / "later")
    assert cli.main(["export", str(whole), "--output", str(tmp_path / "ahead")]) == 0
    assert (tmp_path / "later" / "model.safetensors").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link", "ahead", "later"}


def test_places_where_no_folder_can_be(
    whole: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gad_verl.tools.export.weights.load_state", lambda folder: pytest.fail("read before checked"))
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert "is a file" in refused(whole, tmp_path / "file")
    assert "can be made" in refused(whole, tmp_path / "file" / "below")
    assert "can be made" in refused(whole, tmp_path / ("x" * 250))
    assert "can be made" in refused(whole, tmp_path / ("x" * 5000))
    monkeypatch.chdir(tmp_path / "empty")
    assert "working folder" in refused(whole, ".") and "working folder" in refused(whole, tmp_path / "empty")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "empty")
    assert "mount point" in refused(whole, tmp_path / "empty")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"{tmp_path} is not yours to write" in refused(whole, tmp_path / "new" / "folder")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "empty"}


# ---------------------------------------------------------------------------------------------------------- both parts


def test_both_parts_are_looked_at_before_the_first_is_written(
    checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    (out / "discriminator").mkdir(parents=True)
    (out / "discriminator" / "mine").write_text("")
    assert "discriminator is not empty" in refused(checkpoint, out, "--part", "both")
    shutil.rmtree(out)
    (checkpoint / "discriminator" / SHARD).unlink()
    assert f"lacks {SHARD}" in refused(checkpoint, out, "--part", "both")
    # As SeqKD leaves one.
    shutil.rmtree(checkpoint / "discriminator")
    for _ in range(2):
        assert "holds no discriminator" in refused(checkpoint, out, "--part", "both")
    assert not out.exists()


# -------------------------------------------------------------------------------------------------------------- damage


def state_of(part: Path) -> dict[str, torch.Tensor]:
    return torch.load(part / SHARD, weights_only=True)


def wrong_shape(part: Path) -> None:
    torch.save(state_of(part) | {"model.norm.weight": torch.zeros(7)}, part / SHARD)


def of_two_ranks(part: Path, second: Any) -> None:
    (part / "fsdp_config.json").write_text(json.dumps({"world_size": 2}))
    torch.save(state_of(part), part / "model_world_size_2_rank_0.pt")
    torch.save(second, part / "model_world_size_2_rank_1.pt")


def lacking(part: Path) -> None:
    of_two_ranks(part, {name: tensor for name, tensor in state_of(part).items() if name != "model.norm.weight"})


def write(name: str, content: str) -> Callable[[Path], None]:
    return lambda part: (part / name).write_text(content) and None


@pytest.mark.parametrize("part", ["student", "discriminator"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (write("fsdp_config.json", "{"), "fsdp_config.json is damaged"),
        (write("fsdp_config.json", "{}"), "names no world_size"),
        (write("fsdp_config.json", '{"world_size": 0}'), "names no world_size"),
        (write("fsdp_config.json", '{"world_size": "1"}'), "names no world_size"),
        (write("huggingface/config.json", "{"), "config.json cannot be read"),
        (write("huggingface/config.json", '{"model_type": "weird"}'), "config.json cannot be read"),
        (write("huggingface/config.json", '{"model_type": "qwen2", "hidden_size": "wide"}'), "config.json"),
        (lambda part: (part / "huggingface" / "config.json").unlink(), "has no config.json"),
        (lambda part: shutil.rmtree(part / "huggingface"), "has no config.json"),
        (wrong_shape, "does not fit its own configuration"),
        (lambda part: torch.save([1, 2], part / SHARD), "holds no weights"),
        (lambda part: torch.save({"model.norm.weight": 3}, part / SHARD), "holds no weights"),
        (lambda part: torch.save({}, part / SHARD), "holds no weights"),
        (lacking, "do not hold the same weights (such as model.norm.weight)"),
        (lambda part: of_two_ranks(part, [1]), "holds no weights"),
        (lambda part: of_two_ranks(part, state_of(part) | {"model.norm.weight": torch.zeros(3)}), "differs between"),
    ],
)
def test_a_damaged_checkpoint(
    checkpoint: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    part: str,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    damage(checkpoint / {"student": "actor"}.get(part, part))
    assert said in refused(checkpoint, tmp_path / "out", "--part", part)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("content", ["{", "{}", '{"peft_type": "NEW"}', '{"peft_type": "LORA", "target_modules": 3}'])
def test_a_damaged_adapter(whole: Path, tmp_path: Path, refused: Callable[..., str], content: str) -> None:
    source = whole.parents[1] / "source"
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=2, target_modules=["q_proj"])
    checkpoint = write_run(tmp_path / "run", {}, 5)
    save_part(checkpoint / "actor", get_peft_model(AutoModelForCausalLM.from_pretrained(source), config), source)
    (checkpoint / "actor" / "adapter_config.json").write_text(content)
    assert "adapter_config.json" in refused(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"cut"),
        lambda folder: (folder / "model.safetensors.index.json").write_text("{"),
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone"}}'),
    ],
)
def test_damaged_weights_of_megatron(
    whole: Path, tmp_path: Path, refused: Callable[..., str], damage: Callable[[Path], Any]
) -> None:
    checkpoint = write_run(tmp_path / "run", {}, 5)
    for part in ("actor", "discriminator"):
        folder = checkpoint / part / "model" / "huggingface"
        shutil.copytree(whole.parents[1] / "source", folder)
        (checkpoint / part / "ckpt_contents.json").write_text("{}")
        damage(folder)
        name = {"actor": "student"}.get(part, part)
        assert "are damaged" in refused(checkpoint, tmp_path / "out", "--part", name)
