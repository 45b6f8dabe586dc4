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
"""Past student responses for the discriminator: a memory of what the student used to write.

A discriminator that only sees the student of this step forgets its earlier mistakes, and the two chase each other. In
an independent replication (Qwen2.5-7B) a replay buffer raised the accuracy on fresh pairs from .815 to .864 and lowered
its standard deviation from .173 to .118.
"""

import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

UNIFORM, NEWEST = "uniform", "newest"
REPLAY_ORDERS = (UNIFORM, NEWEST)


class ReplayBuffer(Generic[Item]):
    """Items of the last ``capacity_steps`` steps.

    What is drawn depends on seed, step and content only: a resumed run draws what the whole one would have drawn.

    Args:
        capacity_steps: Steps that are remembered; 0 remembers nothing.
        order: ``uniform`` over all items, or ``newest`` first.
        seed: Of the draws.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, capacity_steps: int, order: str = UNIFORM, seed: int = 0) -> None:
        if capacity_steps < 0:
            raise ValueError(f"capacity_steps must not be negative; got {capacity_steps}")
        if order not in REPLAY_ORDERS:
            raise ValueError(f"order must be one of {', '.join(REPLAY_ORDERS)}; got {order!r}")
        self._order, self._seed = order, seed
        self._steps: deque[tuple[int, list[Item]]] = deque(maxlen=capacity_steps)

    @property
    def remembers(self) -> bool:
        """Whether it keeps anything that is added."""
        return self._steps.maxlen != 0

    def __len__(self) -> int:
        return sum(len(items) for _, items in self._steps)

    def add(self, step: int, items: Sequence[Item]) -> None:
        """Remember the items of a step; those of the oldest step go where there is no room."""
        self._steps.append((step, list(items)))

    def sample(self, count: int, step: int) -> list[Item]:
        """At most ``count`` different items; fewer where fewer are remembered."""
        items = [item for _, step_items in reversed(self._steps) for item in step_items]
        count = max(0, min(count, len(items)))
        if self._order == NEWEST:
            return items[:count]
        return random.Random(f"{self._seed} {step}").sample(items, count)

    def state_dict(self) -> dict[str, Any]:
        """Content."""
        return {"steps": list(self._steps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Content of a buffer of any capacity; what exceeds the own capacity is left out, oldest first."""
        self._steps.clear()
        self._steps.extend((step, list(items)) for step, items in state["steps"])


def replay_count(num_fresh: int, fraction: float) -> int:
    """How many replayed groups go with ``num_fresh`` fresh ones so that they make up ``fraction`` of all.

    Raises:
        ValueError: If ``fraction`` is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the fraction of replayed groups must be in [0, 1); got {fraction}")
    return round(num_fresh * fraction / (1 - fraction))
