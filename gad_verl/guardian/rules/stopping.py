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
"""Early stopping: nothing more is to be learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gad_verl.errors import GadConfigError
from gad_verl.guardian.rule import ADVERSARIAL, DISCRIMINATOR_ONLY, SEQKD, WARMUP, Reading, Rule, number, numbers
from gad_verl.guardian.settings import RuleConfig, chosen, limited
from gad_verl.guardian.windows import Debounce, Trace

if TYPE_CHECKING:
    from gad_verl.config.guardian import GuardianConfig

# What helps where f stays 0.
UNTRUSTED_REMEDY = (
    "The student learned nothing from scores: SeqKD alone (gad.stage=seqkd) would have done the same at a fraction of "
    "the cost. What helps a discriminator to know more: more teacher texts, a larger one (discriminator.model.path), "
    "more updates before (gad.discriminator_only_steps, gad.discriminator_only_updates), or a shorter warmup of the "
    "student. It may also be as good as the teacher to its eyes: compare it with the one after the warmup."
)

_TOO_FEW = "too few held-out prompts were seen to tell: gad.trust.held_out_fraction, gad.trust.least_prompts"

# Two-sided 95 % quantile of the normal distribution.
_Z = 1.959964


def wilson(share: float, count: float) -> tuple[float, float]:
    """95 % interval of a share of ``count`` independent cases (Wilson 1927)."""
    # Beyond its bounds by rounding, or in a file that is damaged.
    share, square = min(1.0, max(0.0, share)), _Z * _Z
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _Z / (1 + square / count) * (share * (1 - share) / count + square / (4 * count * count)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass
class UntrustedConfig(RuleConfig):
    """Fields of :class:`Untrusted`."""

    steps: int = limited(100, 1)


class Untrusted(Rule):
    """The discriminator could not tell teacher from student on held-out prompts for many steps: f is 0 in all of them.

    The student has then learned nothing from scores (``gad.trust``), also where too few held-out prompts were seen for
    an accuracy. The number of steps is a rule of thumb.
    """

    config: UntrustedConfig
    name = "untrusted"

    def debounce(self) -> Debounce:
        return Debounce(self.config.steps, self.config.steps)

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        factor, accuracy = number(metrics, "gad/trust_factor"), number(metrics, "gad/trust_accuracy")
        if factor is None:
            return None
        return Reading(factor == 0, {"factor": factor} | ({} if accuracy is None else {"accuracy": accuracy}))

    def finding(self, figures: Mapping[str, float]) -> str:
        # Logged only where enough prompts were seen.
        known = f"accuracy {figures['accuracy']:.2f}" if "accuracy" in figures else _TOO_FEW
        return (
            f"gad/trust_factor, what the discriminator knows on held-out prompts, is {figures['factor']:.2f} ({known}; "
            f"limit 0 in {self.config.steps} adversarial steps one after another)"
        )

    @property
    def remedy(self) -> str:
        return UNTRUSTED_REMEDY


@dataclass
class OverfittedConfig(RuleConfig):
    """Fields of :class:`Overfitted`."""

    errors: float = limited(2.0, 0)
    validations: int = limited(2, 1)


class Overfitted(Rule):
    """The student learns the teacher's training texts by heart: the loss on those of the validation rises for sure.

    In the warmup and SeqKD, and in the adversarial stage while the texts teach more than half of a step. Where scores
    teach, the loss may rise for a good reason. Source: examples/studies/teacher_language.py, where both divergences
    from a real teacher grew with it, five and seven times. The number of validations is a rule of thumb.
    """

    config: OverfittedConfig
    name = "overfitted"
    stages = frozenset({WARMUP, ADVERSARIAL, SEQKD})

    def __init__(self, config: OverfittedConfig, guardian: "GuardianConfig") -> None:
        super().__init__(config, guardian)
        # Of the last step; a validation is judged apart from it.
        self.texts_weight = Trace(1)

    def debounce(self) -> Debounce:
        return Debounce(self.config.validations, self.config.validations)

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        weight = number(metrics, "gad/texts_weight")
        if weight is not None:
            self.texts_weight.add(weight)
        found = numbers(
            metrics, "gad/stage", "val-gad/text_loss", "val-gad/text_loss_change", "val-gad/text_loss_change_error"
        )
        if found is None:
            return None
        stage, loss, change, error = found
        if stage == ADVERSARIAL and max(self.texts_weight.values, default=0.0) <= 0.5:
            return None
        return Reading(change > self.config.errors * error, {"text_loss": loss, "change": change, "error": error})

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"the student's loss on the teacher's texts of the validation is {figures['text_loss']:.3f} nats a token, "
            f"{figures['change']:+.3f} +- {figures['error']:.3f} since the one before (limit a rise of "
            f"{self.config.errors:g} errors in {self.config.validations} validations one after another)"
        )

    @property
    def remedy(self) -> str:
        return (
            "It learns the training texts by heart: take an earlier checkpoint, and end the warmup or SeqKD there "
            "(gad.warmup_steps), with more teacher texts or a lower rate (gad.warmup.actor_lr). As a model of the "
            "teacher it gets worse; whether its single answers do, a check or a judge can say."
        )


@dataclass
class IndistinguishableConfig(RuleConfig):
    """Fields of :class:`Indistinguishable`."""

    margin: float = limited(0.1, 0, 0.5)
    validations: int = limited(3, 1)
    once_apart: float = limited(0.65, 0.5, 1)


class Indistinguishable(Rule):
    """Teacher and student cannot be told apart on held-out prompts, in several validations one after another.

    The whole 95 % interval of ``val-gad/accuracy`` must lie within ``margin`` of 0.5: too few held-out prompts prove
    nothing, and never trip it. The discriminator must have told the sides apart before (``once_apart``), be it before
    the adversarial stage: one that never learned anything is no proof either. Thresholds: rules of thumb, not measured.
    """

    config: IndistinguishableConfig
    name = "indistinguishable"
    # Before the adversarial stage only the best value is looked for.
    stages = frozenset({DISCRIMINATOR_ONLY, WARMUP, ADVERSARIAL})

    def __init__(self, config: IndistinguishableConfig, guardian: "GuardianConfig") -> None:
        super().__init__(config, guardian)
        self.best = Trace(1)

    def debounce(self) -> Debounce:
        return Debounce(self.config.validations, self.config.validations)

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        found = numbers(metrics, "val-gad/accuracy", "val-gad/num_pairs")
        if found is None or found[1] < 1:
            return None
        accuracy, pairs = found
        low, high = wilson(accuracy, pairs)
        # Certainly above chance, and by enough.
        best = max([accuracy if low > 0.5 else 0.0, *self.best.values])
        self.best.add(best)
        if number(metrics, "gad/stage") != ADVERSARIAL:
            return None
        bad = best >= self.config.once_apart and abs(low - 0.5) <= self.config.margin >= abs(high - 0.5)
        return Reading(bad, {"val_accuracy": accuracy, "low": low, "high": high, "pairs": pairs, "best": best})

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"on {figures['pairs']:.0f} held-out pairs the discriminator's accuracy is "
            f"{figures['val_accuracy']:.3f}, 95 % interval {figures['low']:.3f} to {figures['high']:.3f} (limit "
            f"{self.config.margin:g} about 0.5); it was {figures['best']:.3f} once"
        )

    @property
    def remedy(self) -> str:
        return "To this discriminator the student is as good as the teacher: the run can end, compare its checkpoints."


@dataclass
class NoImprovementConfig(RuleConfig):
    """Fields of :class:`NoImprovement`."""

    metric: str | None = None
    direction: str = chosen("up", "up", "down")
    patience: int = limited(5, 1)
    delta: float = limited(0.0, 0)

    def validate(self, key: str) -> None:
        super().validate(key)
        if self.metric == "":
            raise GadConfigError(f"{key}metric must name a metric of the validation, or be null")


class NoImprovement(Rule):
    """A metric of the validation has not become better for some validations (``patience``). Off without ``metric``.

    The warmup counts as well, so that a best value of the warmed-up student is one to beat.
    """

    config: NoImprovementConfig
    name = "no_improvement"
    stages = frozenset({WARMUP, ADVERSARIAL, SEQKD})

    def __init__(self, config: NoImprovementConfig, guardian: "GuardianConfig") -> None:
        super().__init__(config, guardian)
        self.best = Trace(1)
        self.waited = Trace(1)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "of": self._of}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # Of another metric nothing is a figure to beat.
        if state.get("of", self._of) == self._of:
            super().load_state_dict(state)

    @property
    def _of(self) -> list[str | None]:
        return [self.config.metric, self.config.direction]

    def debounce(self) -> Debounce:
        return Debounce(1, 1)

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        value = None if self.config.metric is None else number(metrics, self.config.metric)
        if value is None:
            return None
        sign = 1 if self.config.direction == "up" else -1
        best = self.best.values[0] if self.best.values else None
        if best is None or sign * (value - best) > self.config.delta:
            best = value
            self.best.add(value)
            waited = 0.0
        else:
            waited = self.waited.values[0] + 1
        self.waited.add(waited)
        return Reading(waited >= self.config.patience, {"value": value, "best": best, "validations": waited})

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"{self.config.metric} is {figures['value']:.4g}; its best, {figures['best']:.4g}, is "
            f"{figures['validations']:.0f} validations ago (patience {self.config.patience})"
        )

    @property
    def remedy(self) -> str:
        return "More training has not helped: the run can end, take the checkpoint of the best value."
