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
"""What a rule is: it reads the metrics of one step and says whether they are bad."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gad_verl.guardian.settings import RuleConfig
from gad_verl.guardian.windows import Baseline, Debounce, Trace

if TYPE_CHECKING:
    from gad_verl.config.guardian import GuardianConfig

# Values of the metric gad/stage (gad_verl.core.Phase; not imported, it would bring torch).
DISCRIMINATOR_ONLY, WARMUP, ADVERSARIAL, SEQKD, SNAPSHOT, PREFERENCE = range(6)


@dataclass(frozen=True)
class Reading:
    """What a rule saw in one step.

    Args:
        bad: Whether its condition holds.
        figures: Numbers of the step by name; one that a step does not have may be missing in it.
    """

    bad: bool
    figures: dict[str, float]


def number(metrics: Mapping[str, Any], name: str) -> float | None:
    """A metric as a finite number; None where it is missing, nan or inf."""
    value = metrics.get(name)
    try:
        value = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def numbers(metrics: Mapping[str, Any], *names: str) -> list[float] | None:
    """Several metrics; None if one is missing."""
    values = [number(metrics, name) for name in names]
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


class Rule(ABC):
    """One rule. Its name is the key of its section under ``gad.guardian``.

    A rule reads only where all of its metrics are there and the stage is one of ``stages``: warmup, SeqKD, or a metric
    that a run does not have can never trip it.

    Args:
        config: The rule's own section.
        guardian: The whole section.
    """

    name: ClassVar[str]
    # Stages in which the rule reads.
    stages: ClassVar[frozenset[int]] = frozenset({ADVERSARIAL})
    # What ``adapt`` turns; None: nothing can be turned, ``adapt`` warns.
    knob: ClassVar[str | None] = None
    # Whether the weights can be trusted when the rule stops a run.
    weights_are_sound: ClassVar[bool] = True

    def __init__(self, config: RuleConfig, guardian: "GuardianConfig") -> None:
        self.config = config
        self.guardian = guardian

    def debounce(self) -> Debounce:
        """In how many of how many readings the condition must hold."""
        return Debounce(self.guardian.window, self.guardian.count)

    @abstractmethod
    def read(self, metrics: Mapping[str, Any]) -> Reading | None:
        """Look at one step; None if there is nothing to say."""

    @abstractmethod
    def finding(self, figures: Mapping[str, float]) -> str:
        """What was seen, with the figures. Begins in lower case, ends without a full stop."""

    def knob_helps(self, figures: Mapping[str, float]) -> bool:
        """Whether turning the knob is a remedy here, for a condition that has two sides."""
        return True

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do, whole sentences."""

    def state_dict(self) -> dict[str, Any]:
        """The memory of the rule: every attribute that is a window."""
        return {name: part.state_dict() for name, part in self._memory().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._memory().items():
            if name in state:
                part.load_state_dict(state[name])

    def _memory(self) -> dict[str, Baseline | Trace | Debounce]:
        return {name: part for name, part in vars(self).items() if isinstance(part, Baseline | Trace | Debounce)}
