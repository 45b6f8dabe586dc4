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
"""What the guardian says."""

from dataclasses import dataclass, field
from typing import Any

SOURCE = "guardian"


@dataclass(frozen=True)
class Event:
    """One decision, in the layout of ``record/events.jsonl``.

    Args:
        step: Training step whose metrics led to it.
        rule: Name of the rule, as under ``gad.guardian``.
        action: ``warn``, ``adapt`` (a knob was turned), ``stop`` or ``info`` (a condition has passed).
        text: Plain words with the figures and the remedy.
        figures: The figures, means over the window unless the text says otherwise.
    """

    step: int
    rule: str
    action: str
    text: str
    figures: dict[str, float] = field(default_factory=dict)
    source: str = SOURCE

    def as_dict(self) -> dict[str, Any]:
        """One line of ``events.jsonl``."""
        return {
            "step": self.step,
            "source": self.source,
            "rule": self.rule,
            "action": self.action,
            "text": self.text,
            "figures": dict(self.figures),
        }


@dataclass(frozen=True)
class Standing:
    """How a rule stands after the last step that was observed.

    Args:
        rule: Its name.
        tripped: Whether its condition stands.
        readings: Readings that it remembers, at most its window.
        needed: Readings that it needs before it can trip.
        seen: What it saw, with the figures and limits, in lower case and without a full stop; empty without readings.
        remedy: What to do where it has tripped, whole sentences.
    """

    rule: str
    tripped: bool
    readings: int
    needed: int
    seen: str
    remedy: str

    @property
    def can_tell(self) -> bool:
        """Whether its silence means anything."""
        return self.readings >= self.needed


@dataclass(frozen=True)
class Stop:
    """That the run is to end, and how.

    Args:
        step: Step after which.
        rule: Rule that asks for it.
        reason: Plain words, the text of the event.
        save_checkpoint: False where the weights may be broken: a checkpoint of them could push out a good one.
    """

    step: int
    rule: str
    reason: str
    save_checkpoint: bool
