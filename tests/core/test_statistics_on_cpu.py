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
"""Score statistics, correlation and token-level rewards against naive loops."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_verl.core import correlation, score_statistics, sequence_rewards_to_token_level


def naive_statistics(teacher: list[float], student: list[list[float]], weights: list[list[float]]) -> dict[str, float]:
    """The same numbers, pair by pair."""
    margins, used_teacher, used_student, spreads = [], [], [], []
    for t, row, row_weights in zip(teacher, student, weights, strict=True):
        kept = [s for s, w in zip(row, row_weights, strict=True) if w > 0]
        margins += [t - s for s in kept]
        used_student += kept
        if kept:
            used_teacher.append(t)
        if len(kept) >= 2:
            spreads.append(max(kept) - min(kept))
    if not margins:
        return {}
    result = {
        "num_pairs": float(len(margins)),
        "accuracy": sum(1.0 if m > 0 else 0.5 if m == 0 else 0.0 for m in margins) / len(margins),
        "saturated_fraction": sum(m > 700 or 1 / (1 + math.exp(-m)) > 0.99 for m in margins) / len(margins),
        "margin_mean": float(np.mean(margins)),
        "margin_std": float(np.std(margins)),
    }
    for side, scores in (("teacher", used_teacher), ("student", used_student)):
        result[f"{side}_score_mean"] = float(np.mean(scores))
        result[f"{side}_score_std"] = float(np.std(scores))
        result[f"{side}_score_lowest"] = min(scores)
        result[f"{side}_score_highest"] = max(scores)
    if spreads:
        result["no_spread_fraction"] = sum(spread < 1e-6 for spread in spreads) / len(spreads)
    return result


@given(seed=st.integers(0, 10**6), prompts=st.integers(1, 6), n=st.integers(1, 5), removed=st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_statistics_equal_naive_loops(seed: int, prompts: int, n: int, removed: float) -> None:
    rng = random.Random(seed)
    # Few distinct values: ties and groups without spread do occur. 4.6 and 5.0 saturate, 4.5 does not.
    values = [0.0, 0.5, -1.0, 2.0, 4.6, 4.5, 5.0]
    teacher = [rng.choice(values) for _ in range(prompts)]
    student = [[rng.choice(values) for _ in range(n)] for _ in range(prompts)]
    weights = [[0.0 if rng.random() < removed else rng.choice([0.5, 1.0]) for _ in range(n)] for _ in range(prompts)]
    # What is removed must have no influence, whatever it is.
    damaged = [
        [s if w > 0 else math.nan for s, w in zip(row, row_weights, strict=True)]
        for row, row_weights in zip(student, weights, strict=True)
    ]
    damaged_teacher = [t if any(row) else math.inf for t, row in zip(teacher, weights, strict=True)]
    found = score_statistics(torch.tensor(damaged_teacher), torch.tensor(damaged), torch.tensor(weights))
    assert found == pytest.approx(naive_statistics(teacher, student, weights), abs=1e-6)
    unweighted = score_statistics(torch.tensor(teacher), torch.tensor(student))
    assert unweighted == pytest.approx(naive_statistics(teacher, student, [[1.0] * n] * prompts), abs=1e-6)
    assert not any("min" in name for name in found | unweighted)


def test_ties_count_half_and_the_edges() -> None:
    statistics = score_statistics(torch.tensor([1.0, 1.0]), torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    assert statistics["accuracy"] == 0.5 and statistics["no_spread_fraction"] == 1.0
    assert score_statistics(torch.tensor([2.0]), torch.tensor([[1.0, 3.0, 2.0]]))["accuracy"] == 0.5
    assert "no_spread_fraction" not in score_statistics(torch.tensor([2.0]), torch.tensor([[1.0]]))


def test_saturation_threshold() -> None:
    threshold = math.log(0.99 / 0.01)
    student = torch.tensor([[-threshold - 1e-9, -threshold + 1e-9, 100.0]], dtype=torch.float64)
    statistics = score_statistics(torch.zeros(1, dtype=torch.float64), student)
    assert statistics["saturated_fraction"] == pytest.approx(1 / 3)


def test_no_pair_gives_nothing() -> None:
    assert score_statistics(torch.zeros(2), torch.zeros(2, 3), torch.zeros(2, 3)) == {}
    assert score_statistics(torch.zeros(0), torch.zeros(0, 3)) == {}


def test_statistics_take_scores_that_require_gradients() -> None:
    student = torch.tensor([[0.0, 1.0]], requires_grad=True)
    assert score_statistics(torch.tensor([0.5], requires_grad=True), student)["margin_mean"] == pytest.approx(0.0)


@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(-100, 100)), min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_correlation_equals_numpy(pairs: list[tuple[int, int]]) -> None:
    first, second = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    found = correlation(first, second)
    if len(first.unique()) == 1 or len(second.unique()) == 1:
        assert found == pytest.approx(0.0, abs=1e-12)
    else:
        assert found == pytest.approx(np.corrcoef(first, second)[0, 1], abs=1e-9)
        assert correlation(7 - 2 * first, second) == pytest.approx(-found, abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 49])
def test_constants_do_not_correlate(count: int) -> None:
    # The mean of equal numbers is often not that number: rounding must not look like a correlation.
    constant = torch.full((count,), 0.1, dtype=torch.float64)
    assert correlation(constant, constant) == 0.0
    assert correlation(constant, torch.full((count,), 0.7, dtype=torch.float64)) == 0.0


@given(st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.integers(1, 20)), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_reward_sits_on_the_last_token(rows: list[tuple[float, int]]) -> None:
    rewards = torch.tensor([reward for reward, _ in rows])
    lengths = torch.tensor([length for _, length in rows])
    token_level = sequence_rewards_to_token_level(rewards, lengths)
    assert [len(row) for row in token_level] == lengths.tolist()
    assert all(row.dtype == torch.float32 for row in token_level)
    assert [row[-1].item() for row in token_level] == [reward for reward, _ in rows]
    assert all((row[:-1] == 0).all() for row in token_level)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_not_finite_raise(bad: float) -> None:
    with pytest.raises(ValueError, match=r"not finite at rows \[1\]"):
        sequence_rewards_to_token_level(torch.tensor([0.0, bad]), torch.tensor([1, 2]))


def test_rewards_without_tokens_or_of_another_shape_raise() -> None:
    with pytest.raises(ValueError, match=r"rows \[2\]"):
        sequence_rewards_to_token_level(torch.zeros(3), torch.tensor([1, 2, 0]))
    with pytest.raises(ValueError, match="must both be"):
        sequence_rewards_to_token_level(torch.zeros(3), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="must both be"):
        sequence_rewards_to_token_level(torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.long))
