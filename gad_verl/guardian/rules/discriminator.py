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
"""Rules about the discriminator's accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gad_verl.guardian.rule import Reading, Rule, number, numbers
from gad_verl.guardian.settings import RuleConfig, limited
from gad_verl.guardian.windows import Debounce, Trace

if TYPE_CHECKING:
    from gad_verl.config.guardian import GuardianConfig

# Where the accuracy on fresh pairs stayed in the adversarial stage of replications that went well, with other codes.
HEALTHY_ACCURACY = (0.70, 0.85)


@dataclass
class SaturatedConfig(RuleConfig):
    """Fields of :class:`Saturated`."""

    accuracy: float = limited(0.9, 0.5, 1)
    fraction: float = limited(0.5, 0, 1)


class Saturated(Rule):
    """The discriminator is too strong: accuracy and the share of saturated pairs are both high.

    Thresholds: half of the pairs saturated is a rule of thumb; the accuracy is that of the healthy band (0.70 to 0.85)
    and some room. Above 0.97 nothing moved in small controlled studies; in the failure gallery (docs/studies.md, the
    seed on which it was set up) that limit spoke too late.
    """

    config: SaturatedConfig
    name = "saturated"
    knob = "discriminator_lr_factor"

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        found = numbers(metrics, "disc/accuracy", "disc/saturated_fraction")
        if found is None:
            return None
        accuracy, fraction = found
        bad = accuracy >= self.config.accuracy and fraction >= self.config.fraction
        return Reading(bad, {"accuracy": accuracy, "saturated_fraction": fraction})

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"the discriminator tells {figures['accuracy']:.3f} of the pairs apart (limit {self.config.accuracy:g}) "
            f"and {figures['saturated_fraction']:.2f} of them are saturated (limit {self.config.fraction:g})"
        )

    @property
    def remedy(self) -> str:
        return (
            "It may have found a shortcut in the form of the texts: read samples of both sides and run gad-verl data "
            "leaks. If not, it is too strong: lower gad.adversarial.discriminator_lr, smooth its labels "
            "(gad.discriminator_loss.label_smoothing), let it wait while it is ahead "
            "(gad.discriminator_updates.accuracy_below), or warm the student up for longer."
        )


@dataclass
class WeakConfig(RuleConfig):
    """Fields of :class:`Weak`."""

    accuracy: float = limited(0.6, 0, 1)


class Weak(Rule):
    """The discriminator knows too little: its score is noise, which the division by the group's spread blows up.

    Threshold: below 0.65 GAD made students worse in small controlled studies; the healthy band of a replication begins
    at 0.70. 0.6 leaves room for the end of a good run.
    """

    config: WeakConfig
    name = "weak"
    knob = "discriminator_steps"

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        accuracy = number(metrics, "disc/accuracy")
        return None if accuracy is None else Reading(accuracy < self.config.accuracy, {"accuracy": accuracy})

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"the discriminator tells {figures['accuracy']:.3f} of the fresh pairs apart "
            f"(limit {self.config.accuracy:g})"
        )

    @property
    def remedy(self) -> str:
        return (
            "Either the student is as good as the teacher to its eyes, or it has not learned enough, and then its "
            "score is noise that can make the student worse. Compare the student with the one after the warmup; "
            "train the discriminator for longer before (gad.discriminator_only_steps, gad.warmup_epochs) or more "
            "often (gad.discriminator_updates.updates_per_step), or leave "
            "gad=paper for the default, by which the student then goes on with the texts."
        )


@dataclass
class OscillationConfig(RuleConfig):
    """Fields of :class:`Oscillation`."""

    deviation: float = limited(0.15, 0, 0.5)


class Oscillation(Rule):
    """The accuracy swings from step to step, more than sampling explains.

    Threshold: a replication that did not beat the baseline had a standard deviation of 0.173, and 0.118 with the replay
    buffer that cured it. Taken about a straight line, so that a drift is no swing, and without the deviation that
    sampling alone can cause: all pairs of a prompt may agree, so prompts count and not pairs.
    """

    config: OscillationConfig
    name = "oscillation"
    knob = "actor_lr_factor"

    def __init__(self, config: OscillationConfig, guardian: "GuardianConfig") -> None:
        super().__init__(config, guardian)
        self.trace = Trace(guardian.window)

    def debounce(self) -> Debounce:
        # Each reading is a whole window already.
        steps = max(1, self.guardian.window // 4)
        return Debounce(steps, steps)

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        # Pairs instead of prompts, as in files of older runs, would take sampling for swings.
        found = numbers(metrics, "disc/accuracy", "gad/prompts")
        if found is None or found[1] < 1:
            return None
        accuracy, prompts = found
        self.trace.add(accuracy)
        if not self.trace.full:
            return None
        mean = sum(self.trace.values) / self.trace.size
        deviation = self.trace.deviation_from_line()
        # No share beyond its bounds, by rounding or in a file that is damaged.
        sampling = (max(0.0, mean * (1 - mean)) / prompts) ** 0.5
        bad = deviation**2 > self.config.deviation**2 + sampling**2
        return Reading(bad, {"deviation": deviation, "sampling_deviation": sampling, "accuracy": mean})

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"the discriminator's accuracy swings about {figures['accuracy']:.2f} with a deviation of "
            f"{figures['deviation']:.3f} over {self.trace.size} steps, where sampling explains "
            f"{figures['sampling_deviation']:.3f} (limit {self.config.deviation:g} beyond that)"
        )

    @property
    def remedy(self) -> str:
        return (
            "The two chase each other: give the discriminator a memory (gad.replay.capacity_steps), lower "
            "gad.adversarial.actor_lr and gad.adversarial.discriminator_lr, or take more prompts a step."
        )
