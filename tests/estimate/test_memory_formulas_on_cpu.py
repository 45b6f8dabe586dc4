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
"""Bytes by formula against the bytes that torch holds."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification

from gad_verl.tools.estimate import memory
from gad_verl.tools.estimate.adapters import Adapters
from gad_verl.tools.estimate.ranges import Range
from gad_verl.tools.estimate.roles import Layout, Role
from gad_verl.tools.estimate.shape import ModelShape, find_shape, shape_of_config

FIGURES = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "vocab_size": 50,
    "tie_word_embeddings": False,
}
SHAPE = shape_of_config(FIGURES, "tiny")
BIG = find_shape("Qwen/Qwen2.5-7B-Instruct", "key")


def role(shape: ModelShape = BIG, gpus: int = 8, **settings: Any) -> Role:
    layout = settings.pop("layout", Layout("fsdp", gpus, shards=gpus))
    return Role(settings.pop("name", "student"), shape, layout, **settings)


def build(factory: Any, dtype: torch.dtype) -> Any:
    figures = {key: value for key, value in FIGURES.items() if key != "model_type"}
    config = AutoConfig.for_model("qwen2", **figures, num_labels=1, attn_implementation="sdpa", classifier_dropout=0.0)
    torch.manual_seed(0)
    return factory.from_config(config).to(dtype).train()


def saved_bytes(model: Any, ids: torch.Tensor) -> int:
    """Storages that the graph keeps, parameters apart."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, use_cache=False)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_saved_activations_are_those_of_autograd(dtype: torch.dtype, checkpointing: bool) -> None:
    model = build(AutoModelForTokenClassification, dtype)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ids = torch.zeros(4, 32, dtype=torch.long)
    judge = role(
        SHAPE,
        1,
        scalar_head=True,
        stored_bytes=dtype.itemsize,
        computed_bytes=dtype.itemsize,
        checkpointing=checkpointing,
    )
    found = saved_bytes(model, ids)
    once, twice = (replace(judge, micro_tokens=times * ids.numel()) for times in (1, 2))
    assert memory.saved_activations(once) == pytest.approx(found, rel=0.12)
    assert memory.saved_activations(twice) == 2 * memory.saved_activations(once)


def test_parameters_gradients_and_adam_are_those_of_torch() -> None:
    model = build(AutoModelForCausalLM, torch.float32)
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    states = memory.states(role(SHAPE, 1))

    def size(tensors: Any) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    assert states.parameters == size(model.parameters())
    assert states.gradients == size(parameter.grad for parameter in model.parameters())
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert states.optimizer == size(moments)


def test_the_cache_is_that_of_transformers() -> None:
    model = build(AutoModelForCausalLM, torch.bfloat16).eval()
    with torch.no_grad():
        cache = model(input_ids=torch.zeros(1, 7, dtype=torch.long), use_cache=True).past_key_values
    held = sum(
        tensor.numel() * tensor.element_size() for layer in cache.layers for tensor in (layer.keys, layer.values)
    )
    assert held == 7 * memory.kv_bytes_per_token(SHAPE, 2)


def test_fsdp_shards_everything_but_what_is_gathered() -> None:
    eight, sixteen = role(), role(gpus=16)
    for name in ("parameters", "gradients", "optimizer"):
        assert getattr(memory.states(eight), name) == 2 * getattr(memory.states(sixteen), name)
    # 16 bytes a parameter in float32 with Adam.
    held = memory.states(eight)
    assert held.parameters + held.gradients + held.optimizer == 16 * BIG.language_model_parameters / 8
    assert memory.unsharded_bytes(eight, True) == memory.unsharded_bytes(sixteen, True) > 0
    alone = role(gpus=1, stored_bytes=4, computed_bytes=4)
    assert memory.unsharded_bytes(alone, True) == 0


def test_only_adapters_have_gradients_and_moments() -> None:
    whole, adapted = memory.states(role()), memory.states(role(adapters=Adapters(16)))
    assert adapted.parameters == whole.parameters
    assert adapted.gradients < 0.01 * whole.gradients and adapted.optimizer < 0.01 * whole.optimizer


def test_offloading_moves_bytes_to_the_host_and_changes_nothing_while_the_model_works() -> None:
    here = role()
    away = role(param_offload=True, optimizer_offload=True)
    held = memory.states(here)
    assert memory.asleep_bytes(here) == held.parameters + held.optimizer
    assert memory.asleep_bytes(away) == 0
    assert memory.awake_bytes(here, True) == memory.awake_bytes(away, True)
    assert memory.host_bytes(here) == 0 and memory.host_bytes(away) == memory.asleep_bytes(here)
    # A forward pass needs no optimizer.
    assert memory.awake_bytes(away, False) == held.parameters
    reference = role(name="reference", always_on_host=True)
    assert memory.asleep_bytes(reference) == memory.awake_bytes(reference, False) == 0


def test_megatron_divides_by_its_parallel_sizes() -> None:
    one = memory.states(role(layout=Layout("megatron", 8)))
    # bfloat16 parameters and a float32 gradient buffer on each GPU, master copy and moments over 8 replicas.
    count = BIG.language_model_parameters
    assert one.parameters == 2 * count and one.gradients == 4 * count
    assert one.optimizer == pytest.approx(12 * count / 8)
    split = memory.states(role(layout=Layout("megatron", 8, tensor=4)))
    assert split.parameters == pytest.approx(one.parameters / 4)
    assert split.optimizer == pytest.approx(one.optimizer)
    staged = memory.states(role(layout=Layout("megatron", 8, pipeline=4)))
    assert staged.parameters > one.parameters / 4  # a whole embedding on the first stage
    moe = find_shape("Qwen/Qwen3-30B-A3B", "key")
    spread = memory.states(role(moe, layout=Layout("megatron", 8, experts=8)))
    dense = moe.language_model_parameters - moe.layers * moe.expert_matrices
    assert spread.parameters == pytest.approx(2 * (dense + moe.layers * moe.expert_matrices / 8))


@given(st.integers(4096, 65536), st.integers(1, 6))
def test_more_tokens_need_more_and_checkpointing_less(tokens: int, times: int) -> None:
    base = role(micro_tokens=tokens)
    more = role(micro_tokens=tokens * (times + 1))
    assert memory.training_bytes(more).low > memory.training_bytes(base).low
    plain = replace(base, checkpointing=False)
    assert memory.training_bytes(base).high < memory.training_bytes(plain).high
    assert memory.scoring_bytes(base).low < memory.training_bytes(base).low
    fused = replace(base, fused_head=True)
    assert memory.training_bytes(fused).high <= memory.training_bytes(base).high


def test_a_discriminator_has_no_logits() -> None:
    student, judge = role(), role(scalar_head=True)
    copies = Range.exact(1.0)
    assert memory.logits_bytes(student, 10, copies).low == 10 * BIG.vocab * 2
    assert memory.logits_bytes(judge, 10, copies).low == 40


def test_packed_rows_without_flash_attention_need_a_mask() -> None:
    assert memory.mask_bytes(role(), 1000) == 0
    assert memory.mask_bytes(role(flash_attention=False), 1000) == 2e6
    assert memory.mask_bytes(role(flash_attention=False, remove_padding=False), 1000) == 0


def test_a_checkpoint_holds_weights_and_moments() -> None:
    count = BIG.language_model_parameters
    assert memory.checkpoint_bytes(role()) == 12 * count
    assert memory.checkpoint_bytes(role(), ("model",)) == 4 * count
    assert memory.checkpoint_bytes(role(), ("model", "hf_model")) == 6 * count
    tied = find_shape("Qwen/Qwen2.5-3B-Instruct", "key")
    assert memory.checkpoint_bytes(role(tied), ("model",)) == 4 * (tied.body_parameters + tied.embedding_parameters)
    megatron = role(layout=Layout("megatron", 8), stored_bytes=2)
    assert memory.checkpoint_bytes(megatron) == 14 * count
