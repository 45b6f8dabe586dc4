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
"""The two forms of a discriminator: there and back, links instead of copies, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import build_model
from transformers import AutoConfig, AutoModelForCausalLM

from gad_verl.discriminator.conversion import (
    ScalarHead,
    link_causal,
    prepare_causal_config,
    read_head,
    to_classifier,
    to_megatron,
    weight_files,
)
from gad_verl.discriminator.model import fresh_head_weight, load_discriminator, prepare_config
from gad_verl.errors import GadCheckpointError


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return build_model(tmp_path / "base", tie_word_embeddings=request.param)


def load(folder: Path, **options: bool) -> torch.nn.Module:
    config = AutoConfig.from_pretrained(folder, attn_implementation="sdpa")
    prepare_config(config, None)
    return load_discriminator(folder, config, torch.float32, **({"fresh_head": False, "seed": 7} | options))


def save_discriminator(base: Path, folder: Path, bias: float, **options: str) -> torch.nn.Module:
    model = load(base, fresh_head=True)
    with torch.no_grad():
        model.score.bias.fill_(bias)
    model.save_pretrained(folder, **options)
    return model


@pytest.mark.parametrize("bias", [0.0, -0.375])
@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "50KB"}], ids=["one_file", "many_files"])
def test_there_and_back_changes_no_bit(base: Path, tmp_path: Path, bias: float, shards: dict) -> None:
    model = save_discriminator(base, tmp_path / "classifier", bias, **shards)
    causal = to_megatron(tmp_path / "classifier", tmp_path / "causal")
    (tmp_path / "any file").touch()
    assert {path.stat().st_mode for path in causal.iterdir()} == {(tmp_path / "any file").stat().st_mode}
    config = json.loads((causal / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"] and config["tie_word_embeddings"] is False
    assert read_head(causal).bias == bias and torch.equal(read_head(causal).weight, model.score.weight)
    # transformers itself reads Megatron's form: logits are the scores without their bias.
    with torch.no_grad():
        ids = torch.tensor([[1, 2, 3]])
        config = AutoConfig.from_pretrained(causal)
        hidden = AutoModelForCausalLM.from_config(config).model
        hidden.load_state_dict({name[6:]: value for name, value in model.state_dict().items() if name[:6] == "model."})
        scores = hidden(input_ids=ids).last_hidden_state @ read_head(causal).weight.T + bias
        torch.testing.assert_close(scores, model(input_ids=ids).logits, atol=1e-6, rtol=0)
    back = load(to_classifier(causal, tmp_path / "back"))
    assert set(back.state_dict()) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    again = to_megatron(tmp_path / "back", tmp_path / "again")
    assert weight_files(again).keys() == weight_files(causal).keys()
    for name, file in weight_files(causal).items():
        assert torch.equal(load_file(again / weight_files(again)[name])[name], load_file(causal / file)[name]), name


def test_a_link_shows_a_language_model_as_a_discriminator_and_copies_nothing(base: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(base)
    prepare_config(config, 1)
    prepare_causal_config(config, 0.0)
    head = ScalarHead(fresh_head_weight(config, seed=7))
    assert torch.equal(head.weight, load(base, fresh_head=True).score.weight), "the same numbers as on FSDP"
    target = tmp_path / "link"
    target.mkdir()
    link_causal(base, target, config, head)
    files = weight_files(target)
    assert torch.equal(read_head(target).weight, head.weight)
    assert files.keys() == {
        name for name in weight_files(base) if name != "lm_head.weight" and ".layers.1." not in name
    } | {"lm_head.weight"}
    body = files["model.norm.weight"]
    assert (target / body).is_symlink() and (target / body).resolve().parent == base.resolve()
    assert AutoConfig.from_pretrained(target).num_hidden_layers == 1


def test_what_is_no_discriminator_is_refused(base: Path, tmp_path: Path) -> None:
    assert read_head(base) is None
    for convert in (to_megatron, to_classifier):
        with pytest.raises(GadCheckpointError, match="no scalar head"):
            convert(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(GadCheckpointError, match="safetensors"):
        weight_files(tmp_path)
    save_discriminator(base, tmp_path / "classifier", 0.0)
    with pytest.raises(FileExistsError):
        to_megatron(tmp_path / "classifier", base)


def test_a_conversion_that_fails_leaves_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_discriminator(base, tmp_path / "classifier", 0.0)

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="no space"):
        to_megatron(tmp_path / "classifier", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "classifier"]
