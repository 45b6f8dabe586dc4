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

Past pairs are added to the fresh ones, or take their place ("persistent negatives", arXiv 2609.30864): then the
discriminator learns from as many pairs as without them, and a comparison is one of equal updates.
"""

import math
import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

UNIFORM, NEWEST, RECENCY = "uniform", "newest", "recency"
REPLAY_ORDERS = (UNIFORM, NEWEST, RECENCY)

ADD, REPLACE = "add", "replace"
REPLAY_MODES = (ADD, REPLACE)


class ReplayBuffer(Generic[Item]):
    """Items of the last ``capacity_steps`` steps.

    What is drawn depends on seed, step and content only: a resumed run draws what the whole one would have drawn.

    Args:
        capacity_steps: Steps that are remembered; 0 remembers nothing.
        order: ``uniform`` over all items, ``newest`` first, or drawn by weights that fall with age (``recency``).
        seed: Of the draws.
        recency_rate: With ``recency``: an item of age a (steps since it was remembered) weighs exp(-rate a); 0 is
            ``uniform`` in distribution.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, capacity_steps: int, order: str = UNIFORM, seed: int = 0, recency_rate: float = 0.1) -> None:
        if capacity_steps < 0:
            raise ValueError(f"capacity_steps must not be negative; got {capacity_steps}")
        if order not in REPLAY_ORDERS:
            raise ValueError(f"order must be one of {', '.join(REPLAY_ORDERS)}; got {order!r}")
        if recency_rate < 0:
            raise ValueError(f"recency_rate must not be negative; got {recency_rate}")
        self._order, self._seed, self._rate = order, seed, recency_rate
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
        return [item for _, item in self.draw(count, step)]

    def draw(self, count: int, seed_step: int, step: int | None = None) -> list[tuple[int, Item]]:
        """As :meth:`sample`, with the step at which each item was remembered.

        Args:
            count: Not negative.
            seed_step: What is drawn depends on it.
            step: Of which ages are counted; None takes ``seed_step``.
        """
        items = [(of_step, item) for of_step, step_items in reversed(self._steps) for item in step_items]
        count = max(0, min(count, len(items)))
        if self._order == NEWEST:
            return items[:count]
        rng = random.Random(f"{self._seed} {seed_step}")
        if self._order == UNIFORM:
            return rng.sample(items, count)
        now = seed_step if step is None else step
        # Weighted draws without replacement: the largest log(u) / weight (Efraimidis and Spirakis), in logarithms.
        keys = [math.log(-math.log(1.0 - rng.random()) + 1e-300) + self._rate * (now - of_step) for of_step, _ in items]
        return [items[place] for place in sorted(range(len(items)), key=keys.__getitem__)[:count]]

    def state_dict(self) -> dict[str, Any]:
        """Content."""
        return {"steps": list(self._steps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Content of a buffer of any capacity; what exceeds the own capacity is left out, oldest first."""
        self._steps.clear()
        self._steps.extend((step, list(items)) for step, items in state["steps"])


def replay_count(num_fresh: int, fraction: float, mode: str = ADD) -> int:
    """How many replayed groups make up ``fraction`` of a batch.

    Args:
        num_fresh: Fresh groups that train the discriminator.
        fraction: In [0, 1).
        mode: ``add`` (they come on top of the fresh ones) or ``replace`` (they take the place of as many).

    Raises:
        ValueError: If ``fraction`` is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the fraction of replayed groups must be in [0, 1); got {fraction}")
    return round(num_fresh * fraction) if mode == REPLACE else round(num_fresh * fraction / (1 - fraction))


def replay_reading(fraction: float, mode: str) -> float:
    """Groups that the discriminator reads in an update, over the fresh ones.

    Those that are replaced are still scored: their responses need rewards.
    """
    return 1 + fraction if mode == REPLACE else 1 / (1 - fraction)


# Bounds of the ages, in steps, by which the discriminator's accuracy on past pairs is told apart.
AGE_BANDS = ((1, 1), (2, 4), (5, 16), (17, None))


def age_band(age: int) -> str:
    """Name of the band of an age of at least 1 step: ``1``, ``2_4``, ``5_16`` or ``17_up``."""
    for low, high in AGE_BANDS:
        if high is None:
            return f"{low}_up"
        if age <= high:
            return str(low) if low == high else f"{low}_{high}"
    raise AssertionError("the last band has no end")
