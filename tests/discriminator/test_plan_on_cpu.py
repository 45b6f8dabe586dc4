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
"""Where sequences go: one pass or two, ranks of equal size and balanced load, the way back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_verl.discriminator.plan import fits_one_pass, plan_batch
from gad_verl.errors import GadConfigError

LENGTHS = st.lists(st.lists(st.integers(1, 3000), min_size=1, max_size=9), min_size=1, max_size=40)


@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, ranks=st.integers(1, 5), multiple=st.integers(1, 3))
def test_every_unit_comes_once_and_ranks_get_equal_numbers(lengths: list[list[int]], ranks: int, multiple: int) -> None:
    plan = plan_batch(lengths, ranks, multiple)
    assert sorted(place for place in plan.order if place is not None) == list(range(len(lengths)))
    assert len(plan.order) % (ranks * multiple) == 0
    assert len(plan.order) - len(lengths) < ranks * multiple
    assert plan.imbalance >= 1 - 1e-9


@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, ranks=st.integers(1, 5))
def test_values_come_back_in_the_given_order(lengths: list[list[int]], ranks: int) -> None:
    plan = plan_batch(lengths, ranks)
    units = torch.randn(len(lengths), 3)
    there = torch.stack(plan.padded(list(units), torch.full((3,), float("nan"))))
    assert torch.equal(plan.restored(there), units)


def test_imbalance_is_that_of_the_plan_and_below_that_of_the_given_order() -> None:
    """Below on average: a single batch of so uneven lengths may be planned worse than another one falls by chance."""
    generator, ranks, batches = torch.Generator().manual_seed(0), 4, 30
    planned_imbalance = given_imbalance = 0.0
    for _ in range(batches):
        lengths = torch.empty(64, 9).log_normal_(5.0, 1.0, generator=generator).clamp(1, 4000).long()
        plan = plan_batch(lengths.tolist(), ranks)
        tokens = lengths.sum(dim=1).double()
        planned = tokens[torch.tensor(plan.order)].view(ranks, -1).sum(dim=1)
        assert plan.imbalance == pytest.approx((planned.max() / planned.mean()).item())
        given = tokens.view(ranks, -1).sum(dim=1)
        planned_imbalance += plan.imbalance / batches
        given_imbalance += (given.max() / given.mean()).item() / batches
    assert planned_imbalance < 1.02 < given_imbalance


def test_long_units_of_a_rank_come_first() -> None:
    plan = plan_batch([[10], [40], [30], [20]], 1)
    assert plan.order == [1, 2, 3, 0]


def test_padding_of_a_rank_does_not_count_as_tokens() -> None:
    assert plan_batch([[100], [100], [100]], 2).imbalance == pytest.approx(200 / 150)


@pytest.mark.parametrize(
    ("passes", "limit", "expected"), [("auto", 100, True), ("auto", 99, False), ("two", 100, False)]
)
def test_one_pass_where_the_largest_group_fits(passes: str, limit: int, expected: bool) -> None:
    assert fits_one_pass([40, 100], 30, limit, passes, "key") is expected


def test_micro_batches_counted_in_sequences_hold_every_group() -> None:
    assert fits_one_pass([10**9], 10**8, None, "auto", "key")


def test_what_fits_no_micro_batch_names_its_length_and_the_key() -> None:
    with pytest.raises(GadConfigError, match="has 101 tokens.*holds 100.*discriminator.x.*discriminator_passes=auto"):
        fits_one_pass([50, 101], 40, 100, "one", "discriminator.x")
    for passes in ("auto", "two"):
        with pytest.raises(GadConfigError, match="a sequence has 130 tokens.*discriminator.x to at least 130"):
            fits_one_pass([500, 101], 130, 100, passes, "discriminator.x")
