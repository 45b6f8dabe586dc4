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
"""One rule with its policy: debounced, with the means of its figures and the level of its knob."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from gad_verl.guardian.events import Event, Standing
from gad_verl.guardian.knobs import LimitsConfig, knob_value
from gad_verl.guardian.rule import Rule, number

# Every relapse doubles the wait on the way back, up to this factor.
_MOST_PATIENCE = 8


class Watch:
    """Turns the readings of a rule into events.

    A rule that trips says so once; it is armed again when its condition has passed. With the policy ``adapt`` the knob
    goes one level further for every window in which the condition still holds, and one level back for every window
    after it has passed.

    Args:
        rule: The rule.
        policy: ``warn``, ``adapt`` or ``stop``.
        limits: Limits of the knobs.
    """

    def __init__(self, rule: Rule, policy: str, limits: LimitsConfig) -> None:
        self.rule, self.policy, self._limits = rule, policy, limits
        self._debounce = rule.debounce()
        self._figures: deque[dict[str, float]] = deque(maxlen=self._debounce.window)
        self._level = 0
        # Readings since the knob was turned, and how often the rule has tripped.
        self._since, self._trips = 0, 0
        # Tripped while the policy did not end a run for it.
        self._unheeded = False

    @property
    def tripped(self) -> bool:
        """Whether the condition stands."""
        return self._debounce.tripped

    @property
    def _patience(self) -> int:
        """Windows to wait before each level of the way back: more after every relapse, so that it does not swing."""
        return min(_MOST_PATIENCE, 2 ** max(0, self._trips - 1))

    @property
    def knob(self) -> tuple[str, float] | None:
        """Name and value of the knob that this rule turns at present."""
        if self._level == 0 or self.rule.knob is None:
            return None
        return self.rule.knob, knob_value(self.rule.knob, self._level, self._limits)

    def observe(self, step: int, metrics: Mapping[str, Any]) -> list[Event]:
        """Read one step."""
        stage = number(metrics, "gad/stage")
        if stage is None or int(stage) not in self.rule.stages:
            return []
        reading = self.rule.read(metrics)
        if reading is None:
            return []
        self._figures.append(reading.figures)
        self._since += 1
        changed = self._debounce.add(reading.bad)
        self._trips += changed and self.tripped
        events = [self._said(step)] if changed or (self._unheeded and self.tripped) else []
        self._unheeded = False
        if self.policy == "adapt" and self.rule.knob is not None:
            events += self._turn(step, changed)
        return events

    def _said(self, step: int) -> Event:
        means, seen = self._means(), f"{self.rule.name}: {self._seen()}"
        if not self.tripped:
            return Event(step, self.rule.name, "info", f"{seen}. The condition has passed.", means)
        action = "stop" if self.policy == "stop" else "warn"
        return Event(step, self.rule.name, action, f"{seen}. {self.rule.remedy}", means)

    def _turn(self, step: int, changed: bool) -> list[Event]:
        window, before = self._debounce.window, self._level
        if self.tripped and (changed or self._since >= window):
            self._level += self.rule.knob_helps(self._means())
        elif not self.tripped and before > 0 and self._since >= window * self._patience:
            self._level -= 1
        if self._level == before:
            return []
        name = self.rule.knob
        assert name is not None
        old, new = (knob_value(name, level, self._limits) for level in (before, self._level))
        self._since = 0
        if old == new:
            # At its limit: further levels would only make the way back longer.
            self._level = before
            return []
        why = "the condition stands" if self.tripped else "the condition has passed"
        text = f"{self.rule.name}: {why}, so the guardian sets {name} from {old:g} to {new:g}"
        return [Event(step, self.rule.name, "adapt", text, {**self._means(), "knob_before": old, "knob": new})]

    def standing(self) -> Standing:
        """How the rule stands."""
        debounce, seen = self._debounce, self._seen() if self._figures else ""
        return Standing(self.rule.name, self.tripped, debounce.readings, debounce.count, seen, self.rule.remedy)

    def _seen(self) -> str:
        finding, debounce = self.rule.finding(self._means()), self._debounce
        if debounce.window == 1:
            return finding
        held = f"this held in {debounce.held} of the last {debounce.readings} readings"
        return f"{finding}; {held}; figures are means over these"

    def _means(self) -> dict[str, float]:
        """Of each figure, over the readings that have it."""
        seen: dict[str, list[float]] = {}
        for figures in self._figures:
            for name, value in figures.items():
                seen.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in seen.items()}

    def state_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "debounce": self._debounce.state_dict(),
            "figures": [dict(one) for one in self._figures],
            "level": self._level,
            "since": self._since,
            "trips": self._trips,
            "policy": self.policy,
            "rule": self.rule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._debounce.load_state_dict(state["debounce"])
        self._figures = deque((dict(one) for one in state["figures"]), maxlen=self._debounce.window)
        # With a policy that turns no knobs (it may have been changed since), the knob goes back to neutral at once.
        self._level = int(state["level"]) if self.policy == "adapt" else 0
        self._since, self._trips = int(state["since"]), int(state["trips"])
        # Who resumes with the policy ``stop`` has read that it tripped: if it still does, that ends the run.
        stops, stopped = self.policy == "stop", state.get("policy", "stop") == "stop"
        self._unheeded = stops and not stopped and self.tripped
        self.rule.load_state_dict(state["rule"])
