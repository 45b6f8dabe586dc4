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
"""Options of the discriminator's loss against closed forms and invariants."""

import math

import pytest
import torch
import torch.nn.functional as F

from gad_verl.core import (
    PairLossOptions,
    bradley_terry_loss,
    discriminator_pair_loss,
    gradient_penalty_from_scores,
    pair_weights,
)

OPTIONS = [
    PairLossOptions(),
    PairLossOptions(temperature=2.5),
    PairLossOptions(label_smoothing=0.1),
    PairLossOptions(kind="cross_entropy"),
    PairLossOptions(kind="cross_entropy", label_smoothing=0.2, temperature=0.5),
    PairLossOptions(score_l2=0.3),
    PairLossOptions(score_centring=0.2, temperature=3.0, label_smoothing=0.05),
]


def random_batch(teachers: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    teacher = torch.randn(5, teachers, dtype=torch.float64) * 3
    student = torch.randn(5, 4, dtype=torch.float64) * 3
    weights = pair_weights(torch.rand(5, teachers).double(), (torch.rand(5, 4) > 0.3).double())
    return teacher, student, weights


def by_hand(teacher: float, student: float, options: PairLossOptions) -> float:
    def smooth(score: float) -> float:
        right, wrong = math.log1p(math.exp(-score)), math.log1p(math.exp(score))
        return (1 - options.label_smoothing) * right + options.label_smoothing * wrong

    if options.kind == "bradley_terry":
        loss = smooth((teacher - student) / options.temperature)
    else:
        loss = (smooth(teacher / options.temperature) + smooth(-student / options.temperature)) / 2
    loss += options.score_l2 * (teacher**2 + student**2) / 2
    return loss + options.score_centring * (teacher + student) ** 2


@pytest.mark.parametrize("options", OPTIONS)
def test_loss_is_the_weighted_mean_over_pairs(options: PairLossOptions) -> None:
    teacher, student, weights = random_batch()
    total = 0.0
    for g in range(5):
        for j in range(2):
            for i in range(4):
                total += weights[g, j, i].item() * by_hand(teacher[g, j].item(), student[g, i].item(), options)
    loss = discriminator_pair_loss(teacher, student, weights, pair_loss=options)
    assert loss.item() == pytest.approx(total / weights.sum().item(), rel=1e-9)


@pytest.mark.parametrize("options", OPTIONS)
def test_any_split_of_the_prompts_adds_up(options: PairLossOptions) -> None:
    teacher, student, weights = random_batch()
    teacher.requires_grad_()
    count = weights.sum()
    whole = discriminator_pair_loss(teacher, student, weights, pair_loss=options)
    (gradient,) = torch.autograd.grad(whole, teacher)
    parts = [
        discriminator_pair_loss(teacher[rows], student[rows], weights[rows], count, options)
        for rows in ([0], [1, 2], [3, 4])
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-12)
    assert torch.allclose(torch.autograd.grad(sum(parts), teacher)[0], gradient, rtol=1e-12)


def test_plain_options_are_the_papers_loss_bit_by_bit() -> None:
    teacher, student = torch.randn(7), torch.randn(7, 3)
    weights = (torch.rand(7, 3) > 0.3).float()
    expected = (-F.logsigmoid(teacher.unsqueeze(1) - student) * weights).sum() / weights.sum()
    assert torch.equal(bradley_terry_loss(teacher, student, weights), expected)
    for options in (PairLossOptions(), PairLossOptions(temperature=1.0, label_smoothing=0.0)):
        assert torch.equal(discriminator_pair_loss(teacher, student, weights, pair_loss=options), expected)
        column = discriminator_pair_loss(teacher.unsqueeze(1), student, weights.unsqueeze(1), pair_loss=options)
        assert torch.equal(column, expected)


def test_a_removed_pair_leaves_no_trace() -> None:
    for options in OPTIONS:
        teacher, student, _ = (tensor.float() for tensor in random_batch())
        weights = torch.ones(5, 2, 4)
        weights[2, :, 1] = 0
        weights[3, 1] = 0
        clean = discriminator_pair_loss(teacher, student, weights, pair_loss=options)
        student[2, 1], teacher[3, 1] = math.inf, math.nan
        student.requires_grad_()
        dirty = discriminator_pair_loss(teacher, student, weights, pair_loss=options)
        assert torch.equal(clean, dirty)
        assert bool(torch.isfinite(torch.autograd.grad(dirty, student)[0]).all())


def test_no_idea_is_ln_2_for_both_kinds_and_smoothing_keeps_it() -> None:
    zeros = torch.zeros(3, 1), torch.zeros(3, 2)
    for options in OPTIONS:
        assert discriminator_pair_loss(*zeros, pair_loss=options).item() == pytest.approx(math.log(2), abs=1e-6)


def test_smoothing_has_a_finite_best_margin() -> None:
    """At margin log((1 - e) / e) the gradient is 0: the discriminator is not paid for going further."""
    smoothing = 0.1
    best = torch.tensor([[math.log((1 - smoothing) / smoothing)]])
    best.requires_grad_()
    options = PairLossOptions(label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(discriminator_pair_loss(best, torch.zeros(1, 1), pair_loss=options), best)
    assert gradient.item() == pytest.approx(0, abs=1e-7)


def test_centring_pins_the_level_and_not_the_margin() -> None:
    options = PairLossOptions(score_centring=1.0)
    teacher, student = torch.randn(4, 1), torch.randn(4, 3)
    shifted = discriminator_pair_loss(teacher + 5, student + 5, pair_loss=options)
    assert shifted > discriminator_pair_loss(teacher, student, pair_loss=options)
    symmetric = torch.full((4, 1), 2.0), torch.full((4, 3), -2.0)
    assert torch.equal(discriminator_pair_loss(*symmetric, pair_loss=options), discriminator_pair_loss(*symmetric))


def test_gradient_penalty_is_the_squared_norm_for_a_linear_score() -> None:
    """D(e) = a . e: the slope along z is a . z, whose mean square is |a|^2."""
    torch.manual_seed(0)
    direction = torch.randn(16, dtype=torch.float64)
    points, noise = torch.randn(200_000, 16, dtype=torch.float64), torch.randn(200_000, 16, dtype=torch.float64)
    scores, noisy = points @ direction, (points + 0.1 * noise) @ direction
    weights = torch.ones(len(points), dtype=torch.float64)
    penalty = gradient_penalty_from_scores(scores, noisy, weights, 0.1, 3.0, len(points))
    assert penalty.item() == pytest.approx(1.5 * direction.square().sum().item(), rel=0.02)


def test_gradient_penalty_adds_up_and_leaves_out_rows_without_weight() -> None:
    scores, noisy = torch.randn(6), torch.randn(6)
    weights = torch.tensor([1.0, 1, 0, 1, 0, 1])
    whole = gradient_penalty_from_scores(scores, noisy, weights, 0.5, 1.0, 4.0)
    parts = [
        gradient_penalty_from_scores(scores[r], noisy[r], weights[r], 0.5, 1.0, 4.0) for r in (slice(0, 2), slice(2, 6))
    ]
    assert torch.allclose(sum(parts), whole)
    scores[2] = math.nan
    assert torch.equal(gradient_penalty_from_scores(scores, noisy, weights, 0.5, 1.0, 4.0), whole)
    assert gradient_penalty_from_scores(noisy, noisy, weights * 0, 0.5, 1.0, 0.0) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "hinge"}, {"temperature": 0}, {"label_smoothing": 0.5}, {"score_l2": -1}, {"score_centring": math.nan}],
)
def test_options_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PairLossOptions(**wrong)


def test_shapes_and_weights_are_checked() -> None:
    options = PairLossOptions(temperature=2)
    with pytest.raises(ValueError, match=r"\(G, k\)"):
        discriminator_pair_loss(torch.zeros(3, 1), torch.zeros(2, 4), pair_loss=options)
    with pytest.raises(ValueError, match="weights must be"):
        discriminator_pair_loss(torch.zeros(3, 1), torch.zeros(3, 4), torch.ones(3, 2, 4), pair_loss=options)
    with pytest.raises(ValueError, match="negative"):
        discriminator_pair_loss(torch.zeros(3, 1), torch.zeros(3, 4), -torch.ones(3, 1, 4), pair_loss=options)
