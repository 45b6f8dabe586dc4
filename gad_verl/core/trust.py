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
"""How far the discriminator is to be trusted: holds the student back in proportion to what the discriminator KNOWS.

Where the discriminator D cannot tell teacher from student on texts that it has never trained on, its score is noise.
GRPO divides rewards by their spread within the group, which makes noise as large as knowledge, and Adam makes every
gradient as large as any other: the student walks at full speed in a random direction. Two things follow.

1. Fresh pairs do not show what D knows: the student's text is new, but the teacher's text was a training text. A D that
   has learned the teacher's texts by heart is right on them. So some prompts never train D (:func:`is_held_out`): their
   pairs have weight 0 in its loss. They are in the batch anyway, so that their scores cost nothing.
2. A factor on the advantages, or on the loss, holds nobody back under Adam. The factor belongs on the learning RATE.

Shape letters: G prompts, n student responses per prompt.
"""

import hashlib
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gad_verl.core.pair_loss import pair_margins


@dataclass(frozen=True)
class HeldOut:
    """A rule by which prompts are held out (:func:`is_held_out`).

    Args:
        fraction: Share of prompts; 1 stands for all of them, 0 for none.
        seed: Another seed holds out other prompts.
    """

    fraction: float = 0.0
    seed: int = 0

    def also_by(self, other: "HeldOut") -> "HeldOut":
        """What this rule holds out and the other does too, as a rule; two seeds have nothing in common for sure."""
        if self.fraction >= 1:
            return other
        if other.fraction >= 1:
            return self
        return HeldOut(min(self.fraction, other.fraction) if self.seed == other.seed else 0.0, self.seed)


def is_held_out(prompt: str, fraction: float, seed: int = 0) -> bool:
    """Whether a prompt is among those that never train the discriminator.

    Depends on the prompt's text alone: all rows, epochs, ranks and resumed runs agree, and so do rows that share a
    prompt (a second row of it would give its teacher's text away).

    Args:
        prompt: The prompt's text, or any text that stands for it.
        fraction: Share of prompts, in [0, 1).
        seed: Another seed holds out other prompts.

    Raises:
        ValueError: If ``fraction`` is out of range.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the fraction of held-out prompts must be in [0, 1); got {fraction}")
    return _place(prompt, seed) < fraction * 2**64


def held_out_above(prompt: str, seed: int = 0) -> float:
    """The fraction in [0, 1] above which :func:`is_held_out` holds a prompt out, rounded to a float."""
    return _place(prompt, seed) / 2**64


def _place(prompt: str, seed: int) -> int:
    digest = hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big")


def pair_accuracy(teacher_scores: Tensor, student_scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Accuracy of each group: the share of its pairs that D orders rightly, ties counting half.

    Args:
        teacher_scores: (G,).
        student_scores: (G, n).
        weights: (G, n); pairs of weight 0 or without a finite margin are left out. None means 1.

    Returns:
        (G,) in [0, 1]; nan for a group without pairs.
    """
    margins = pair_margins(teacher_scores.detach(), student_scores.detach())
    used = torch.isfinite(margins)
    if weights is not None:
        used &= weights > 0
    right = (margins > 0).to(margins.dtype) + 0.5 * (margins == 0).to(margins.dtype)
    return torch.where(used, right, 0.0).sum(dim=1) / used.sum(dim=1)


@dataclass(frozen=True)
class TrustOptions:
    """When D is trusted fully, when not at all.

    Args:
        full_accuracy: Accuracy on held-out pairs from which the student learns at its full rate; in (0.5, 1].
        confidence: How many standard errors are taken off the accuracy first: what is not known surely does not count.
        window: Held-out groups that are remembered; the older ones stand for a D and a student that are gone.
        least_prompts: With fewer different held-out prompts seen, D is not trusted at all.

    Raises:
        ValueError: If an argument is out of range.
    """

    full_accuracy: float = 0.6
    confidence: float = 2.0
    window: int = 200
    least_prompts: int = 16

    def __post_init__(self) -> None:
        if not 0.5 < self.full_accuracy <= 1:
            raise ValueError(f"full_accuracy must be in (0.5, 1]; got {self.full_accuracy}")
        if self.confidence < 0:
            raise ValueError(f"confidence must not be negative; got {self.confidence}")
        if self.least_prompts < 2:
            raise ValueError(f"least_prompts must be at least 2; got {self.least_prompts}")
        if self.window < self.least_prompts:
            raise ValueError(f"window ({self.window}) must not be below least_prompts ({self.least_prompts})")


@dataclass(frozen=True)
class Trust:
    """What is known about D after a step.

    Args:
        factor: In [0, 1], for the student's learning rate.
        accuracy: Mean accuracy on the held-out prompts of the window; nan where there are too few.
        standard_error: Of that mean, with the prompt as the unit; nan where there are too few.
        num_prompts: Different held-out prompts in the window.
    """

    factor: float
    accuracy: float
    standard_error: float
    num_prompts: int


class DiscriminatorTrust:
    """Follows D's accuracy on held-out pairs over the steps and says how fast the student may learn from its scores.

    ``factor = clip((2 a - 1) / (2 full_accuracy - 1), 0, 1)`` with ``a = accuracy - confidence * standard error``: 0 at
    chance, 1 from ``full_accuracy`` on, linear between them.

    The unit of the standard error is the prompt, not the pair: pairs of one prompt share the teacher's text, and a
    prompt that comes back in later epochs is no new evidence. With few held-out prompts the error therefore stays
    large, however long the run.
    """

    def __init__(self, options: TrustOptions) -> None:
        self.options = options
        self._seen: deque[tuple[str, float]] = deque(maxlen=options.window)

    def update(
        self,
        teacher_scores: Tensor,
        student_scores: Tensor,
        held_out: Tensor,
        prompts: Sequence[str],
        weights: Tensor | None = None,
    ) -> Trust:
        """Take in the scores of a step, from the D of before its update; the factor is for the student of this step.

        Args:
            teacher_scores: (G,).
            student_scores: (G, n).
            held_out: (G,) bool, by :func:`is_held_out`; other groups are ignored.
            prompts: G texts that tell prompts apart (a hash will do; they are kept in the checkpoint).
            weights: (G, n); pairs of weight 0 (failed rollouts) are left out.

        Raises:
            ValueError: If shapes do not fit.
        """
        if held_out.shape != teacher_scores.shape or len(prompts) != len(teacher_scores):
            raise ValueError(
                f"held_out and prompts must name each of the {len(teacher_scores)} groups: "
                f"{tuple(held_out.shape)}, {len(prompts)}"
            )
        accuracies = pair_accuracy(teacher_scores, student_scores, weights).tolist()
        for prompt, accuracy, chosen in zip(prompts, accuracies, held_out.tolist(), strict=True):
            if chosen and not math.isnan(accuracy):
                self._seen.append((prompt, accuracy))
        return self.current()

    def current(self) -> Trust:
        """What is known now."""
        by_prompt: dict[str, list[float]] = {}
        for prompt, accuracy in self._seen:
            by_prompt.setdefault(prompt, []).append(accuracy)
        count = len(by_prompt)
        if count < self.options.least_prompts:
            return Trust(0.0, math.nan, math.nan, count)
        means = torch.tensor([sum(values) / len(values) for values in by_prompt.values()], dtype=torch.float64)
        accuracy, error = means.mean().item(), means.std().item() / math.sqrt(count)
        sure = accuracy - self.options.confidence * error
        factor = (2 * sure - 1) / (2 * self.options.full_accuracy - 1)
        return Trust(min(max(factor, 0.0), 1.0), accuracy, error, count)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"seen": [[prompt, accuracy] for prompt, accuracy in self._seen]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned, of a window of any size; the oldest are left out first."""
        self._seen.clear()
        self._seen.extend((prompt, accuracy) for prompt, accuracy in state["seen"])
