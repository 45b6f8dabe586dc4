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
"""Rules about how varied the rollouts are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gad_verl.guardian.rule import Reading, Rule, number, numbers
from gad_verl.guardian.settings import RuleConfig, limited
from gad_verl.guardian.windows import Baseline

if TYPE_CHECKING:
    from gad_verl.config.guardian import GuardianConfig


@dataclass
class NoSpreadConfig(RuleConfig):
    """Fields of :class:`NoSpread`."""

    fraction: float = limited(0.1, 0, 1)


class NoSpread(Rule):
    """Groups whose responses all score the same give the student no direction.

    Threshold: rule of thumb, not measured.
    """

    config: NoSpreadConfig
    name = "no_spread"

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        fraction = number(metrics, "disc/no_spread_fraction")
        return None if fraction is None else Reading(fraction >= self.config.fraction, {"no_spread_fraction": fraction})

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"{figures['no_spread_fraction']:.2f} of the groups score all their responses alike "
            f"(limit {self.config.fraction:g})"
        )

    @property
    def remedy(self) -> str:
        return (
            "Such groups train nothing. Identical responses? Raise actor_rollout_ref.rollout.temperature and look "
            "whether the rollouts of a prompt share a seed."
        )


@dataclass
class CollapseConfig(RuleConfig):
    """Fields of :class:`Collapse`."""

    self_bleu: float = limited(0.9, 0, 1)
    distinct_fall: float = limited(0.5, 0, 1)


class Collapse(Rule):
    """Responses become the same: to one prompt (self-BLEU of a group) or to all of them (distinct-2 of the batch).

    Thresholds: rules of thumb, not measured; distinct-2 is compared with the first steps of the adversarial stage,
    because its level depends on the amount of text.
    """

    config: CollapseConfig
    name = "collapse"
    knob = "actor_lr_factor"

    def __init__(self, config: CollapseConfig, guardian: "GuardianConfig") -> None:
        super().__init__(config, guardian)
        self.before = Baseline(guardian.baseline)

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        self_bleu, distinct = number(metrics, "gad/self_bleu"), number(metrics, "gad/distinct_2")
        if self_bleu is None or distinct is None:
            return None
        before = self.before.add(distinct)
        fell = before is not None and distinct <= self.config.distinct_fall * before
        figures = {"self_bleu": self_bleu, "distinct_2": distinct, "distinct_2_before": before or distinct}
        return Reading(self_bleu >= self.config.self_bleu or fell, figures)

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"the responses to a prompt have a self-BLEU of {figures['self_bleu']:.2f} (limit "
            f"{self.config.self_bleu:g}); distinct-2 of the batch is {figures['distinct_2']:.3f}, at first "
            f"{figures['distinct_2_before']:.3f} (limit {self.config.distinct_fall:g} of that)"
        )

    @property
    def remedy(self) -> str:
        return (
            "The rollouts become identical: raise actor_rollout_ref.rollout.temperature or "
            "actor_rollout_ref.actor.kl_loss_coef, lower gad.adversarial.actor_lr, and go back to a checkpoint "
            "from before."
        )


@dataclass
class RepetitionConfig(RuleConfig):
    """Fields of :class:`Repetition`."""

    excess: float = limited(0.2, 0, 1)


class Repetition(Rule):
    """Responses repeat their own four-grams more than the teacher's texts do.

    Threshold: rule of thumb, not measured.
    """

    config: RepetitionConfig
    name = "repetition"
    knob = "actor_lr_factor"

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        found = numbers(metrics, "gad/repetition", "gad/teacher_repetition")
        if found is None:
            return None
        student, teacher = found
        figures = {"repetition": student, "teacher_repetition": teacher}
        return Reading(student - teacher >= self.config.excess, figures)

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"{figures['repetition']:.2f} of a response's four-grams stood in it before, in the teacher's texts "
            f"{figures['teacher_repetition']:.2f} (limit {self.config.excess:g} more)"
        )

    @property
    def remedy(self) -> str:
        return (
            "The student goes round in circles: go back to a checkpoint from before, raise "
            "actor_rollout_ref.actor.kl_loss_coef or lower gad.adversarial.actor_lr."
        )
