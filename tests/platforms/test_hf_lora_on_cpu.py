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
"""The rollout "hf" under LoRA: it answers as the student with its adapter does."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model, get_peft_model_state_dict
from transformers import AutoModelForCausalLM

from gad_verl.rollout.hf_server import HFServer
from gad_verl.rollout.served_weights import ServedWeights

IDS = torch.arange(24).view(2, 12)


@pytest.fixture
def server(tiny_folder: Path) -> HFServer:
    """The part of a server that holds weights."""
    server = HFServer.__new__(HFServer)
    server.model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model").eval()
    server._weights = ServedWeights(server.model)
    server._adapter = None
    return server


def student(tiny_folder: Path, seed: int) -> Any:
    """A student whose adapter is not zero."""
    base = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, lora_alpha=8, target_modules="all-linear")
    model = get_peft_model(base, config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, 0.3, generator=generator))
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_each_adapter_replaces_the_one_before(server: HFServer, tiny_folder: Path) -> None:
    before = logits(server.model)
    for seed in (1, 2):
        trained = student(tiny_folder, seed)
        config = trained.peft_config["default"].to_dict()
        assert asyncio.run(server.load_adapter(get_peft_model_state_dict(trained), config)) == []
        assert (logits(server.model) - before).abs().max() > 0.1
        torch.testing.assert_close(logits(server.model), logits(trained), atol=1e-6, rtol=0)


def test_the_base_can_be_sent_before_and_after(server: HFServer, tiny_folder: Path) -> None:
    trained = student(tiny_folder, 1)
    with torch.no_grad():
        trained.get_base_model().model.embed_tokens.weight.mul_(2.0)
    base = [(name, tensor.clone()) for name, tensor in trained.unload().state_dict().items()]
    trained = student(tiny_folder, 1)
    trained.get_base_model().model.embed_tokens.weight.data.mul_(2.0)
    config = trained.peft_config["default"].to_dict()
    for _ in range(2):
        assert asyncio.run(server.load_weights(base)) == []
        assert asyncio.run(server.load_adapter(get_peft_model_state_dict(trained), config)) == []
        torch.testing.assert_close(logits(server.model), logits(trained), atol=1e-6, rtol=0)


def test_unknown_weights_are_named(server: HFServer, tiny_folder: Path) -> None:
    assert asyncio.run(server.load_weights([("model.nonsense.weight", torch.zeros(1))])) == ["model.nonsense.weight"]
    trained = student(tiny_folder, 1)
    weights = get_peft_model_state_dict(trained)
    weights["base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 64)
    assert asyncio.run(server.load_adapter(weights, trained.peft_config["default"].to_dict())) != []
