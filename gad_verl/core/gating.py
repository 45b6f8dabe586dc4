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
"""When the discriminator learns: every step, every k-th, several times, or only while it is not too good already."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GateOptions:
    """How often the discriminator is updated in the adversarial stage.

    Args:
        every_steps: Update at each k-th step.
        updates_per_step: Optimizer steps on the pairs of a step in which it is updated.
        accuracy_below: Update only while the moving average of the accuracy on fresh pairs is below this; 1 or more
            never holds it back.
        accuracy_memory: Weight of the past in that average, in [0, 1).
    """

    every_steps: int = 1
    updates_per_step: int = 1
    accuracy_below: float = 1.0
    accuracy_memory: float = 0.0

    def __post_init__(self) -> None:
        for name in ("every_steps", "updates_per_step"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if not self.accuracy_below > 0:
            raise ValueError(f"accuracy_below must be positive; got {self.accuracy_below}")
        if not 0 <= self.accuracy_memory < 1:
            raise ValueError(f"accuracy_memory must be in [0, 1); got {self.accuracy_memory}")


class UpdateGate:
    """Says before each step how many updates the discriminator gets in it.

    The accuracy is that of the steps before: deciding by the step's own would need its scores first, and the loss's own
    forward pass delivers them for nothing.
    """

    def __init__(self, options: GateOptions) -> None:
        self.options = options
        self._steps_seen = 0
        self._accuracy: float | None = None

    def updates(self, updates_per_step: int | None = None) -> int:
        """Updates of the next step: 0 where the discriminator is left alone.

        Args:
            updates_per_step: Replaces the option (the guardian's knob).
        """
        if self._steps_seen % self.options.every_steps:
            return 0
        limit = self.options.accuracy_below
        if limit < 1 and self._accuracy is not None and self._accuracy >= limit:
            return 0
        return self.options.updates_per_step if updates_per_step is None else updates_per_step

    def observe(self, accuracy: float | None) -> None:
        """Count a step, with its accuracy on fresh pairs (None where it had none)."""
        self._steps_seen += 1
        if accuracy is None:
            return
        memory = self.options.accuracy_memory
        self._accuracy = accuracy if self._accuracy is None else memory * self._accuracy + (1 - memory) * accuracy

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"steps_seen": self._steps_seen, "accuracy": self._accuracy}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned."""
        self._steps_seen, self._accuracy = state["steps_seen"], state["accuracy"]
