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
"""The pair loss of the discriminator, on plain tensors.

Shape letters: B prompts, n student responses per prompt, P pairs.

GAD (arXiv 2511.10643, section 2) trains the discriminator D by the Bradley-Terry loss of every student response
against the teacher response of the same prompt:

    L = mean over pairs of  -log sigmoid(m),     m = D(x, y_teacher) - D(x, y_student)

A pair list with weights and a global pair count is enough for everything else: failed rollouts are pairs of weight 0,
micro-batches are pair lists that share the count of the whole batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _computation_dtype(*tensors: Tensor) -> torch.dtype:
    """float32, or the inputs' precision where that is higher."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def pair_margins(teacher_scores: Tensor, student_scores: Tensor) -> Tensor:
    """Margin of every pair, positive where the discriminator is right.

    Args:
        teacher_scores: (B,) with ``student_scores`` (B, n), or (P,) with ``student_scores`` (P,).
        student_scores: (B, n) or (P,).

    Returns:
        Tensor of the shape of ``student_scores``, at least float32.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if teacher_scores.dim() != 1 or student_scores.dim() not in (1, 2) or len(teacher_scores) != len(student_scores):
        raise ValueError(
            "teacher_scores must be (B,) with student_scores (B, n), or both (P,); got "
            f"{tuple(teacher_scores.shape)} and {tuple(student_scores.shape)}"
        )
    dtype = _computation_dtype(teacher_scores, student_scores)
    teacher, student = teacher_scores.to(dtype), student_scores.to(dtype)
    return (teacher.unsqueeze(-1) if student.dim() == 2 else teacher) - student


def bradley_terry_loss(
    teacher_scores: Tensor,
    student_scores: Tensor,
    weights: Tensor | None = None,
    num_pairs: Tensor | float | None = None,
) -> Tensor:
    """Bradley-Terry loss of teacher over student responses (GAD, arXiv 2511.10643, section 2).

    ``sum_p w_p * -log sigmoid(margin_p) / num_pairs``. With ``num_pairs`` of the whole batch, the losses of any split
    of the pairs add up to the loss of the batch, and so do the gradients.

    Args:
        teacher_scores: (B,) scores of the teacher responses, or (P,) for a list of pairs.
        student_scores: (B, n) scores of the student responses, or (P,).
        weights: Weight of each pair, of the shape of ``student_scores``; None means 1. A pair of weight 0 is removed
            exactly: neither a non-finite score nor its gradient passes.
        num_pairs: Divisor. None means the sum of the weights; 0 pairs give loss 0.

    Returns:
        Scalar, float32 or the inputs' precision where that is higher.

    Raises:
        ValueError: If shapes do not fit or a weight is negative.
    """
    student_shape = student_scores.shape
    if weights is not None:
        if weights.shape != student_shape:
            raise ValueError(f"weights must have the shape of student_scores {tuple(student_shape)}: {weights.shape}")
        if bool((weights < 0).any()):
            raise ValueError("weights of pairs must not be negative")
        # The scores of removed pairs are replaced before any arithmetic: 0 * inf would be nan, in the gradient too.
        keep = weights > 0
        student_scores = torch.where(keep, student_scores, torch.zeros_like(student_scores))
        if student_scores.dim() == 1:
            teacher_scores = torch.where(keep, teacher_scores, torch.zeros_like(teacher_scores))
        else:
            any_kept = keep.any(dim=-1)
            teacher_scores = torch.where(any_kept, teacher_scores, torch.zeros_like(teacher_scores))
    margins = pair_margins(teacher_scores, student_scores)
    losses = -F.logsigmoid(margins)
    if weights is not None:
        losses = losses * weights.to(losses.dtype)
    if num_pairs is None:
        num_pairs = losses.numel() if weights is None else weights.to(losses.dtype).sum()
    divisor = torch.as_tensor(num_pairs, dtype=losses.dtype, device=losses.device)
    return losses.sum() / torch.where(divisor > 0, divisor, torch.ones_like(divisor))


def bradley_terry_score_gradients(
    teacher_scores: Tensor,
    student_scores: Tensor,
    weights: Tensor | None = None,
    num_pairs: Tensor | float | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradient of :func:`bradley_terry_loss` with respect to each score.

    With these as constants, the loss is replaced by ``sum of gradient * score``: linear in each row's own score and of
    the same gradient with respect to the discriminator's weights. Rows of one group then need no common micro-batch::

        dL/dD(s_i) = + w_i sigmoid(-m_i) / P        dL/dD(y_t) = - sum_i w_i sigmoid(-m_i) / P

    Args:
        teacher_scores: (B,).
        student_scores: (B, n).
        weights: (B, n) or None; as in :func:`bradley_terry_loss`. A pair of weight 0 contributes exactly 0, whatever
            its score.
        num_pairs: P; None means the sum of the weights.

    Returns:
        Gradients of the teacher scores (B,) and of the student scores (B, n), without autograd history.
    """
    margins = pair_margins(teacher_scores.detach(), student_scores.detach())
    if weights is None:
        weights = torch.ones_like(margins)
    if num_pairs is None:
        num_pairs = weights.to(margins.dtype).sum()
    divisor = torch.as_tensor(num_pairs, dtype=margins.dtype, device=margins.device)
    divisor = torch.where(divisor > 0, divisor, torch.ones_like(divisor))
    student = torch.where(weights > 0, weights.to(margins.dtype) * torch.sigmoid(-margins), 0.0) / divisor
    return -student.sum(dim=-1), student
