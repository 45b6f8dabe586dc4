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
"""The student's cross-entropy on the teacher's texts of the validation: what texts alone still teach."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from gad_verl.trainer.supervised import SupervisedRow

# Standard errors by which a change must differ from 0; two-sided, 5 % of the changes of nothing do.
_SURE = 2.0


class HeldOutTexts:
    """Compares each validation with the one before, text by text.

    f says whether the discriminator can tell teacher from student. It does not say whether the texts have nothing left
    to teach, which cross-entropy learns at a fraction of the cost.
    """

    def __init__(self) -> None:
        # Nats and tokens of each text, by what identifies it.
        self._before: dict[str, tuple[float, int]] = {}
        self._now: dict[str, tuple[float, int]] = {}
        self._step: int | None = None

    def begin(self, step: int) -> None:
        """A validation begins after a step. One that a resumed run repeats takes the place of the first."""
        if step != self._step:
            self._before = self._now
        self._now, self._step = {}, step

    def add(self, rows: Sequence[SupervisedRow], nats: Sequence[float]) -> None:
        """The texts of a batch and their losses, in nats a text."""
        for row, loss in zip(rows, nats, strict=True):
            self._now[_name(row)] = (loss, sum(row.mask))

    @property
    def change(self) -> tuple[float, float] | None:
        """Change since the validation before and its standard error over the texts, both in nats a token.

        None without a validation before, of other texts, or of fewer than two.
        """
        if len(self._now) < 2 or self._before.keys() != self._now.keys():
            return None
        changes = [self._now[name][0] - self._before[name][0] for name in self._now]
        mean = sum(changes) / len(changes)
        variance = sum((one - mean) ** 2 for one in changes) / (len(changes) - 1)
        tokens = self._num_tokens / len(changes)
        return mean / tokens, math.sqrt(variance / len(changes)) / tokens

    @property
    def _num_tokens(self) -> int:
        return sum(tokens for _, tokens in self._now.values())

    def metrics(self) -> dict[str, float]:
        """Metrics of the validation under ``val-gad/``; a mean over tokens, as ``actor/loss`` of the warmup is."""
        if self._num_tokens == 0:
            return {}
        result = {"val-gad/text_loss": sum(nats for nats, _ in self._now.values()) / self._num_tokens}
        change = self.change
        if change is not None:
            result |= {"val-gad/text_loss_change": change[0], "val-gad/text_loss_change_error": change[1]}
        return result

    def still_teach(self) -> str | None:
        """In words, if the loss fell surely between the last two validations."""
        change = self.change
        if change is None or change[0] >= -_SURE * change[1]:
            return None
        return (
            "the warmup ends while the texts still teach: between the last two validations the loss on the teacher's "
            f"texts fell by {-change[0]:.3f} +- {change[1]:.3f} nats a token. A longer warmup (gad.warmup_steps) "
            "learns that at a fraction of the cost of the adversarial stage"
        )

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        sides = {"now": self._now, "before": self._before}
        return {"step": self._step} | {
            side: {name: list(value) for name, value in values.items()} for side, values in sides.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned."""
        # Checkpoints of older versions hold the last validation alone.
        self._now, self._before = (
            {name: (nats, tokens) for name, (nats, tokens) in state.get(side, {}).items()} for side in ("now", "before")
        )
        self._step = state.get("step")


def _name(row: SupervisedRow) -> str:
    return hashlib.sha1(repr((row.prompt_ids, row.response_ids)).encode()).hexdigest()
