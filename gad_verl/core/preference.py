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
"""Preferences on plain tensors: DPO, and its gradient with respect to the log-probability of each text.

A batch of P pairs has chosen texts (the teacher's) and rejected ones (a snapshot of the student's), each with its
log-probability under the student and under the reference:

    L = mean over pairs of  -log sigmoid(beta * m),    m = (log p_c - log ref_c) - (log p_r - log ref_r)

L depends on the student through these log-probabilities alone. With the gradient by each of them as a constant, the
sum of gradient times log-probability has the same gradient by the weights: rows need no common micro-batch, and every
engine of verl can be used as it is.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PreferenceLogProbs:
    """Log-probabilities of P pairs in nats, (P,) each.

    Args:
        chosen, rejected: Under the student.
        reference_chosen, reference_rejected: Under the reference.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor

    @property
    def margins(self) -> Tensor:
        """m of each pair, (P,)."""
        return (self.chosen - self.reference_chosen) - (self.rejected - self.reference_rejected)


def preference_loss(pairs: PreferenceLogProbs, beta: float) -> Tensor:
    """DPO's loss, a scalar; ln 2 where the student is its reference.

    Raises:
        ValueError: If there is no pair, or ``beta`` is not positive.
    """
    if pairs.margins.numel() == 0:
        raise ValueError("the loss of preferences needs at least one pair")
    if not beta > 0:
        raise ValueError(f"beta must be positive; got {beta}")
    return -F.logsigmoid(beta * pairs.margins).mean()


def preference_gradients(pairs: PreferenceLogProbs, beta: float) -> tuple[Tensor, Tensor]:
    """Gradient of :func:`preference_loss` by the log-probabilities of the chosen (P,) and of the rejected (P,)."""
    with torch.enable_grad():
        chosen, rejected = (one.detach().double().requires_grad_() for one in (pairs.chosen, pairs.rejected))
        leaves = PreferenceLogProbs(chosen, rejected, pairs.reference_chosen, pairs.reference_rejected)
        of_chosen, of_rejected = torch.autograd.grad(preference_loss(leaves, beta), (chosen, rejected))
    return of_chosen, of_rejected


def preference_statistics(pairs: PreferenceLogProbs, beta: float) -> dict[str, float]:
    """``loss``, ``accuracy`` (margins above 0, ties count half), ``margin`` (beta m) and how both sides moved from the
    reference, in nats a text (``chosen_change``, ``rejected_change``); means over the pairs."""
    margins = pairs.margins.double()
    return {
        "loss": preference_loss(pairs, beta).item(),
        "accuracy": ((margins > 0).double() + 0.5 * (margins == 0).double()).mean().item(),
        "margin": beta * margins.mean().item(),
        "chosen_change": (pairs.chosen - pairs.reference_chosen).double().mean().item(),
        "rejected_change": (pairs.rejected - pairs.reference_rejected).double().mean().item(),
    }
