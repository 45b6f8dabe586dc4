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
"""Rules about numbers that are none, and updates that were left out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gad_verl.guardian.rule import ADVERSARIAL, DISCRIMINATOR_ONLY, PREFERENCE, SEQKD, WARMUP, Reading, Rule, number
from gad_verl.guardian.settings import POLICIES, RuleConfig, chosen, limited
from gad_verl.guardian.windows import Debounce

_EVERY_STAGE = frozenset({DISCRIMINATOR_ONLY, WARMUP, ADVERSARIAL, SEQKD, PREFERENCE})

# What must be finite in every step that logs it. verl logs ratios elsewhere that may rightly be nan.
_WATCHED = (
    "actor/loss",
    "actor/pg_loss",
    "actor/kl_loss",
    "actor/entropy",
    "actor/grad_norm",
    "disc/loss",
    "disc/grad_norm",
    "disc/margin_mean",
    "disc/teacher_score_mean",
    "disc/student_score_mean",
)


def _nonfinite(value: Any) -> bool:
    try:
        return not math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


@dataclass
class NonfiniteConfig(RuleConfig):
    """Fields of :class:`Nonfinite`."""

    policy: str | None = chosen("stop", *POLICIES)
    window: int = limited(10, 1)
    count: int = limited(3, 1, "window")


class Nonfinite(Rule):
    """A loss, a gradient or a score is nan or inf, in several steps: one alone is left out and does no harm.

    Threshold: 3 steps of 10, rule of thumb, not measured.
    """

    config: NonfiniteConfig
    name = "nonfinite"
    stages = _EVERY_STAGE
    weights_are_sound = False

    def debounce(self) -> Debounce:
        return Debounce(self.config.window, self.config.count)

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        present = [metrics[name] for name in _WATCHED if metrics.get(name) is not None]
        scores = number(metrics, "gad/nonfinite_scores")
        if not present and scores is None:
            # Such as the metrics of a validation, which are judged apart from those of their step.
            return None
        broken, scores = sum(map(_nonfinite, present)), scores or 0.0
        return Reading(broken > 0 or scores > 0, {"broken_metrics": float(broken), "nonfinite_scores": scores})

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"{figures['broken_metrics']:.1f} losses, gradients or means and {figures['nonfinite_scores']:.1f} scores "
            "a step are nan or inf"
        )

    @property
    def remedy(self) -> str:
        return (
            "The weights may be broken: go back to a checkpoint from before, with lower learning rates "
            "(gad.adversarial.actor_lr, gad.adversarial.discriminator_lr)."
        )


@dataclass
class SkippedConfig(RuleConfig):
    """Fields of :class:`Skipped`."""

    window: int = limited(20, 1)
    count: int = limited(2, 1, "window")


class Skipped(Rule):
    """Updates of the discriminator were left out because their gradient was not finite.

    Threshold: more than once in 20 steps, rule of thumb, not measured.
    """

    config: SkippedConfig
    name = "skipped"
    stages = frozenset({DISCRIMINATOR_ONLY, WARMUP, ADVERSARIAL})
    knob = "discriminator_lr_factor"

    def debounce(self) -> Debounce:
        return Debounce(self.config.window, self.config.count)

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        skipped = number(metrics, "disc/skipped_steps")
        return None if skipped is None else Reading(skipped > 0, {"skipped_steps": skipped})

    def finding(self, figures: Mapping[str, float]) -> str:
        return f"{figures['skipped_steps']:.2f} updates of the discriminator a step were left out"

    @property
    def remedy(self) -> str:
        return (
            "Their gradients were not finite: lower gad.adversarial.discriminator_lr (in the warmup "
            "gad.warmup.discriminator_lr) and look for broken rows in the data."
        )
