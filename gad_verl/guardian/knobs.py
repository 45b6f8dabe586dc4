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
"""Knobs that the policy ``adapt`` turns, step by step and inside limits.

A rule holds a level, a whole number; 0 is neutral. The value of a knob follows from the level, and where several rules
turn the same knob, the value furthest from neutral holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gad_verl.errors import GadConfigError
from gad_verl.guardian.settings import Section, limited

NEUTRAL_KNOBS: dict[str, float] = {
    # Factors of the learning rates.
    "discriminator_lr_factor": 1.0,
    "actor_lr_factor": 1.0,
    # Updates of the discriminator in a step.
    "discriminator_steps": 1.0,
    # Off the advantage of a response, in units of its group's spread, for each teacher's length that it is longer.
    "length_penalty": 0.0,
}

_PENALTY_STEP = 0.1


@dataclass
class LimitsConfig(Section):
    """How far the policy ``adapt`` may turn each knob."""

    discriminator_lr_factor: float = limited(0.1, 0, 1)
    actor_lr_factor: float = limited(0.1, 0, 1)
    discriminator_steps: int = limited(4, 1)
    length_penalty: float = limited(1.0, 0)

    def validate(self, key: str) -> None:
        super().validate(key)
        for name in ("discriminator_lr_factor", "actor_lr_factor"):
            if getattr(self, name) == 0:
                raise GadConfigError(f"{key}{name} must be above 0: a rate of 0 learns nothing and finds no way back")


def knob_value(name: str, level: int, limits: LimitsConfig) -> float:
    """Value of a knob at a level: halved rates, one more step, a tenth more of penalty; then the
    limit.

    Raises:
        KeyError: If the knob is unknown.
    """
    if level == 0:
        return NEUTRAL_KNOBS[name]
    limit = float(getattr(limits, name))
    values = {
        "discriminator_lr_factor": max(limit, 0.5**level),
        "actor_lr_factor": max(limit, 0.5**level),
        "discriminator_steps": min(limit, 1.0 + level),
        "length_penalty": min(limit, _PENALTY_STEP * level),
    }
    return values[name]


def combine(name: str, values: Iterable[float]) -> float:
    """The value furthest from neutral."""
    lowest = name.endswith("_lr_factor")
    return (min if lowest else max)([NEUTRAL_KNOBS[name], *values])
