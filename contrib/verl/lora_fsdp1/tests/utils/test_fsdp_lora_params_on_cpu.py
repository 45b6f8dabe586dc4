# Copyright 2025 Individual Contributor: The gad_verl Authors
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
"""The adapter that goes to the rollout holds every weight of LoRA, whatever shards the model.

PEFT >= 0.21 chooses the weights by the names of its modules. FSDP1 puts ``_fsdp_wrapped_module`` into these names, and
the layered collection passes names that begin in the middle of the model: in both cases PEFT finds nothing.
"""

import logging

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from peft import LoraConfig, get_peft_model
from peft.utils.save_and_load import get_peft_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

from verl.utils import fsdp_utils
from verl.utils.fsdp_utils import collect_lora_params, get_fsdp_wrap_policy

WORLD_SIZE = 2


def _start(rank, store, check, arguments):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD_SIZE)
    check(*arguments)
    dist.destroy_process_group()


def _on_ranks(tmp_path, check, *arguments):
    """Run ``check`` on each rank. The processes are forked: what was imported is not imported again."""
    mp.start_processes(_start, (str(tmp_path / "store"), check, arguments), nprocs=WORLD_SIZE, start_method="fork")


def _lora_model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    return model


def _shard(model, version: int):
    if version == 1:
        # One unit a layer, and one for each of LoRA's matrices below it.
        policy = get_fsdp_wrap_policy(model, is_lora=True)
        module = FSDP(model, auto_wrap_policy=policy, device_id=torch.device("cpu"), use_orig_params=True)
        # The engine's first forward, which makes the shards.
        module(input_ids=torch.tensor([[1, 2, 3]]))
        return module
    mesh = init_device_mesh("cpu", (WORLD_SIZE,))
    for layer in model.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def _check_every_weight(version, layered_summon):
    model = _lora_model()
    expected = {name: weight.detach().clone() for name, weight in get_peft_model_state_dict(model).items()}
    assert len(expected) == 2 * 2 * 2
    told = []
    logging.getLogger(fsdp_utils.__name__).addFilter(lambda record: told.append(record.getMessage()))

    collected = collect_lora_params(_shard(model, version), layered_summon=layered_summon, base_sync_done=True)

    assert collected.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(collected[name], weight, rtol=0, atol=0)
    # A second attempt gathers the whole model, which the layered collection is there to avoid.
    assert not any("falling back to full summon" in message for message in told)


@pytest.mark.parametrize(("version", "layered_summon"), [(1, False), (1, True), (2, True)])
def test_every_lora_weight_is_collected(version, layered_summon, tmp_path):
    _on_ranks(tmp_path, _check_every_weight, version, layered_summon)


def _check_empty_adapter():
    module = _shard(_lora_model(), version=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsdp_utils, "get_peft_model_state_dict", lambda *_, **__: {})
        patch.setattr("peft.utils.save_and_load.get_peft_model_state_dict", lambda *_, **__: {})
        with pytest.raises(RuntimeError, match="none of its weights"):
            collect_lora_params(module, layered_summon=False, base_sync_done=True)


def test_an_adapter_without_weights_is_an_error(tmp_path):
    _on_ranks(tmp_path, _check_empty_adapter)


def _check_names():
    module = _shard(_lora_model(), version=1)
    before = [name for name, _ in module.named_modules()]
    collect_lora_params(module, layered_summon=False, base_sync_done=True)
    assert [name for name, _ in module.named_modules()] == before
    assert any("_fsdp_wrapped_module" in name for name in before)


def test_names_of_modules_are_as_before_afterwards(tmp_path):
    _on_ranks(tmp_path, _check_names)
