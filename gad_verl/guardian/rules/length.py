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
"""Rules about length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gad_verl.guardian.rule import Reading, Rule, number
from gad_verl.guardian.settings import RuleConfig, limited
from gad_verl.guardian.windows import Baseline

if TYPE_CHECKING:
    from gad_verl.config.guardian import GuardianConfig


@dataclass
class LengthConfig(RuleConfig):
    """Fields of :class:`Length`."""

    highest: float = limited(1.5, 1)
    lowest: float = limited(0.5, 0, 1)
    growth: float = limited(1.25, 1)


class Length(Rule):
    """Responses are far longer (or shorter) than the teacher's, and more so than when the adversarial stage began.

    Thresholds: gad-verl compare takes lengths up to 1.5 times the teacher's; healthy runs of the paper are 1.13 to 1.33
    times as long as the teacher, hacked ones several times. The lower limit and the growth: rules of thumb, not
    measured.
    """

    config: LengthConfig
    name = "length"
    knob = "length_penalty"

    def __init__(self, config: LengthConfig, guardian: "GuardianConfig") -> None:
        super().__init__(config, guardian)
        self.before = Baseline(guardian.baseline)

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        ratio = number(metrics, "gad/length_ratio")
        if ratio is None:
            return None
        before = self.before.add(ratio)
        if before is None:
            return None
        grew = ratio >= self.config.highest and ratio >= self.config.growth * before
        shrank = ratio <= self.config.lowest and ratio * self.config.growth <= before
        return Reading(grew or shrank, {"length_ratio": ratio, "length_ratio_before": before})

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"responses are {figures['length_ratio']:.2f} times as long as the teacher's, at first "
            f"{figures['length_ratio_before']:.2f} times (limits {self.config.lowest:g} and {self.config.highest:g})"
        )

    def knob_helps(self, figures: Mapping[str, float]) -> bool:
        """A price of length helps against long responses only."""
        return figures["length_ratio"] > 1

    @property
    def remedy(self) -> str:
        return (
            "The sign of reward hacking by length: look at gad/score_length_correlation and at samples, take a "
            "checkpoint from before, and take length out of the reward (gad.reward.length_correction=regression). "
            "A frozen discriminator does this: see that it is trained."
        )


@dataclass
class ScoreLengthConfig(RuleConfig):
    """Fields of :class:`ScoreLength`."""

    correlation: float = limited(0.8, 0, 1)


class ScoreLength(Rule):
    """The score of a response follows its length.

    Threshold: rule of thumb, not measured (the quickstart's healthy warmup reaches 0.73 in single steps).
    """

    config: ScoreLengthConfig
    name = "score_length"
    knob = "length_penalty"

    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        correlation = number(metrics, "gad/score_length_correlation")
        if correlation is None:
            return None
        return Reading(abs(correlation) >= self.config.correlation, {"score_length_correlation": correlation})

    def finding(self, figures: Mapping[str, float]) -> str:
        return (
            f"score and length of a response correlate by {figures['score_length_correlation']:.2f} "
            f"(limit {self.config.correlation:g} either way)"
        )

    def knob_helps(self, figures: Mapping[str, float]) -> bool:
        """A price of length helps where long responses score higher, and makes the contrary worse."""
        return figures["score_length_correlation"] > 0

    @property
    def remedy(self) -> str:
        return (
            "The discriminator judges length. Watch gad/length_ratio; take length out of the reward "
            "(gad.reward.length_correction=regression), or warm the student up until the lengths agree."
        )
