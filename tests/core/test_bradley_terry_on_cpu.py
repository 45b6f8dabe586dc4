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
"""The pair loss against closed forms and invariants."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gad_verl.core import bradley_terry_loss, pair_margins

LN2 = math.log(2.0)


def random_pairs(seed: int, *shape: int, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Teacher scores, student scores and positive weights in float64."""
    generator = torch.Generator().manual_seed(seed)
    teacher = scale * torch.randn(shape[0], generator=generator, dtype=torch.float64)
    student = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
    weights = 0.1 + torch.rand(*shape, generator=generator, dtype=torch.float64)
    return teacher, student, weights


def with_gradients(
    teacher: Tensor, student: Tensor, weights: Tensor | None = None, num_pairs: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and its gradients with respect to both scores."""
    teacher, student = teacher.clone().requires_grad_(), student.clone().requires_grad_()
    loss = bradley_terry_loss(teacher, student, weights=weights, num_pairs=num_pairs)
    return loss.detach(), *torch.autograd.grad(loss, (teacher, student))


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """Every way to split ``items`` into non-empty subsets."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for partition in partitions(rest):
        yield [[first], *partition]
        for number in range(len(partition)):
            yield [*partition[:number], [first, *partition[number]], *partition[number + 1 :]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (2, 4), (4, 8), (8, 1)])
def test_equal_scores_give_ln2_exactly(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    teacher = torch.randn(shape[0], dtype=dtype)
    student = teacher.unsqueeze(-1).expand(shape).clone()
    assert bradley_terry_loss(teacher, student).item() == torch.tensor(LN2, dtype=dtype).item()
    weights = torch.full(shape, 0.25, dtype=dtype)
    assert bradley_terry_loss(teacher, student, weights=weights).item() == torch.tensor(LN2, dtype=dtype).item()


@given(seed=st.integers(0, 10**6), prompts=st.integers(1, 6), n=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_equals_the_naive_formula(seed: int, prompts: int, n: int) -> None:
    teacher, student, weights = random_pairs(seed, prompts, n)
    total = weighted = 0.0
    for b in range(prompts):
        for i in range(n):
            loss = -math.log(1.0 / (1.0 + math.exp(-(teacher[b] - student[b, i]).item())))
            total += loss
            weighted += weights[b, i].item() * loss
    assert bradley_terry_loss(teacher, student).item() == pytest.approx(total / (prompts * n), rel=1e-12)
    assert bradley_terry_loss(teacher, student, weights=weights).item() == pytest.approx(
        weighted / weights.sum().item(), rel=1e-12
    )
    assert bradley_terry_loss(teacher, student, weights=weights, num_pairs=7.5).item() == pytest.approx(
        weighted / 7.5, rel=1e-12
    )
    assert bradley_terry_loss(teacher, student, num_pairs=torch.tensor(3)).item() == pytest.approx(total / 3, rel=1e-12)


@given(seed=st.integers(0, 10**6), prompts=st.integers(1, 5), n=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_gradient_is_the_closed_form(seed: int, prompts: int, n: int) -> None:
    teacher, student, weights = random_pairs(seed, prompts, n)
    for w, divisor in ((weights, 11.0), (torch.ones_like(weights), None)):
        _, teacher_grad, student_grad = with_gradients(teacher, student, w, divisor)
        pairs = w.sum() if divisor is None else divisor
        expected = w * torch.sigmoid(-(teacher[:, None] - student)) / pairs
        torch.testing.assert_close(student_grad, expected, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(teacher_grad, -expected.sum(dim=1), rtol=1e-12, atol=1e-15)


def test_gradcheck() -> None:
    teacher, student, weights = random_pairs(3, 3, 4)
    weights[1, 2] = 0.0
    inputs = (teacher.requires_grad_(), student.requires_grad_())
    assert torch.autograd.gradcheck(lambda t, s: bradley_terry_loss(t, s, weights=weights, num_pairs=9), inputs)
    assert torch.autograd.gradcheck(lambda t, s: bradley_terry_loss(t, s), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_margins_are_stable(dtype: torch.dtype) -> None:
    wrong = with_gradients(torch.tensor([-1e4], dtype=dtype), torch.tensor([[0.0]], dtype=dtype))
    assert [part.item() for part in wrong] == [1e4, -1.0, 1.0]
    right = with_gradients(torch.tensor([1e4], dtype=dtype), torch.tensor([[0.0]], dtype=dtype))
    assert [part.item() for part in right] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weight_zero_removes_a_pair_exactly(bad: float, dtype: torch.dtype) -> None:
    teacher, student, weights = (part.to(dtype) for part in random_pairs(5, 6, 3))
    weights[0, 1] = 0.0
    weights[3] = 0.0
    weights[4, 2] = 0.0
    damaged_student, damaged_teacher = student.clone(), teacher.clone()
    damaged_student[0, 1] = damaged_student[3, 0] = damaged_student[4, 2] = bad
    damaged_teacher[3] = bad
    loss, teacher_grad, student_grad = with_gradients(damaged_teacher, damaged_student, weights)
    keep = weights > 0
    flat_teacher = teacher[:, None].expand_as(student)[keep]
    expected, flat_teacher_grad, flat_student_grad = with_gradients(
        flat_teacher, student[keep].unsqueeze(1), weights[keep].unsqueeze(1)
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(student_grad[keep], flat_student_grad.flatten())
    assert (student_grad[~keep] == 0).all() and teacher_grad[3] == 0
    scattered = torch.zeros_like(student).masked_scatter(keep, flat_teacher_grad).sum(dim=1)
    torch.testing.assert_close(teacher_grad, scattered)
    # Exactly: the removed scores have no influence at all.
    same = with_gradients(teacher, student, weights)
    assert [torch.equal(a, b) for a, b in zip((loss, teacher_grad, student_grad), same, strict=True)] == [True] * 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weight_zero_removes_a_prompt_with_its_teacher(bad: float) -> None:
    teacher, student, weights = random_pairs(6, 5, 1)
    weights[2] = 0.0
    teacher[2], student[2] = bad, -bad
    loss, teacher_grad, student_grad = with_gradients(teacher, student, weights)
    keep = (weights > 0).squeeze(1)
    expected = with_gradients(teacher[keep], student[keep], weights[keep])
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(teacher_grad[keep], expected[1])
    torch.testing.assert_close(student_grad[keep], expected[2])
    assert teacher_grad[2] == 0 and student_grad[2] == 0


def test_a_kept_bad_score_is_not_hidden() -> None:
    teacher, student, weights = random_pairs(7, 2, 2)
    student[1, 1] = math.nan
    assert math.isnan(bradley_terry_loss(teacher, student, weights=weights).item())
    assert math.isnan(bradley_terry_loss(teacher, student).item())


def test_no_pair_gives_loss_zero_and_gradient_zero() -> None:
    teacher, student, _ = random_pairs(8, 3, 2)
    none = torch.zeros_like(student)
    for num_pairs in (None, 0.0, 4.0):
        loss, teacher_grad, student_grad = with_gradients(teacher * math.nan, student * math.inf, none, num_pairs)
        assert loss == 0 and (teacher_grad == 0).all() and (student_grad == 0).all()
    assert bradley_terry_loss(torch.zeros(0), torch.zeros(0, 4)).item() == 0.0


def test_micro_batches_add_up_for_every_partition_of_pairs() -> None:
    teacher, student, weights = random_pairs(9, 5, 1)
    weights[3] = 0.0
    whole = with_gradients(teacher, student, weights, num_pairs=weights.sum().item())
    count = 0
    for partition in partitions(list(range(5))):
        count += 1
        loss, teacher_grad, student_grad = torch.zeros((), dtype=torch.float64), 0 * teacher, 0 * student
        for part in partition:
            piece = with_gradients(teacher[part], student[part], weights[part], num_pairs=weights.sum().item())
            loss += piece[0]
            teacher_grad[part] += piece[1]
            student_grad[part] += piece[2]
        torch.testing.assert_close((loss, teacher_grad, student_grad), whole, rtol=1e-12, atol=1e-15)
    assert count == 52  # Bell number of 5


def test_micro_batches_add_up_for_every_partition_of_groups() -> None:
    teacher, student, weights = random_pairs(10, 4, 3)
    whole = with_gradients(teacher, student, weights, num_pairs=12)
    for partition in partitions(list(range(4))):
        pieces = [(part, with_gradients(teacher[part], student[part], weights[part], 12)) for part in partition]
        loss = sum(piece[0] for _, piece in pieces)
        order = torch.tensor([row for part, _ in pieces for row in part]).argsort()
        teacher_grad = torch.cat([piece[1] for _, piece in pieces])[order]
        student_grad = torch.cat([piece[2] for _, piece in pieces])[order]
        torch.testing.assert_close((loss, teacher_grad, student_grad), whole, rtol=1e-12, atol=1e-15)


@given(seed=st.integers(0, 10**6), order=st.permutations(range(6)))
@settings(max_examples=30, deadline=None)
def test_permutation_invariance(seed: int, order: list[int]) -> None:
    teacher, student, weights = random_pairs(seed, 6, 3)
    loss, teacher_grad, student_grad = with_gradients(teacher, student, weights)
    permuted = with_gradients(teacher[order], student[order], weights[order])
    torch.testing.assert_close(permuted, (loss, teacher_grad[order], student_grad[order]), rtol=1e-12, atol=1e-15)
    columns = [position % 3 for position in order if position < 3]
    permuted = with_gradients(teacher, student[:, columns], weights[:, columns])
    torch.testing.assert_close(permuted, (loss, teacher_grad, student_grad[:, columns]), rtol=1e-12, atol=1e-15)


def test_groups_agree_with_their_pairs_one_by_one() -> None:
    teacher, student, weights = random_pairs(11, 4, 3)
    loss, teacher_grad, student_grad = with_gradients(teacher, student, weights)
    flat = with_gradients(teacher.repeat_interleave(3), student.view(-1, 1), weights.view(-1, 1))
    torch.testing.assert_close(loss, flat[0], rtol=1e-13, atol=0)
    torch.testing.assert_close(teacher_grad, flat[1].view(4, 3).sum(dim=1), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(student_grad.view(-1, 1), flat[2], rtol=1e-12, atol=1e-15)


def test_low_precision_is_computed_in_float32() -> None:
    teacher, student, weights = random_pairs(12, 8, 4)
    for dtype in (torch.bfloat16, torch.float16):
        t, s = teacher.to(dtype), student.to(dtype)
        loss = bradley_terry_loss(t, s, weights=weights.float())
        assert loss.dtype == torch.float32
        assert torch.equal(loss, bradley_terry_loss(t.float(), s.float(), weights=weights.float()))
        assert torch.equal(pair_margins(t, s), t.float()[:, None] - s.float())
    # A margin that bfloat16 cannot hold next to scores that it can: 256 - 1 = 255, 256 + 3 is not representable.
    t, s = torch.tensor([256.0], dtype=torch.bfloat16), torch.tensor([[-3.0]], dtype=torch.bfloat16)
    assert pair_margins(t, s).item() == 259.0


def test_double_precision_is_kept() -> None:
    teacher, student, weights = random_pairs(13, 8, 4)
    loss = bradley_terry_loss(teacher, student, weights=weights)
    assert loss.dtype == torch.float64
    assert bradley_terry_loss(teacher.float(), student).dtype == torch.float64
    assert bradley_terry_loss(teacher.float(), student.float()).dtype == torch.float32


def test_low_precision_weights_are_counted_exactly() -> None:
    # 257 is no bfloat16: a sum of the weights in their own precision would be off.
    scores = torch.zeros(257, 1, dtype=torch.bfloat16)
    loss = bradley_terry_loss(scores.squeeze(1), scores, weights=torch.ones_like(scores))
    assert loss.item() == pytest.approx(LN2, rel=1e-6)


@pytest.mark.parametrize(
    ("teacher_shape", "student_shape"),
    [((), (3,)), ((3,), (3,)), ((3,), (2, 3)), ((2,), (3,)), ((1,), (3,)), ((3,), (3, 2, 1)), ((3,), ())],
)
def test_bad_shapes_raise(teacher_shape: tuple[int, ...], student_shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="teacher_scores must be"):
        bradley_terry_loss(torch.zeros(teacher_shape), torch.zeros(student_shape))


def test_bad_weights_raise() -> None:
    teacher, student, weights = random_pairs(14, 3, 2)
    with pytest.raises(ValueError, match="weights must be"):
        bradley_terry_loss(teacher, student, weights=weights[:, 0])
    with pytest.raises(ValueError, match="weights must be"):
        bradley_terry_loss(teacher, student, weights=weights[0, 0])
    weights[2, 1] = -1e-9
    with pytest.raises(ValueError, match="must not be negative"):
        bradley_terry_loss(teacher, student, weights=weights)


def test_inputs_are_not_changed() -> None:
    teacher, student, weights = random_pairs(15, 3, 2)
    weights[1, 1] = 0.0
    copies = teacher.clone(), student.clone(), weights.clone()
    bradley_terry_loss(teacher, student, weights=weights)
    assert all(torch.equal(a, b) for a, b in zip((teacher, student, weights), copies, strict=True))
