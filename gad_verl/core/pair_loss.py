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
"""The pair loss of the discriminator, on plain tensors, with its options.

Shape letters: G prompts, k teacher and n student responses per prompt.

GAD (arXiv 2511.10643, section 2) trains the discriminator D by the Bradley-Terry loss of every student response
against the teacher response of the same prompt:

    L = mean over pairs of  -log sigmoid(m),     m = D(x, y_teacher) - D(x, y_student)

That is what :class:`PairLossOptions` at its defaults is. Weights of pairs and a global pair count are enough for
everything else: failed rollouts are pairs of weight 0, micro-batches are parts of a batch that share its count.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BRADLEY_TERRY, CROSS_ENTROPY = "bradley_terry", "cross_entropy"
LOSS_KINDS = (BRADLEY_TERRY, CROSS_ENTROPY)

# Takes the scores of both sides, of one shape, and returns the loss of each pair in that shape.
PairLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PairLossOptions:
    """A loss of pairs by options.

    Args:
        kind: ``bradley_terry`` (-log sigmoid of the margin, the paper's) or ``cross_entropy`` (teacher 1, student 0;
            the paper's ablation, which did worse).
        temperature: Divides margins (or scores) before the sigmoid. Above 1, saturation sets in later.
        label_smoothing: Probability with which a label is taken to be wrong, in [0, 0.5).
        score_l2: Coefficient of the mean square of the scores, each side one half.
        score_centring: Coefficient of the mean of (D(teacher) + D(student))^2: pins the level of the scores, which the
            Bradley-Terry loss leaves free, without pulling the margin.
    """

    kind: str = BRADLEY_TERRY
    temperature: float = 1.0
    label_smoothing: float = 0.0
    score_l2: float = 0.0
    score_centring: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in LOSS_KINDS:
            raise ValueError(f"kind must be one of {', '.join(LOSS_KINDS)}; got {self.kind!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive; got {self.temperature}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in [0, 0.5); got {self.label_smoothing}")
        for name in ("score_l2", "score_centring"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")

    def __call__(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Loss of each pair, of the shape of the scores, without weights."""
        smoothing = self.label_smoothing
        if self.kind == BRADLEY_TERRY:
            margins = (teacher - student) / self.temperature
            losses = -F.logsigmoid(margins)
            if smoothing:
                losses = (1 - smoothing) * losses - smoothing * F.logsigmoid(-margins)
        else:
            sides = []
            for score in (teacher / self.temperature, -student / self.temperature):
                side = -F.logsigmoid(score)
                sides.append((1 - smoothing) * side - smoothing * F.logsigmoid(-score) if smoothing else side)
            # Half of both sides together: ln 2 where the discriminator knows nothing, as for Bradley-Terry.
            losses = 0.5 * (sides[0] + sides[1])
        if self.score_l2:
            losses = losses + self.score_l2 * 0.5 * (teacher.square() + student.square())
        if self.score_centring:
            losses = losses + self.score_centring * (teacher + student).square()
        return losses


PLAIN = PairLossOptions()


def expand_pairs(teacher_scores: Tensor, student_scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the k n pairs of each prompt.

    Args:
        teacher_scores: (G, k).
        student_scores: (G, n).

    Returns:
        Two views (G, k, n), at least float32.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if teacher_scores.dim() != 2 or student_scores.dim() != 2 or len(teacher_scores) != len(student_scores):
        raise ValueError(
            "teacher_scores must be (G,) or (G, k), and student_scores (G, n); got "
            f"{tuple(teacher_scores.shape)} and {tuple(student_scores.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(teacher_scores.dtype, student_scores.dtype), torch.float32)
    shape = (*teacher_scores.shape, student_scores.shape[1])
    return teacher_scores.to(dtype).unsqueeze(2).expand(shape), student_scores.to(dtype).unsqueeze(1).expand(shape)


def pair_margins(teacher_scores: Tensor, student_scores: Tensor) -> Tensor:
    """Margin of every pair, positive where the discriminator is right.

    Args:
        teacher_scores: (G,).
        student_scores: (G, n).

    Returns:
        (G, n), at least float32.

    Raises:
        ValueError: If the shapes do not fit.
    """
    teacher, student = expand_pairs(teacher_scores.unsqueeze(-1), student_scores)
    return (teacher - student).squeeze(1)


def pair_weights(teacher_weights: Tensor, student_weights: Tensor) -> Tensor:
    """Weights (G, k, n) of all pairs: the product of the weights of both sides, (G, k) and (G, n)."""
    return teacher_weights.unsqueeze(2) * student_weights.unsqueeze(1)


def discriminator_pair_loss(
    teacher_scores: Tensor,
    student_scores: Tensor,
    weights: Tensor | None = None,
    num_pairs: Tensor | float | None = None,
    pair_loss: PairLoss = PLAIN,
) -> Tensor:
    """Loss of the discriminator over all pairs of teacher and student responses to the same prompt.

    ``sum_p w_p * loss_p / num_pairs``: with ``num_pairs`` of the whole batch, the losses of any split of the prompts
    add up to the loss of the batch, and so do the gradients, whatever the loss of a pair is.

    Args:
        teacher_scores: (G, k), or (G,) for one teacher response per prompt.
        student_scores: (G, n).
        weights: (G, k, n), or (G, n) for one teacher response; None means 1. A pair of weight 0 is removed exactly:
            neither a non-finite score nor its gradient passes.
        num_pairs: Divisor. None means the sum of the weights; 0 gives loss 0.
        pair_loss: Loss of each pair: the paper's, :class:`PairLossOptions`, or a function of the user.

    Returns:
        Scalar, float32 or the scores' precision where that is higher.

    Raises:
        ValueError: If shapes do not fit or a weight is negative.
    """
    wanted = (*teacher_scores.shape, *student_scores.shape[1:])
    if teacher_scores.dim() < 2:
        teacher_scores = teacher_scores.unsqueeze(-1)
    teacher, student = expand_pairs(teacher_scores, student_scores)
    weights = teacher.new_ones(wanted) if weights is None else weights.to(teacher.dtype)
    if weights.shape != wanted:
        raise ValueError(f"weights must be {wanted}; got {tuple(weights.shape)}")
    weights = weights.reshape(teacher.shape)
    if bool((weights < 0).any()):
        raise ValueError("weights of pairs must not be negative")
    keep, zero = weights > 0, weights.new_zeros(())
    # The scores of removed pairs are replaced before any arithmetic: 0 * inf would be nan, in the gradient too.
    losses = pair_loss(torch.where(keep, teacher, zero), torch.where(keep, student, zero))
    losses = torch.where(keep, losses * weights, zero)
    divisor = torch.as_tensor(weights.sum() if num_pairs is None else num_pairs, dtype=losses.dtype).to(losses.device)
    return losses.sum() / torch.where(divisor > 0, divisor, torch.ones_like(divisor))


def bradley_terry_loss(
    teacher_scores: Tensor,
    student_scores: Tensor,
    weights: Tensor | None = None,
    num_pairs: Tensor | float | None = None,
) -> Tensor:
    """The paper's loss: :func:`discriminator_pair_loss` without options."""
    return discriminator_pair_loss(teacher_scores, student_scores, weights, num_pairs)


def gradient_penalty_from_scores(
    scores: Tensor, noisy_scores: Tensor, weights: Tensor, distance: float, coefficient: float, total: float
) -> Tensor:
    """Zero-centred gradient penalty on the input embeddings, in its finite-difference form.

    The penalty is ``coefficient / 2 * E |grad_e D|^2``. For noise z from N(0, 1), ``E_z (z . grad_e D)^2`` is that
    squared norm, and ``(D(e + h z) - D(e)) / h`` tends to ``z . grad_e D``. This form needs no second derivative, which
    fused attention kernels and sharded models do not offer; it costs one more row.

    Args:
        scores: (R,) scores of the rows.
        noisy_scores: (R,) scores of the same rows with ``h z`` added to their embeddings.
        weights: (R,) weight of each row.
        distance: h.
        coefficient: gamma.
        total: Sum of the weights of the WHOLE batch; 0 gives penalty 0.

    Returns:
        Scalar; the penalties of any split of the rows add up to that of the batch.
    """
    if total <= 0:
        return (scores.sum() + noisy_scores.sum()) * 0.0
    slopes = torch.where(weights > 0, (noisy_scores - scores) / distance, torch.zeros_like(scores))
    return 0.5 * coefficient * (slopes.square() * weights).sum() / total
