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
"""Curriculum: which rows of the data a step may draw, by difficulty, and which it draws. Plain numpy.

Every decision is a function of the seed, the number of the step and what was learned of the rows before it. A state of
counters and per-row figures is therefore enough to go on exactly.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gad_verl.errors import GadDataError

CURRICULUM_MODES = ("none", "order", "pool")
# Each growth of the available rows by this share is a decision worth recording.
_NOTED_SHARE = 0.1


def as_difficulty(value: Any, where: str) -> float:
    """The difficulty in a column of the data.

    Raises:
        GadDataError: If it is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise GadDataError(f"{where}: the difficulty of a row must be a finite number; got {value!r:.40}")
    return float(value)


def group_margins(teacher_scores: np.ndarray, student_scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of D(teacher) - D(student) of each prompt: how far the student is behind there.

    Args:
        teacher_scores: (G,), or (G, k) with several teacher texts.
        student_scores: (G, n).
        weights: (G, n) weights of the pairs; responses of weight 0 (failed rollouts) are left out.

    Returns:
        (G,) margins; nan for a prompt without a usable pair.
    """
    teachers = np.asarray(teacher_scores, dtype=np.float64)
    students = np.asarray(student_scores, dtype=np.float64)
    teachers = teachers if teachers.ndim == 1 else teachers.mean(axis=1)
    used = (np.asarray(weights) > 0) & np.isfinite(students)
    count = used.sum(axis=1)
    total = np.where(used, students, 0.0).sum(axis=1)
    return np.where(count > 0, teachers - total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class CurriculumSettings:
    """How rows are drawn.

    Args:
        mode: ``order`` (each round goes through all rows from easy to hard) or ``pool`` (at random among the available
            rows, which grow).
        start: Share of the rows that is available at step 1, in (0, 1].
        pacing_steps: Steps over which the share rises evenly to 1; 0 means at once.
        descending: Hard rows first.
        margin_decay: Share of the old value in the moving average of a row's margin.
        seed: Of all draws.
    """

    mode: str = "pool"
    start: float = 0.2
    pacing_steps: int = 0
    descending: bool = False
    margin_decay: float = 0.7
    seed: int = 1

    def fraction(self, step: int) -> float:
        """Share of the sorted rows that ``step`` (from 1 on) may draw from."""
        if self.mode == "order" or step > self.pacing_steps:
            return 1.0
        return self.start + (1.0 - self.start) * ((step - 1) / self.pacing_steps)


@dataclass(frozen=True)
class CurriculumDraw:
    """The rows of one step and why.

    Args:
        step: Counts from 1.
        rows: Rows of the data set; no row twice.
        fraction: Share of the rows that was available.
        available: Number of rows that were available.
        difficulty: Mean difficulty of the drawn rows whose difficulty is known; nan if none is.
        place: Mean place of the drawn rows among the sorted ones, 0 (first) to 1 (last).
        seen: Share of all rows that were drawn at least once, this step included.
        known: Share of all rows whose difficulty is known.
        rounds: How often all available rows were gone through.
        growth: The share of available rows has grown by a tenth since this was last True, or is 1 for the first time.
    """

    step: int
    rows: list[int]
    fraction: float
    available: int
    difficulty: float
    place: float
    seen: float
    known: float
    rounds: int
    growth: bool

    def metrics(self) -> dict[str, float]:
        """Metrics under ``gad/curriculum_``."""
        metrics = {
            "fraction": self.fraction,
            "available": float(self.available),
            "difficulty": self.difficulty,
            "place": self.place,
            "seen": self.seen,
            "known": self.known,
            "rounds": float(self.rounds),
        }
        return {f"gad/curriculum_{name}": value for name, value in metrics.items() if not math.isnan(value)}


class Curriculum:
    """Draws the rows of each step.

    A round goes through all available rows once. Rows that become available while a round runs belong to it. Once
    everything is available, a round is an ordinary epoch, and no row is left out at its end.

    Args:
        settings: How to draw.
        difficulty: (N,) difficulty of each row; None learns it from the margins (:meth:`update`). Rows of which nothing
            is known yet count as the median of those of which something is.
        num_rows: N.
        batch_size: Rows of a step, at most N.
        row_keys: (N,) a text for each row by which it is found again when the data change; None: its number.

    Raises:
        ValueError: If sizes do not fit, or a difficulty is not a number.
    """

    def __init__(
        self,
        settings: CurriculumSettings,
        difficulty: Sequence[float] | np.ndarray | None,
        num_rows: int,
        batch_size: int,
        row_keys: Sequence[str] | None = None,
    ) -> None:
        if settings.mode not in CURRICULUM_MODES[1:]:
            raise ValueError(f"mode must be one of {', '.join(CURRICULUM_MODES[1:])}; got {settings.mode!r}")
        if not 1 <= batch_size <= num_rows:
            raise ValueError(f"a step of {batch_size} rows cannot be drawn from {num_rows}")
        self.settings = settings
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.learns = difficulty is None
        self._difficulty = np.full(num_rows, np.nan) if difficulty is None else np.array(difficulty, dtype=np.float64)
        if self._difficulty.shape != (num_rows,):
            raise ValueError(f"{self._difficulty.shape} difficulties for {num_rows} rows")
        if not self.learns and not np.isfinite(self._difficulty).all():
            raise ValueError(f"row {int(np.argmin(np.isfinite(self._difficulty)))} has no finite difficulty")
        self._keys = [str(row) for row in range(num_rows)] if row_keys is None else list(row_keys)
        if len(self._keys) != num_rows:
            raise ValueError(f"{len(self._keys)} keys for {num_rows} rows")
        # Rows of equal difficulty in an order that is not that of the file.
        self._tie = np.random.default_rng([settings.seed, 0]).random(num_rows)
        self._sorted: np.ndarray | None = None
        self._visited = np.zeros(num_rows, dtype=bool)
        self._seen = np.zeros(num_rows, dtype=bool)
        self._noted = 0.0
        self.steps = 0
        self.rounds = 0

    def order(self) -> np.ndarray:
        """All rows from the first to become available to the last."""
        if self._sorted is None:
            values = self._difficulty
            unknown = np.isnan(values)
            if unknown.any():
                values = np.where(unknown, 0.0 if unknown.all() else np.median(values[~unknown]), values)
            self._sorted = np.lexsort((self._tie, -values if self.settings.descending else values))
        return self._sorted

    def draw(self) -> CurriculumDraw:
        """The rows of the next step."""
        self.steps += 1
        random = np.random.default_rng([self.settings.seed, self.steps])
        fraction = self.settings.fraction(self.steps)
        order = self.order()
        available = min(self.num_rows, max(self.batch_size, math.ceil(fraction * self.num_rows)))
        rows = self._draw_round(order[:available], random)
        self._seen[rows] = True
        places = np.empty(self.num_rows)
        places[order] = np.arange(self.num_rows) / max(1, self.num_rows - 1)
        known = self._difficulty[rows]
        known = known[~np.isnan(known)]
        growth = self.settings.mode != "order" and (
            fraction >= self._noted + _NOTED_SHARE - 1e-9 or (fraction >= 1.0 > self._noted)
        )
        if growth:
            self._noted = fraction
        return CurriculumDraw(
            step=self.steps,
            rows=rows.tolist(),
            fraction=fraction,
            available=available,
            difficulty=float(known.mean()) if len(known) else math.nan,
            place=float(places[rows].mean()),
            seen=float(self._seen.mean()),
            known=float((~np.isnan(self._difficulty)).mean()),
            rounds=self.rounds,
            growth=growth,
        )

    def _draw_round(self, available: np.ndarray, random: np.random.Generator) -> np.ndarray:
        rows = self._pick(available[~self._visited[available]], self.batch_size, random)
        self._visited[rows] = True
        missing = self.batch_size - len(rows)
        if missing > 0:
            # The next round begins within this step; a row that ended the last one is not taken again at once.
            self.rounds += 1
            self._visited[:] = False
            others = available[~np.isin(available, rows)]
            more = self._pick(others, missing, random)
            self._visited[more] = True
            rows = np.concatenate([rows, more])
        return rows

    def _pick(self, candidates: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
        if self.settings.mode == "order":
            return candidates[:count]
        return candidates[np.argsort(random.random(len(candidates)), kind="stable")[:count]]

    def find(self, row: int, key: str) -> int | None:
        """Where the row with this key is now; None if it is there no more.

        Args:
            row: Where it was; of equal prompts, whose keys have numbers, this is the one.
            key: Of the row, or of its prompt.
        """
        if row < self.num_rows and self._keys[row].partition("/")[0] == key:
            return row
        return next((place for place, other in enumerate(self._keys) if other == key), None)

    def update(self, rows: Sequence[int], margins: Sequence[float] | np.ndarray) -> None:
        """Learn from a step: the margin of each of its rows. Values that are not finite are left out."""
        if not self.learns:
            return
        decay = self.settings.margin_decay
        for row, margin in zip(rows, margins, strict=True):
            if math.isfinite(margin):
                old = self._difficulty[row]
                self._difficulty[row] = margin if math.isnan(old) else decay * old + (1.0 - decay) * margin
        self._sorted = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next draws depend on, and the keys of the rows."""
        return {
            "steps": self.steps,
            "rounds": self.rounds,
            "noted": self._noted,
            "visited": self._visited.copy(),
            "seen": self._seen.copy(),
            "difficulty": self._difficulty.copy() if self.learns else None,
            "keys": list(self._keys),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Go on from ``state``.

        Returns:
            Whether the rows are the same. If they are not, what was learned is kept for the rows that are found again,
            and a new round begins.
        """
        self.steps, self.rounds, self._noted = int(state["steps"]), int(state["rounds"]), float(state["noted"])
        same = list(state["keys"]) == self._keys
        positions = np.arange(self.num_rows)
        if not same:
            old = {key: position for position, key in enumerate(state["keys"])}
            positions = np.array([old.get(key, -1) for key in self._keys])
        found = positions >= 0
        self._visited = np.array(state["visited"], dtype=bool) if same else np.zeros(self.num_rows, dtype=bool)
        self._seen = np.zeros(self.num_rows, dtype=bool)
        self._seen[found] = np.asarray(state["seen"])[positions[found]]
        if self.learns:
            self._difficulty = np.full(self.num_rows, np.nan)
            if state["difficulty"] is not None:
                self._difficulty[found] = np.asarray(state["difficulty"])[positions[found]]
        self._sorted = None
        return same
