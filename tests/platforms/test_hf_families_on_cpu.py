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
"""The rollout "hf" loads the class that verl's actor loads, so that the names of the weights are the same."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES, build_family
from transformers import AutoConfig
from verl.utils.model import get_hf_auto_model_class
from verl.workers.config import CheckpointEngineConfig, HFModelConfig, RolloutConfig
from verl.workers.engine.fsdp.utils import unfuse_moe_params

from gad_verl.rollout.hf_server import HFServer


def build_server(folder: Path, **override: Any) -> HFServer:
    model = HFModelConfig(path=str(folder), override_config={"attn_implementation": "sdpa", **override})
    rollout = RolloutConfig(
        name="hf", dtype="float32", checkpoint_engine=CheckpointEngineConfig(), prompt_length=8, response_length=8
    )
    return HFServer(rollout, model, 0)


@pytest.mark.parametrize("family", ["qwen3_5", "gpt_oss", "granite", "lfm2", "qwen3_moe", "mixtral", "granitemoe"])
def test_the_actors_weights_have_a_place(family: str, tmp_path: Path) -> None:
    """Qwen3.5 has other names in ``AutoModelForCausalLM``, gpt-oss has no SDPA, verl sends experts one by one."""
    folder = build_family(FAMILIES[family], tmp_path / "model")
    server = build_server(folder)
    actor = get_hf_auto_model_class(AutoConfig.from_pretrained(folder)).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    assert type(server.model) is type(actor)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)

    async def send() -> list[str]:
        sent = unfuse_moe_params(actor.state_dict().items(), server.model.config.model_type)
        return await server.load_weights(list(sent))

    assert asyncio.run(send()) == []
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
    with torch.no_grad():
        found, expected = (model.eval()(input_ids=ids).logits for model in (server.model, actor))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
