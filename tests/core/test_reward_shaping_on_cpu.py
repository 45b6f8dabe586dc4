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
"""Rewards from scores, shares of a score, advantages of shares."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.core.advantages import group_process_advantages
from gad_verl.core.reward_shaping import (
    LengthRegression,
    RunningWhitening,
    clip_margins,
    correct_length,
    group_means,
    unanswered_rewards,
    whiten_groups,
)
from gad_verl.core.token_credit import mix_granularities, sum_by_segment, value_credit


def random_groups(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 60, (6, 5), generator=generator).double()
    weights = (torch.rand(6, 5, generator=generator) > 0.2).double()
    return torch.randn(6, 5, generator=generator).double(), lengths, weights


def test_clip_bounds_the_distance_to_the_teacher_at_any_level() -> None:
    student, teacher = torch.randn(4, 6) * 10, torch.randn(4) * 10
    clipped = clip_margins(student, teacher, 2.0)
    assert bool(((clipped - teacher.unsqueeze(1)).abs() <= 2.0 + 1e-5).all())
    near = (student - teacher.unsqueeze(1)).abs() < 2.0
    assert torch.allclose(clipped[near], student[near], atol=1e-5)
    assert torch.allclose(clip_margins(student + 7, teacher + 7, 2.0), clipped + 7, atol=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_answer_is_the_worst_of_its_group_at_any_level_and_scale(seed: int, penalty: float) -> None:
    rewards, _, weights = random_groups(seed)
    known = weights > 0
    known[0] = False
    rewards[0, 0], rewards[1, ~known[1]] = torch.nan, torch.inf
    found = unanswered_rewards(rewards, known, penalty)
    of_groups = [group[mask] for group, mask in zip(rewards, known, strict=True)]
    within = torch.cat([group - group.mean() for group in of_groups if len(group)])
    spread = within.square().mean().sqrt()
    worst = [min(rewards[known]) if not len(group) else min(group) for group in of_groups]
    assert found.tolist() == pytest.approx([(one - penalty * spread).item() for one in worst])
    # The level of the scores is free, and their scale means nothing.
    torch.testing.assert_close(unanswered_rewards(5 * rewards + 7, known, penalty), 5 * found + 7)
    # One answer in each group: there is no spread to measure by, and the answer is better all the same.
    alone = torch.zeros_like(known)
    alone[:, 2] = True
    finite = torch.nan_to_num(rewards, posinf=0.0)
    torch.testing.assert_close(unanswered_rewards(finite, alone, penalty), finite[:, 2] - penalty)


def test_regression_finds_the_slope_and_takes_nothing_else() -> None:
    noise, lengths, weights = random_groups()
    levels = torch.arange(6).unsqueeze(1).double() * 10  # hard prompts: another level and other lengths
    lengths = lengths + 40 * torch.arange(6).unsqueeze(1)
    scores = levels - 0.25 * lengths
    regression = LengthRegression(memory=0.0)
    regression.observe(scores, lengths, weights)
    assert regression.slope == pytest.approx(-0.25, abs=1e-9)
    residual = regression.residual(scores, lengths, weights)
    spread = (residual - group_means(residual, weights))[weights > 0]
    assert spread.abs().max() < 1e-9


def test_residuals_are_uncorrelated_with_length() -> None:
    scores, lengths, weights = random_groups(3)
    scores = scores + 0.1 * lengths
    regression = LengthRegression(memory=0.0)
    regression.observe(scores, lengths, weights)
    again = LengthRegression(memory=0.0)
    again.observe(regression.residual(scores, lengths, weights), lengths, weights)
    assert again.slope == pytest.approx(0, abs=1e-9)


def test_failed_rollouts_do_not_enter() -> None:
    scores, lengths, weights = random_groups(4)
    first, second = LengthRegression(0.5), LengthRegression(0.5)
    first.observe(scores, lengths, weights)
    second.observe(torch.where(weights > 0, scores, torch.nan), torch.where(weights > 0, lengths, 1e6), weights)
    assert first.slope == pytest.approx(second.slope)
    means = group_means(torch.where(weights > 0, scores, torch.inf), weights)
    assert bool(torch.isfinite(means).all())


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_not_remembered(broken: float) -> None:
    scores, lengths, weights = random_groups(seed=7)
    # A teacher's text without a score makes a whole group so where margins are clipped.
    damaged, without = scores.clone(), weights.clone()
    damaged[0], damaged[3, 1] = broken, broken
    without[0], without[3, 1] = 0, 0
    for kind in (LengthRegression, RunningWhitening):
        found, wanted = kind(0.5), kind(0.5)
        for memory, some, weighted in ((found, damaged, weights), (wanted, scores, without)):
            given = (some, weighted) if isinstance(memory, RunningWhitening) else (some, lengths, weighted)
            memory.observe(*given)
        assert found.state_dict() == pytest.approx(wanted.state_dict())


def test_equal_lengths_have_no_slope() -> None:
    regression = LengthRegression(0.0)
    regression.observe(torch.randn(3, 4), torch.full((3, 4), 7.0), torch.ones(3, 4))
    assert regression.slope == 0.0


def test_prices_of_length() -> None:
    scores, lengths = torch.zeros(1, 3), torch.tensor([[1.0, 10.0, 100.0]])
    assert correct_length(scores, lengths, "per_token", 0.5).tolist() == [[-0.5, -5.0, -50.0]]
    logs = correct_length(scores, lengths, "log", 2.0)
    assert torch.allclose(logs.diff(), -2 * torch.log(torch.tensor([[10.0, 10.0]])))
    with pytest.raises(ValueError, match="mode"):
        correct_length(scores, lengths, "square", 1.0)


def test_whitened_groups_have_mean_0_and_spread_1() -> None:
    rewards, _, weights = random_groups(5)
    white = whiten_groups(rewards * 9 + 100, weights)
    assert group_means(white, weights).abs().max() < 1e-6
    assert torch.allclose(group_means(white.square(), weights), torch.ones(6, 1).double(), atol=1e-4)
    assert torch.equal(whiten_groups(torch.full((2, 3), 4.0), torch.ones(2, 3)), torch.zeros(2, 3))


def test_running_whitening_tends_to_the_moments_of_the_stream() -> None:
    whitening = RunningWhitening(0.9)
    assert torch.equal(whitening.whiten(torch.tensor([3.0])), torch.tensor([3.0]))
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        rewards = torch.randn(64, 8, generator=generator) * 3 + 5
        whitening.observe(rewards, torch.ones(64, 8))
    white = whitening.whiten(rewards)
    assert white.mean().abs() < 0.15 and (white.std() - 1).abs() < 0.1


@given(st.integers(0, 6))
def test_running_states_survive_json(cut: int) -> None:
    batches = [random_groups(seed) for seed in range(6)]
    whole, first = (RunningWhitening(0.8), LengthRegression(0.7)), (RunningWhitening(0.8), LengthRegression(0.7))

    def feed(states: tuple[RunningWhitening, LengthRegression], some: list) -> None:
        for scores, lengths, weights in some:
            states[0].observe(scores, weights)
            states[1].observe(scores, lengths, weights)

    feed(whole, batches)
    feed(first, batches[:cut])
    resumed = (RunningWhitening(0.8), LengthRegression(0.7))
    for old, new in zip(first, resumed, strict=True):
        new.load_state_dict(json.loads(json.dumps(old.state_dict())))
    feed(resumed, batches[cut:])
    assert whole[1].slope == resumed[1].slope
    assert torch.equal(whole[0].whiten(batches[0][0]), resumed[0].whiten(batches[0][0]))


def test_memories_are_checked() -> None:
    for kind in (RunningWhitening, LengthRegression):
        with pytest.raises(ValueError, match="memory"):
            kind(1.0)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.floats(-3, 3), st.data())
def test_shares_sum_to_the_score_in_every_granularity(values: list[float], start: float, data: st.DataObject) -> None:
    tensor = torch.tensor(values, dtype=torch.float64)
    shares = value_credit(tensor, start)
    assert shares.sum().item() == pytest.approx(values[-1] - start, abs=1e-9)
    assert value_credit(tensor).sum().item() == pytest.approx(values[-1], abs=1e-9)
    ends = sorted(data.draw(st.sets(st.integers(0, len(values) - 1))))
    phrases = sum_by_segment(shares, ends)
    assert phrases.sum().item() == pytest.approx(shares.sum().item(), abs=1e-9)
    assert set(torch.nonzero(phrases).flatten().tolist()) <= {*ends, len(values) - 1}
    mixed = mix_granularities(2.0, shares, ends, 0.5, 0.25, 0.125)
    assert mixed.sum().item() == pytest.approx(1.0 + 0.375 * shares.sum().item(), abs=1e-9)


def test_phrases_get_the_sum_of_their_tokens() -> None:
    shares = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert sum_by_segment(shares, [1, 3]).tolist() == [0, 3, 0, 7, 5]
    assert sum_by_segment(shares, []).tolist() == [0, 0, 0, 0, 15]
    assert sum_by_segment(shares, [4]).tolist() == [0, 0, 0, 0, 15]
    with pytest.raises(ValueError, match="rise"):
        sum_by_segment(shares, [3, 1])


def outcome_rewards(scores: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    rewards, mask = torch.zeros(len(scores), max(lengths)), torch.zeros(len(scores), max(lengths))
    for row, length in enumerate(lengths):
        rewards[row, length - 1], mask[row, :length] = scores[row], 1
    return rewards, mask


def test_one_reward_per_response_is_grpo() -> None:
    scores, lengths = torch.randn(8), [3, 9, 1, 4, 5, 2, 7, 6]
    rewards, mask = outcome_rewards(scores, lengths)
    groups = ["a"] * 4 + ["b"] * 4
    found = group_process_advantages(rewards, mask, groups)
    for rows in (slice(0, 4), slice(4, 8)):
        expected = (scores[rows] - scores[rows].mean()) / (scores[rows].std() + 1e-6)
        assert torch.allclose(found[rows], expected.unsqueeze(1) * mask[rows], atol=1e-5)


def test_a_response_without_any_reward_takes_part_with_0() -> None:
    scores = torch.tensor([1.0, 0.0, -2.0, 0.0])
    rewards, mask = outcome_rewards(scores, [3, 4, 2, 5])
    found = group_process_advantages(rewards, mask, [0] * 4)
    expected = (scores - scores.mean()) / (scores.std() + 1e-6)
    assert torch.allclose(found, expected.unsqueeze(1) * mask, atol=1e-5)


def test_later_tokens_only_answer_for_what_follows() -> None:
    rewards = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    found = group_process_advantages(rewards, torch.ones(2, 3), [0, 0])
    white = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    assert torch.allclose(found[:, 2], white[:, 2]) and torch.allclose(found[:, 0], white.sum(dim=1), atol=1e-6)
    # A group that is paid everywhere the same has nothing to learn.
    assert group_process_advantages(torch.ones(2, 4), torch.ones(2, 4), [0, 0]).abs().max() < 1e-6
