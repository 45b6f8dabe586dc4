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
"""Shared prompts under flash attention: a kernel in plain torch stands in for the package's.

What a real kernel computes is tested by tests/gpu; here, that it is given the right keys.
"""

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from plain_flash import flash_attn_varlen_func, plain_flash
from transformers import AutoModelForTokenClassification, Gemma2Config, MistralConfig, PretrainedConfig, Qwen3Config
from transformers import modeling_flash_attention_utils as utils
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gad_verl.discriminator.shared_keys import AttentionWithKeys, attend_with_keys
from gad_verl.discriminator.sharing import choose_sharing, why_apart
from gad_verl.errors import GadConfigError

FLASH = "flash_attention_2"
GROUP = 4
# Windows are shorter than the prompts; Gemma 2 caps its attention, and every second layer has a window.
FAMILIES = {
    "all positions": (Qwen3Config, {"head_dim": 8}),
    "a window": (MistralConfig, {"sliding_window": 5}),
    "both, capped": (Gemma2Config, {"sliding_window": 4, "head_dim": 8, "attn_logit_softcapping": 2.0}),
}


@pytest.fixture(autouse=True)
def kernel() -> Iterator[None]:
    before = ALL_ATTENTION_FUNCTIONS[FLASH]
    with plain_flash():
        yield
    ALL_ATTENTION_FUNCTIONS.register(FLASH, before)


def build(family: type[PretrainedConfig], attention: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    config = family(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_labels=1,
        attention_dropout=0.0,
        classifier_dropout=0.0,
        **options,
    )
    config._attn_implementation = attention
    return AutoModelForTokenClassification.from_config(config).eval()


def groups(seed: int) -> tuple[list[torch.Tensor], list[int]]:
    """Groups with a placeholder and a row that is its prompt, with a prompt of one token, and of placeholders alone."""
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> torch.Tensor:
        return torch.randint(1, 99, (int(torch.randint(low, high, (1,), generator=generator)),), generator=generator)

    rows, prompts = [], []
    for longest in (14, 14, 2):
        prompt = ids(min(2, longest - 1), longest)
        prompts.append(len(prompt))
        rows += [torch.cat([prompt, ids(1, 9)]) for _ in range(GROUP)]
    rows[5], rows[6] = torch.tensor([0]), rows[6][: prompts[1]]
    return [*rows, *[torch.tensor([0])] * GROUP], [*prompts, 0]


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients_are_those_of_the_rows_alone(family: str, checkpointing: bool, seed: int) -> None:
    kind, options = FAMILIES[family]
    # Plain attention, which knows neither packing nor a kernel.
    plain, model = build(kind, "eager", **options), build(kind, FLASH, **options)
    model.load_state_dict(plain.state_dict())
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    rows, prompts = groups(seed)
    weights = [torch.randn(len(row)) for row in rows]
    alone = [plain(input_ids=row.unsqueeze(0), use_cache=False).logits.flatten() for row in rows]
    sum((value * weight).sum() for value, weight in zip(alone, weights, strict=True)).backward()

    sharing = choose_sharing(model, 1, "always")
    packed = sharing.pack(rows, prompts, GROUP)
    values = model(**packed.model_inputs(), use_cache=False).logits.flatten()[packed.token_index]
    sharing.check(packed)
    (values * torch.cat(weights)).sum().backward()
    torch.testing.assert_close(values, torch.cat(alone), atol=1e-5, rtol=0)
    wanted = gradients(plain)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-5)


def test_only_asked_for() -> None:
    """Nobody has timed it on a GPU, so the default leaves the rows apart."""
    model = build(Qwen3Config, FLASH)
    assert why_apart(model, 1) is None
    assert choose_sharing(model, 1, "auto") is None
    assert choose_sharing(model, 1, "never") is None
    assert not isinstance(ALL_ATTENTION_FUNCTIONS[FLASH], AttentionWithKeys)


def test_other_batches_are_computed_as_before() -> None:
    model = build(MistralConfig, FLASH, sliding_window=5)
    rows = torch.randint(1, 99, (3, 11))
    before = model(input_ids=rows, use_cache=False).logits
    attend_with_keys(FLASH)
    assert torch.equal(model(input_ids=rows, use_cache=False).logits, before)


def test_attention_is_wrapped_once() -> None:
    attend_with_keys(FLASH)
    wrapped = ALL_ATTENTION_FUNCTIONS[FLASH]
    attend_with_keys(FLASH)
    assert isinstance(wrapped, AttentionWithKeys) and ALL_ATTENTION_FUNCTIONS[FLASH] is wrapped


def test_a_model_that_does_not_hand_the_keys_on_is_an_error() -> None:
    model = build(Qwen3Config, FLASH)
    sharing = choose_sharing(model, 1, "always")
    # Of one layer alone: the others would attend to something else.
    layer = model.model.layers[1].self_attn
    forward = layer.forward
    layer.forward = lambda *args, shared_prompt_keys=None, **kwargs: forward(*args, **kwargs)
    rows, prompts = groups(0)
    packed = sharing.pack(rows, prompts, GROUP)
    model(**packed.model_inputs(), use_cache=False)
    with pytest.raises(GadConfigError, match="1 of 2 layers of the family qwen3"):
        sharing.check(packed)


def test_models_that_see_something_else_are_refused() -> None:
    model = build(Qwen3Config, FLASH)
    with mock.patch.object(type(model), "_supports_attention_backend", False):
        assert "hand on" in why_apart(model, 1)
    with mock.patch.object(utils, "flash_attn_supports_top_left_mask", lambda: True):
        assert "first query" in why_apart(model, 1)
    chunked = build(Qwen3Config, FLASH, layer_types=["full_attention", "sliding_attention"], sliding_window=4)
    chunked.config.layer_types = ["full_attention", "chunked_attention"]
    assert "chunked_attention" in why_apart(chunked, 1)


def test_the_stand_in_is_torchs_attention() -> None:
    """The kernel of this file itself, where torch has the same: causal, keys as many as queries, and more."""
    lengths = [(3, 3), (2, 7)]
    query, key, value = (torch.randn(5, 4, 8), torch.randn(10, 2, 8), torch.randn(10, 2, 8))
    ends = torch.tensor([[0, 0], *lengths]).cumsum(0).int()
    found = flash_attn_varlen_func(query, key, value, ends[:, 0], ends[:, 1], 3, 7, causal=True)
    for number, (queries, keys) in enumerate(lengths):
        mine = slice(ends[number, 0], ends[number + 1, 0]), slice(ends[number, 1], ends[number + 1, 1])
        mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        parts = [part.transpose(0, 1) for part in (query[mine[0]], key[mine[1]], value[mine[1]])]
        wanted = torch.nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask, enable_gqa=True)
        torch.testing.assert_close(found[mine[0]], wanted.transpose(0, 1), atol=1e-6, rtol=0)
