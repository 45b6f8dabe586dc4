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
"""Preferences: the loss, and the linear form in which it reaches the engines."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.core.preference import (
    PreferenceLogProbs,
    preference_gradients,
    preference_loss,
    preference_statistics,
)


def random_pairs(seed: int, count: int) -> PreferenceLogProbs:
    generator = torch.Generator().manual_seed(seed)
    return PreferenceLogProbs(*(-20 * torch.rand(count, generator=generator, dtype=torch.float64) for _ in range(4)))


@given(st.integers(0, 1000), st.integers(1, 9), st.floats(0.01, 5))
def test_a_student_that_is_its_reference_has_ln_2(seed: int, count: int, beta: float) -> None:
    pairs = random_pairs(seed, count)
    same = PreferenceLogProbs(pairs.chosen, pairs.rejected, pairs.chosen, pairs.rejected)
    assert preference_loss(same, beta).item() == pytest.approx(math.log(2), abs=1e-12)
    of_chosen, of_rejected = preference_gradients(same, beta)
    assert torch.allclose(of_chosen, torch.full((count,), -beta / 2 / count, dtype=torch.float64))
    assert torch.allclose(of_chosen, -of_rejected)


@given(st.integers(0, 1000), st.integers(1, 9), st.floats(0.01, 2))
def test_the_gradients_are_the_closed_form(seed: int, count: int, beta: float) -> None:
    pairs = random_pairs(seed, count)
    of_chosen, of_rejected = preference_gradients(pairs, beta)
    expected = -beta * torch.sigmoid(-beta * pairs.margins) / count
    assert torch.allclose(of_chosen, expected) and torch.allclose(of_rejected, -expected)


def test_the_linear_form_has_the_gradient_of_the_loss() -> None:
    torch.manual_seed(0)
    weights = torch.randn(6, dtype=torch.float64, requires_grad=True)
    features = torch.randn(8, 6, dtype=torch.float64)
    reference = torch.randn(8, dtype=torch.float64)

    def pairs() -> PreferenceLogProbs:
        log_probs = -torch.nn.functional.softplus(features @ weights)
        return PreferenceLogProbs(log_probs[:4], log_probs[4:], reference[:4], reference[4:])

    (exact,) = torch.autograd.grad(preference_loss(pairs(), 0.7), weights)
    of_chosen, of_rejected = preference_gradients(pairs(), 0.7)
    now = pairs()
    (linear,) = torch.autograd.grad((of_chosen * now.chosen).sum() + (of_rejected * now.rejected).sum(), weights)
    assert torch.allclose(exact, linear)


def test_statistics_say_where_both_sides_went() -> None:
    pairs = PreferenceLogProbs(*(torch.tensor(one) for one in ([-1.0, -2.0], [-5.0, -4.0], [-2.0, -2.0], [-4.0, -4.0])))
    found = preference_statistics(pairs, 0.5)
    assert found["accuracy"] == 0.75 and found["margin"] == pytest.approx(0.5)
    assert found["chosen_change"] == pytest.approx(0.5) and found["rejected_change"] == pytest.approx(-0.5)


@pytest.mark.parametrize(("count", "beta", "word"), [(0, 0.1, "pair"), (2, 0.0, "beta")])
def test_what_has_no_loss_is_refused(count: int, beta: float, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        preference_loss(random_pairs(0, count), beta)
