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

import pytest
import torch
from transformers import AutoModelForTokenClassification, LlamaConfig, MistralConfig

from gad_verl.discriminator.shared_prompt import (
    CostModel,
    build_cost_model,
    can_share_prompts,
    pack_groups,
    packed_length,
)


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


def _model(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_labels=1,
        attn_implementation="sdpa",
        **options,
    )
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
    assert can_share_prompts(_model(), 1)
    assert not can_share_prompts(_model(), 2)
    eager = _model()
    eager.config._attn_implementation = "eager"
    assert not can_share_prompts(eager, 1)
    sliding = AutoModelForTokenClassification.from_config(
        MistralConfig(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=8,
            attn_implementation="sdpa",
        )
    )
    assert not can_share_prompts(sliding, 1)
