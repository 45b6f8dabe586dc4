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
"""Export of a student that was trained with LoRA, also where verl saved its adapter alone."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from tiny_model import build_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.weights import export_part

IDS = torch.arange(24).view(2, 12)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.fixture
def trained(tiny_folder: Path) -> PeftModel:
    base = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"])
    model = get_peft_model(base, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.3)
    return model


def save(model: PeftModel, tiny_folder: Path, checkpoint: Path, adapter_only: bool = False) -> Path:
    """What verl's workers and gad_verl's write on one rank."""
    folder = checkpoint / "actor"
    (folder / "huggingface").mkdir(parents=True)
    model.config.save_pretrained(folder / "huggingface")
    AutoTokenizer.from_pretrained(tiny_folder / "model").save_pretrained(folder / "huggingface")
    (folder / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 1, "world_size": 1}))
    state = {name: tensor for name, tensor in model.state_dict().items() if not adapter_only or "lora_" in name}
    torch.save(state, folder / "model_world_size_1_rank_0.pt")
    model.peft_config["default"].save_pretrained(str(folder))
    return checkpoint


@pytest.mark.parametrize("adapter_only", [False, True])
def test_merged(trained: PeftModel, tiny_folder: Path, tmp_path: Path, adapter_only: bool) -> None:
    expected = logits(trained)
    checkpoint = save(trained, tiny_folder, tmp_path / "global_step_1", adapter_only)
    before = os.umask(0o022 if adapter_only else 0o027)
    try:
        exported = export_part(checkpoint, "student", tmp_path / "exported")
    finally:
        os.umask(before)
    # Who may read it is for the umask to say, not for the library that wrote it.
    assert {path.stat().st_mode & 0o777 for path in exported.iterdir()} == {0o644 if adapter_only else 0o640}
    model = AutoModelForCausalLM.from_pretrained(exported)
    assert not any("lora" in name for name in model.state_dict())
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)
    assert AutoTokenizer.from_pretrained(exported).chat_template


@pytest.mark.parametrize("adapter_only", [False, True])
def test_adapter_alone(trained: PeftModel, tiny_folder: Path, tmp_path: Path, adapter_only: bool) -> None:
    expected = logits(trained)
    checkpoint = save(trained, tiny_folder, tmp_path / "global_step_1", adapter_only)
    exported = export_part(checkpoint, "student", tmp_path / "exported", adapter_only=True)
    config = json.loads((exported / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_folder / "model") and config["inference_mode"]
    base = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, exported)), expected, atol=1e-6, rtol=0)


def test_a_lost_base_is_named(trained: PeftModel, tiny_folder: Path, tmp_path: Path) -> None:
    checkpoint = save(trained, tiny_folder, tmp_path / "global_step_1", adapter_only=True)
    path = checkpoint / "actor" / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": str(tmp_path / "gone")}
    path.write_text(json.dumps(config))
    with pytest.raises(GadCheckpointError, match="adapter alone.*gone"):
        export_part(checkpoint, "student", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_an_adapter_that_does_not_fit(trained: PeftModel, tiny_folder: Path, tmp_path: Path) -> None:
    checkpoint = save(trained, tiny_folder, tmp_path / "global_step_1")
    path = checkpoint / "actor" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target_modules": ["q_proj"]}))
    with pytest.raises(GadCheckpointError, match="does not fit its own adapter_config.json.*down_proj"):
        export_part(checkpoint, "student", tmp_path / "exported")


def test_no_adapter_to_write(tiny_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    folder = tmp_path / "global_step_1" / "actor"
    (folder / "huggingface").mkdir(parents=True)
    (folder / "fsdp_config.json").write_text(json.dumps({"world_size": 1}))
    torch.save(model.state_dict(), folder / "model_world_size_1_rank_0.pt")
    with pytest.raises(GadCheckpointError, match="without LoRA"):
        export_part(tmp_path / "global_step_1", "student", tmp_path / "exported", adapter_only=True)


def train_tied(source: Path, **settings: Any) -> PeftModel:
    """A model whose head is its embedding, with an adapter of random weights; ``settings`` of LoraConfig."""
    base = AutoModelForCausalLM.from_pretrained(source)
    assert base.lm_head.weight is base.model.embed_tokens.weight
    model = get_peft_model(base, LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, lora_alpha=8, **settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save_tied(model: PeftModel, source: Path, checkpoint: Path, adapter_only: bool = False) -> Path:
    """The same of a base at ``source``."""
    return save(model, source.parent, checkpoint, adapter_only)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
@pytest.mark.parametrize("adapter_only", [False, True])
@pytest.mark.parametrize(
    ("settings", "stays_tied"),
    [
        ({"target_modules": ["q_proj"]}, True),
        ({"target_modules": ["q_proj", "embed_tokens"]}, False),
        ({"target_modules": ["q_proj", "lm_head"]}, False),
        ({"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, False),
        ({"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, False),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, False),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, False),
    ],
)
def test_a_tied_model_stays_the_function_that_was_trained(
    settings: dict[str, Any], stays_tied: bool, adapter_only: bool, tmp_path: Path
) -> None:
    source = build_model(tmp_path / "model", tie_word_embeddings=True)
    if adapter_only and "modules_to_save" in settings:
        pytest.skip("verl leaves out what is not of LoRA")
    trained = train_tied(source, **settings)
    expected = logits(trained)
    assert (expected - logits(AutoModelForCausalLM.from_pretrained(source))).abs().max() > 0.01
    checkpoint = save_tied(trained, source, tmp_path / "global_step_1", adapter_only)
    model = AutoModelForCausalLM.from_pretrained(export_part(checkpoint, "student", tmp_path / "exported"))
    assert model.config.tie_word_embeddings is stays_tied
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is stays_tied
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_the_adapter_alone_of_a_tied_model(target: str, tmp_path: Path) -> None:
    source = build_model(tmp_path / "model", tie_word_embeddings=True)
    trained = train_tied(source, target_modules=["q_proj", target])
    expected = logits(trained)
    checkpoint = save_tied(trained, source, tmp_path / "global_step_1")
    exported = export_part(checkpoint, "student", tmp_path / "exported", adapter_only=True)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), exported)
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_one_end_of_a_tied_pair_is_enough(target: str, tmp_path: Path) -> None:
    """What writes a tied weight once leaves either name out."""
    source = build_model(tmp_path / "model", tie_word_embeddings=True)
    trained = train_tied(source, target_modules=[target])
    expected = logits(trained)
    checkpoint = save_tied(trained, source, tmp_path / "global_step_1")
    shards = checkpoint / "actor" / "model_world_size_1_rank_0.pt"
    state = torch.load(shards)
    torch.save({name: tensor for name, tensor in state.items() if "lm_head" not in name or "lora_" in name}, shards)
    model = AutoModelForCausalLM.from_pretrained(export_part(checkpoint, "student", tmp_path / "exported"))
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
def test_a_family_that_always_ties_is_pointed_to_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = build_model(tmp_path / "model", tie_word_embeddings=True)
    trained = train_tied(source, target_modules=["embed_tokens"])
    checkpoint = save_tied(trained, source, tmp_path / "global_step_1")
    always = {"lm_head.weight": "model.embed_tokens.weight"}
    monkeypatch.setattr(Qwen2ForCausalLM, "get_expanded_tied_weights_keys", lambda *_, **__: dict(always))
    with pytest.raises(GadCheckpointError, match="Qwen2ForCausalLM.*--adapter"):
        export_part(checkpoint, "student", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
