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
"""Rules about the student as a policy: distance from its reference, entropy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gad_verl.guardian.rule import Reading, Rule, number
from gad_verl.guardian.settings import RuleConfig, limited
from gad_verl.guardian.windows import Baseline

if TYPE_CHECKING:
    from gad_verl.config.guardian import GuardianConfig


@dataclass
class KlConfig(RuleConfig):
    """Fields of :class:`Kl`."""

    highest: float = limited(1.0, 0)


class Kl(Rule):
    """The student is far from its reference; nats per token (``actor/kl_loss``, only where a KL loss is used).

    Threshold: rule of thumb, not measured. The reference is the warmed-up student by default.
    """

    config: KlConfig
    name = "kl"
    knob = "actor_lr_factor"

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        kl = number(metrics, "actor/kl_loss")
        return None if kl is None else Reading(kl >= self.config.highest, {"kl_loss": kl})

    def finding(self, figures: Mapping[str, float]) -> str:
        limit = f"(limit {self.config.highest:g})"
        return f"the student is {figures['kl_loss']:.3f} nats a token away from its reference {limit}"

    @property
    def remedy(self) -> str:
        return "Raise actor_rollout_ref.actor.kl_loss_coef or lower gad.adversarial.actor_lr; look at samples."


@dataclass
class EntropyConfig(RuleConfig):
    """Fields of :class:`Entropy`."""

    fall: float = limited(0.2, 0, 1)
    rise: float = limited(3.0, 1)


class Entropy(Rule):
    """The student's entropy has fallen or risen far from where the adversarial stage began.

    Threshold: rule of thumb, not measured. Near 0 there is nothing left to explore; a rise means that the student comes
    apart.
    """

    config: EntropyConfig
    name = "entropy"
    knob = "actor_lr_factor"

    def __init__(self, config: EntropyConfig, guardian: "GuardianConfig") -> None:
        super().__init__(config, guardian)
        self.before = Baseline(guardian.baseline)

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        entropy = number(metrics, "actor/entropy")
        if entropy is None:
            return None
        before = self.before.add(entropy)
        if before is None:
            return None
        bad = not self.config.fall * before < entropy < self.config.rise * before
        return Reading(bad, {"entropy": entropy, "entropy_before": before})

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"the student's entropy is {figures['entropy']:.3f}, at first {figures['entropy_before']:.3f} (limits "
            f"{self.config.fall:g} and {self.config.rise:g} times that)"
        )

    @property
    def remedy(self) -> str:
        return (
            "Fallen: raise actor_rollout_ref.rollout.temperature or actor_rollout_ref.actor.entropy_coeff. Risen: "
            "lower gad.adversarial.actor_lr, raise actor_rollout_ref.actor.kl_loss_coef."
        )
