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
"""The discriminator's loss in the form that verl's engines call."""

from dataclasses import dataclass, field
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from gad_verl.config.custom_code import load_custom
from gad_verl.core import PairLossOptions, discriminator_pair_loss, gradient_penalty_from_scores, pair_weights
from gad_verl.discriminator.groups import GroupLayout, split_group_scores, take_sources

CUSTOM_LOSS_KEY = "gad.discriminator_loss.custom"


@dataclass(frozen=True)
class LossOptions:
    """What the loss is made of.

    Args:
        pairs: Loss of the pairs.
        penalty_coefficient: gamma of the gradient penalty; read where a batch has copies with noise.
        penalty_distance: Standard deviation of their noise over the root mean square of the embeddings.
        custom: Loss of a pair that the user has written, in the place of ``pairs``
            (:func:`gad_verl.config.custom_code.load_custom`); None takes ``pairs``.
    """

    pairs: PairLossOptions = field(default_factory=PairLossOptions)
    penalty_coefficient: float = 0.0
    penalty_distance: float = 0.01
    custom: str | None = None


def last_token_scores(values: torch.Tensor) -> torch.Tensor:
    """Score of each sequence: the value at its last token.

    Args:
        values: Nested (rows, tokens), jagged.

    Returns:
        (rows,) in float32, with gradient.
    """
    jagged: Any = values  # torch's types leave the methods of nested tensors out
    return jagged.values()[jagged.offsets()[1:] - 1].float()


def row_scores(values: torch.Tensor, data: TensorDict) -> torch.Tensor:
    """Score of each row of a batch: the value at its last token, or what ``score_weight`` makes of all of its values.

    Args:
        values: Nested (rows, tokens), jagged.
        data: The batch.

    Returns:
        (rows,) in float32, with gradient.
    """
    if "score_weight" not in data.keys():
        return last_token_scores(values)
    jagged: Any = values
    shares: Any = data["score_weight"]
    flat = jagged.values().float() * shares.values().to(jagged.values().device)
    return torch.segment_reduce(flat, "sum", lengths=jagged.offsets().diff())


def group_loss(
    scores: torch.Tensor,
    row_weight: torch.Tensor,
    layout: GroupLayout,
    num_pairs: float | None,
    num_noisy: float,
    options: LossOptions,
) -> torch.Tensor:
    """Loss of whole groups: pairs, and the gradient penalty where rows are repeated with noise.

    Args:
        scores: (R,) of all rows of the groups.
        row_weight: (R,) as in ``build_group_batch``.
        layout: Rows of a group.
        num_pairs, num_noisy: Sums of the weights of the WHOLE batch.
        options: See :class:`LossOptions`.
    """
    teacher, student, noisy = split_group_scores(scores, layout)
    teacher_weight, student_weight, noisy_weight = split_group_scores(row_weight, layout)
    weights = pair_weights(teacher_weight, student_weight)
    pair_loss = options.pairs if options.custom is None else load_custom(options.custom, CUSTOM_LOSS_KEY)
    loss = discriminator_pair_loss(teacher, student, weights, num_pairs, pair_loss)
    if layout.noisy_students is not None:
        clean = scores.view(-1, layout.group_size)[:, layout.noisy_rows]
        loss = loss + gradient_penalty_from_scores(
            clean, noisy, noisy_weight, options.penalty_distance, options.penalty_coefficient, num_noisy
        )
    return loss


def group_score_gradients(
    scores: torch.Tensor, row_weight: torch.Tensor, layout: GroupLayout, num_noisy: float, options: LossOptions
) -> torch.Tensor:
    """Gradient of :func:`group_loss` of a whole batch with respect to every score, (R,), without autograd history.

    With these as constants, ``sum of gradient * score`` has the same gradient with respect to the discriminator's
    weights as the loss, and rows of one group need no common micro-batch: the second of two passes.
    """
    with torch.enable_grad():
        leaf = scores.detach().float().requires_grad_()
        loss = group_loss(leaf, row_weight, layout, None, num_noisy, options)
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def discriminator_loss(
    model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any = None, options: LossOptions | None = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Loss of a micro-batch, so divided that all micro-batches of all ranks add up to the loss of the WHOLE batch.

    Groups (``build_group_batch``) give the loss over the pairs of the batch; single rows with the gradients of their
    scores (``build_row_batch``) give the linear form of the second of two passes. verl averages gradients over the
    data-parallel ranks, so the loss is multiplied by their number. Signature of verl's loss functions
    (verl/workers/utils/losses.py).

    Args:
        model_output: ``values`` nested (rows, tokens).
        data: Micro-batch; the engine sets ``dp_size``.
        dp_group: Unused.
        options: None means the paper's loss.
    """
    scores = row_scores(model_output["values"], data)
    dp_size = tu.get_non_tensor_data(data, "dp_size", default=1)
    with torch.autocast(device_type=scores.device.type, enabled=False):
        if "score_gradient" in data.keys():
            loss = (scores * data["score_gradient"].to(scores.device)).sum()
        else:
            layout = batch_layout(data)
            loss = group_loss(
                take_sources(data, scores),
                data["row_weight"].to(scores.device),
                layout,
                tu.get_non_tensor_data(data, "num_pairs", default=None),
                tu.get_non_tensor_data(data, "num_noisy", default=0.0),
                LossOptions() if options is None else options,
            )
    return loss * dp_size, {}


def batch_layout(data: TensorDict) -> GroupLayout:
    """Layout of the groups of a batch of ``build_group_batch``."""
    num_teachers = tu.get_non_tensor_data(data, "num_teachers", default=1)
    noisy_students = tu.get_non_tensor_data(data, "noisy_students", default=-1)
    group_size = tu.get_non_tensor_data(data, "force_group_size", default=None)
    if noisy_students < 0:
        return GroupLayout(num_teachers, group_size - num_teachers)
    # Copies of all teachers and of noisy_students students follow.
    return GroupLayout(num_teachers, group_size - 2 * num_teachers - noisy_students, noisy_students)
