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
"""Memory of the rules: what happened in the last readings. Each part can be saved as JSON and goes on exactly."""

from collections import deque
from typing import Any


class Debounce:
    """Trips when a condition held in ``count`` of the last ``window`` readings, recovers when it hardly holds.

    Recovered means: held in at most a third of ``count`` of a full window. Between the two nothing changes, so that a
    condition at the edge does not flicker. A window that is not full yet can trip, but not recover.

    Args:
        window: Readings looked at.
        count: Of these, the readings in which the condition must hold.
    """

    def __init__(self, window: int, count: int) -> None:
        self.window, self.count = window, min(count, window)
        self.tripped = False
        self._held: deque[bool] = deque(maxlen=window)

    @property
    def held(self) -> int:
        """In how many of the remembered readings the condition held."""
        return sum(self._held)

    @property
    def readings(self) -> int:
        """Readings remembered, at most ``window``."""
        return len(self._held)

    def add(self, held: bool) -> bool:
        """One reading; True if the state changed."""
        self._held.append(held)
        before = self.tripped
        if self.held >= self.count:
            self.tripped = True
        elif self.readings == self.window and self.held <= self.count // 3:
            self.tripped = False
        return self.tripped != before

    def state_dict(self) -> dict[str, Any]:
        return {"held": [int(one) for one in self._held], "tripped": self.tripped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._held = deque((bool(one) for one in state["held"]), maxlen=self.window)
        self.tripped = bool(state["tripped"])


class Baseline:
    """Mean of the first ``size`` values; None until all have come."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: list[float] = []

    @property
    def value(self) -> float | None:
        return sum(self._values) / self.size if len(self._values) == self.size else None

    def add(self, value: float) -> float | None:
        """Remember a value if some are still wanted. Returns the baseline as it was before, for values after it."""
        known = self.value
        if known is None:
            self._values.append(value)
        return known

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self._values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._values = [float(value) for value in state["values"]][: self.size]


class Trace:
    """The last ``size`` values."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.values: deque[float] = deque(maxlen=size)

    @property
    def full(self) -> bool:
        return len(self.values) == self.size

    def add(self, value: float) -> None:
        self.values.append(value)

    def deviation_from_line(self) -> float:
        """Standard deviation about the straight line of least squares: swings count, a slow drift does not."""
        count = len(self.values)
        if count < 3:
            return 0.0
        middle, mean = (count - 1) / 2, sum(self.values) / count
        spread = sum((place - middle) ** 2 for place in range(count))
        slope = sum((place - middle) * (value - mean) for place, value in enumerate(self.values)) / spread
        rest = [value - mean - slope * (place - middle) for place, value in enumerate(self.values)]
        return (sum(one * one for one in rest) / (count - 2)) ** 0.5

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values = deque((float(value) for value in state["values"]), maxlen=self.size)
