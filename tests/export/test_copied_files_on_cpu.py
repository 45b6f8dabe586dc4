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
"""What an exported student takes over from the checkpoint beside its weights."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from run_folders import save_part, write_run
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from gad_verl.data.tokens import stop_token_ids
from gad_verl.tools.export.weights import export_part

# Of the tiny vocabulary: the end of a turn, and one that stands in generation_config.json alone.
EOS, SECOND = 256, 258


@pytest.mark.parametrize("lora", ["none", "merged", "adapter"])
def test_generation_settings(tiny_folder: Path, tmp_path: Path, lora: str) -> None:
    """The stop tokens of Qwen and Llama stand there alone, in part: without them texts do not end."""
    source = tiny_folder / "model"
    model = AutoModelForCausalLM.from_pretrained(source)
    if lora != "none":
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    checkpoint = write_run(tmp_path / "run", {"gad": {"stage": "auto"}}, 3)
    save_part(checkpoint / "actor", model, source)
    # As verl writes it: what the folder held that the training began with.
    wanted = GenerationConfig(eos_token_id=[EOS, SECOND], temperature=0.7, top_k=20, do_sample=True)
    wanted.save_pretrained(checkpoint / "actor" / "huggingface")
    out = export_part(checkpoint, "student", tmp_path / "out", adapter_only=lora == "adapter")
    found = GenerationConfig.from_pretrained(out)
    assert found.to_diff_dict() == wanted.to_diff_dict()
    assert stop_token_ids(AutoTokenizer.from_pretrained(out), found) == {EOS, SECOND}


def test_configuration_and_weights_are_those_of_the_export(tiny_folder: Path, tmp_path: Path) -> None:
    source = tiny_folder / "model"
    model = AutoModelForCausalLM.from_pretrained(source)
    checkpoint = write_run(tmp_path / "run", {"gad": {"stage": "auto"}}, 3)
    save_part(checkpoint / "actor", model, source)
    (checkpoint / "actor" / "huggingface" / "model.safetensors").write_bytes(b"other weights")
    out = export_part(checkpoint, "student", tmp_path / "out", dtype=torch.bfloat16)
    exported = AutoModelForCausalLM.from_pretrained(out)
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    for name, tensor in model.state_dict().items():
        assert torch.equal(exported.state_dict()[name], tensor.bfloat16())
