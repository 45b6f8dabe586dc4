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
"""Trust in the discriminator, against closed forms."""

import json
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_verl.core.trust import DiscriminatorTrust, HeldOut, TrustOptions, held_out_above, is_held_out, pair_accuracy


def feed(trust, accuracies, prompts=None, held_out=None, n=4):
    """One step whose group g has the accuracy accuracies[g] (multiples of 1 / n)."""
    groups = len(accuracies)
    students = torch.ones(groups, n)
    for row, accuracy in zip(students, accuracies, strict=True):
        row[: round(accuracy * n)] = -1.0
    prompts = prompts or [f"prompt {number}" for number in range(groups)]
    held_out = torch.ones(groups, dtype=torch.bool) if held_out is None else held_out
    return trust.update(torch.zeros(groups), students, held_out, prompts)


def test_accuracy_counts_ties_half_and_leaves_out_failed_and_nonfinite_pairs():
    teacher = torch.tensor([0.0, 0.0, 0.0, 0.0])
    student = torch.tensor([[-1.0, 1.0], [0.0, -1.0], [float("nan"), -1.0], [1.0, 1.0]])
    weights = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    accuracy = pair_accuracy(teacher, student, weights)
    assert accuracy[:3].tolist() == [0.5, 0.75, 1.0]
    assert math.isnan(accuracy[3].item())


@pytest.mark.parametrize("fraction", [0.0, 0.0625, 0.5])
def test_the_share_of_held_out_prompts_is_the_fraction(fraction):
    prompts = [f"question {number}: déjà vu?" for number in range(20000)]
    share = sum(is_held_out(prompt, fraction) for prompt in prompts) / len(prompts)
    assert abs(share - fraction) <= 4 * math.sqrt(fraction * (1 - fraction) / len(prompts))


def test_held_out_is_fixed_for_a_prompt_nested_in_fractions_and_other_for_another_seed():
    prompts = [f"question {number}" for number in range(2000)]
    small, large = ([is_held_out(prompt, fraction) for prompt in prompts] for fraction in (0.1, 0.3))
    assert small == [is_held_out(prompt, 0.1) for prompt in prompts]
    assert all(later or not earlier for earlier, later in zip(small, large, strict=True))
    assert small != [is_held_out(prompt, 0.1, seed=1) for prompt in prompts]


@pytest.mark.parametrize("seed", [0, 7])
def test_a_prompt_is_held_out_above_its_fraction(seed):
    for number in range(200):
        prompt, above = f"question {number}", held_out_above(f"question {number}", seed)
        assert not is_held_out(prompt, above * (1 - 1e-12), seed) and is_held_out(prompt, above * (1 + 1e-12), seed)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction"):
        is_held_out("prompt", fraction)


RULES = st.builds(HeldOut, st.sampled_from([0.0, 0.1, 0.3, 0.7]), st.integers(0, 1))


@given(RULES, RULES, RULES)
def test_what_several_rules_hold_out_is_held_out_by_each(first, second, third):
    both = first.also_by(second).also_by(third)
    for prompt in map(str, range(60)):
        if is_held_out(prompt, both.fraction, both.seed):
            assert all(is_held_out(prompt, rule.fraction, rule.seed) for rule in (first, second, third))
    # Nothing is given up without need.
    assert first.also_by(first) == first and HeldOut(1.0, 9).also_by(first) == first.also_by(HeldOut(1.0, 9)) == first
    if first.seed == second.seed:
        assert first.also_by(second).fraction == min(first.fraction, second.fraction)


def test_factor_is_linear_between_chance_and_full_accuracy():
    options = TrustOptions(full_accuracy=0.75, confidence=0.0, window=1000, least_prompts=2)
    for accuracy, factor in ((0.25, 0.0), (0.5, 0.0), (0.625, 0.5), (0.75, 1.0), (1.0, 1.0)):
        trust = feed(DiscriminatorTrust(options), [accuracy] * 20, n=8)
        assert trust.accuracy == accuracy and trust.standard_error == 0
        assert trust.factor == pytest.approx(factor, abs=1e-12)


def test_standard_error_by_hand():
    options = TrustOptions(full_accuracy=0.75, confidence=2.0, window=100, least_prompts=2)
    trust = feed(DiscriminatorTrust(options), [1.0] * 12 + [0.0] * 4)
    error = math.sqrt((12 * 0.25**2 + 4 * 0.75**2) / 15 / 16)
    assert trust.accuracy == 0.75 and trust.standard_error == pytest.approx(error)
    assert trust.factor == pytest.approx((2 * (0.75 - 2 * error) - 1) / 0.5)


def test_a_prompt_that_comes_back_is_no_new_evidence():
    options = TrustOptions(window=10000, least_prompts=4)
    once, often = DiscriminatorTrust(options), DiscriminatorTrust(options)
    accuracies = [1.0, 0.75, 0.5, 0.75, 1.0, 0.0]
    first = feed(once, accuracies)
    for _ in range(50):
        last = feed(often, accuracies)
    assert first == last


def test_training_prompts_are_ignored_and_too_few_held_out_ones_give_no_trust():
    trust = DiscriminatorTrust(TrustOptions(least_prompts=4, window=50))
    held_out = torch.tensor([True] * 3 + [False] * 20)
    result = feed(trust, [1.0] * 23, held_out=held_out)
    assert result.factor == 0.0 and result.num_prompts == 3 and math.isnan(result.accuracy)
    result = feed(trust, [1.0], prompts=["one more"])
    assert result.factor == 1.0 and result.num_prompts == 4


def test_the_window_forgets():
    trust = DiscriminatorTrust(TrustOptions(window=32, least_prompts=16))
    assert feed(trust, [1.0] * 32).factor == 1.0
    assert feed(trust, [0.5] * 32, prompts=[f"later {number}" for number in range(32)]).factor == 0.0


def test_failed_rollouts_bring_no_evidence():
    trust = DiscriminatorTrust(TrustOptions(least_prompts=2, window=10))
    scores, held_out = torch.zeros(3), torch.ones(3, dtype=torch.bool)
    result = trust.update(scores, scores.unsqueeze(1) - 1, held_out, ["a", "b", "c"], weights=torch.zeros(3, 1))
    assert result.num_prompts == 0 and result.factor == 0.0


def test_a_guessing_discriminator_is_hardly_ever_trusted_and_a_knowing_one_is():
    generator = random.Random(1)

    def mean_factor(chance):
        factors = []
        for _ in range(60):
            trust = DiscriminatorTrust(TrustOptions())
            accuracies = [sum(generator.random() < chance for _ in range(4)) / 4 for _ in range(200)]
            factors.append(feed(trust, accuracies).factor)
        return sum(factors) / len(factors)

    assert mean_factor(0.5) < 0.02
    assert mean_factor(0.75) > 0.99


@settings(max_examples=40, deadline=None)
@given(
    teacher=st.lists(st.floats(-50, 50), min_size=20, max_size=20),
    shift=st.floats(-100, 100),
    scale=st.floats(0.1, 10),
)
def test_the_factor_is_in_range_and_does_not_read_level_or_scale_of_the_scores(teacher, shift, scale):
    scores = torch.tensor(teacher, dtype=torch.float64).round()
    students = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    held_out, prompts = torch.ones(20, dtype=torch.bool), [str(number) for number in range(20)]
    first = DiscriminatorTrust(TrustOptions()).update(scores, students, held_out, prompts)
    second = DiscriminatorTrust(TrustOptions()).update(
        scale * scores + shift, scale * students + shift, held_out, prompts
    )
    assert 0.0 <= first.factor <= 1.0
    assert first == second


def test_resuming_from_json_changes_nothing():
    options = TrustOptions(window=40, least_prompts=10)
    whole, generator = DiscriminatorTrust(options), random.Random(2)
    steps = [[generator.choice((0.25, 0.5, 0.75, 1.0)) for _ in range(12)] for _ in range(8)]
    names = [[f"{step} {group}" for group in range(12)] for step in range(8)]
    for accuracies, prompts in zip(steps[:5], names[:5], strict=True):
        feed(whole, accuracies, prompts)
    resumed = DiscriminatorTrust(options)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert resumed.current() == whole.current()
    for accuracies, prompts in zip(steps[5:], names[5:], strict=True):
        assert feed(resumed, accuracies, prompts) == feed(whole, accuracies, prompts)


@pytest.mark.parametrize(
    "change",
    [{"full_accuracy": 0.5}, {"full_accuracy": 1.1}, {"confidence": -1.0}, {"least_prompts": 1}, {"window": 8}],
)
def test_options_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TrustOptions(**change)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="each of the 3 groups"):
        DiscriminatorTrust(TrustOptions()).update(torch.zeros(3), torch.zeros(3, 2), torch.ones(3) > 0, ["a"])
