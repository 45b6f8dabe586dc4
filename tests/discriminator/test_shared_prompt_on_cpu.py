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
"""Packed groups: the mask shows each response its prompt and itself only; sharing where it costs less."""

import logging

import pytest
import torch
from transformers import AutoModelForTokenClassification, LlamaConfig, MistralConfig, PretrainedConfig

from gad_verl.discriminator.shared_keys import pack_keyed_groups
from gad_verl.discriminator.shared_prompt import (
    CostModel,
    build_cost_model,
    pack_groups,
    packed_length,
)
from gad_verl.discriminator.sharing import choose_sharing, why_apart


def _groups(seed: int, size: int = 4) -> tuple[list[torch.Tensor], list[int]]:
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> torch.Tensor:
        return torch.randint(0, 99, (int(torch.randint(low, high, (1,), generator=generator)),), generator=generator)

    rows, prompts = [], []
    for _ in range(3):
        prompt = ids(1, 12)
        prompts.append(len(prompt))
        rows += [torch.cat([prompt, ids(0, 9)]) for _ in range(size)]
    return rows, prompts


def _model(family: type[PretrainedConfig] = LlamaConfig, attention: str = "sdpa", **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    config = family(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_labels=1,
        **options,
    )
    config._attn_implementation = attention
    return AutoModelForTokenClassification.from_config(config).eval()


@pytest.mark.parametrize("seed", range(5))
def test_values_of_packed_groups_are_those_of_the_rows_alone(seed: int) -> None:
    model = _model()
    rows, prompts = _groups(seed)
    rows[5] = torch.tensor([7]) if prompts[1] > 1 else rows[5]
    packed = pack_groups(rows, prompts, 4)
    logits = model(
        input_ids=packed.input_ids,
        attention_mask=packed.attention_mask,
        position_ids=packed.position_ids,
        use_cache=False,
    ).logits
    values = logits.flatten()[packed.token_index].split([len(row) for row in rows])
    for row, value in zip(rows, values, strict=True):
        alone = model(input_ids=row.unsqueeze(0), use_cache=False).logits.flatten()
        torch.testing.assert_close(value, alone, atol=1e-6, rtol=0)
    ids = packed.input_ids.flatten()[packed.token_index].split([len(row) for row in rows])
    assert all(torch.equal(found, row) for found, row in zip(ids, rows, strict=True))


def test_a_group_of_placeholders_is_packed_without_prompt() -> None:
    rows = [torch.tensor([0])] * 3
    packed = pack_groups(rows, [0], 3)
    assert packed.input_ids.shape == (1, 3)
    assert torch.equal(packed.attention_mask[0, 0], torch.eye(3, dtype=torch.bool))


def test_the_packed_length_counts_the_prompt_once() -> None:
    assert packed_length([10, 12, 15], 8) == 8 + 2 + 4 + 7
    assert packed_length([10, 1, 15], 8) == 8 + 2 + 1 + 7


def test_sharing_pays_for_long_prompts_and_not_for_short_ones() -> None:
    cost = CostModel(per_token=1e6, per_pair=2e3)
    long, short = [[2048 + 64] * 9], [[8 + 256] * 9]
    assert cost.sharing_pays(long, [2048], padded=True)
    assert not cost.sharing_pays(short, [8], padded=True)
    # One block mask over all rows computes even more pairs than one per group.
    assert cost.sharing_pays(short * 4, [8] * 4, padded=False)


def test_the_cost_model_counts_the_parameters_of_the_matrices() -> None:
    model = _model()
    cost = build_cost_model(model)
    assert cost.per_token == sum(p.numel() for p in model.parameters()) - 100 * 32
    assert cost.per_pair == 2 * 2 * 32


def test_work_is_that_of_matrices_and_pairs() -> None:
    cost = CostModel(per_token=10.0, per_pair=3.0)
    assert cost.separate([[4, 4], [4, 4]], padded=True) == 4 * (10 * 4 + 3 * 16 / 2)
    assert cost.separate([[4, 2], [4, 4]], padded=True) == 4 * (10 * 4 + 3 * 16)
    assert cost.separate([[4, 2], [4, 4]], padded=False) == 10 * 14 + 3 * 14**2
    assert cost.shared([[4, 2], [4, 4]], [1, 2]) == 2 * (10 * 6 + 3 * 36)


def test_models_that_see_something_else_are_refused() -> None:
    assert why_apart(_model(), 1) is None
    assert "ulysses" in why_apart(_model(), 2)
    assert "eager" in why_apart(_model(attention="eager"), 1)
    assert "sliding_attention" in why_apart(_model(MistralConfig, sliding_window=8), 1)


def test_always_says_why_rows_stay_apart(caplog: pytest.LogCaptureFixture) -> None:
    model = _model(MistralConfig, sliding_window=8)
    with caplog.at_level(logging.WARNING):
        assert choose_sharing(model, 1, "auto") is None
        assert choose_sharing(model, 1, "never") is None
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        assert choose_sharing(model, 1, "always") is None
    assert "discriminator_share_prompt=always" in caplog.text and "sliding_attention" in caplog.text


@pytest.mark.parametrize("seed", range(3))
def test_both_forms_hold_the_same_tokens(seed: int) -> None:
    rows, prompts = _groups(seed)
    rows[5] = torch.tensor([7]) if prompts[1] > 1 else rows[5]
    masked, keyed = pack_groups(rows, prompts, 4), pack_keyed_groups(rows, prompts, 4)
    for name in ("input_ids", "position_ids"):
        found = getattr(keyed, name).flatten()[keyed.token_index]
        assert torch.equal(found, getattr(masked, name).flatten()[masked.token_index])
    # What every token sees is what the mask shows it.
    seen = masked.attention_mask.squeeze(1).sum(-1).flatten()[masked.token_index]
    assert torch.equal(seen, keyed.position_ids.flatten()[keyed.token_index] + 1)
    keys = keyed.keys
    lengths = keys.query_offsets.diff(), keys.key_offsets.diff()
    assert (lengths[0] > 0).all() and (lengths[0] <= lengths[1]).all()
    assert keys.longest == (int(lengths[0].max()), int(lengths[1].max()))
    assert len(keys.index) == keys.key_offsets[-1] and keyed.input_ids.shape[1] == keys.query_offsets[-1]
