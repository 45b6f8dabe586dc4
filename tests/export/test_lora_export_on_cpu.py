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
from transformers import AutoModelForCausalLM, AutoTokenizer

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
