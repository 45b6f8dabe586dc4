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
"""Several teacher texts of a prompt: which of them take part in a step, and with which weights.

Every choice is a function of the row, the step and the seed, so a resumed run makes the same ones.
"""

import bisect
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gad_verl.errors import GadConfigError, GadDataError

TEACHER_MODES = ("cycle", "all", "weighted")

# Piecewise linear: points (step, weight) by rising step; constant before the first and after the last.
Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class WeightedText:
    """A teacher text that takes part.

    Args:
        text: The text.
        weight: Its share of the row's pairs; the shares of a row sum to 1.
        teacher: Who wrote it, where the data say so.
        finished: Whether its author ended it; False for a text that was cut when it was written.
    """

    text: str
    weight: float
    teacher: str | None = None
    finished: bool = True


def parse_schedule(schedule: Mapping[str, Any] | None, key: str = "gad.teachers.schedule") -> dict[str, Points]:
    """Weights of the teachers by step.

    Args:
        schedule: ``{teacher: weight}`` or ``{teacher: [[step, weight], ...]}``; None or empty: no schedule.
        key: What the user calls it, for errors.

    Raises:
        GadConfigError: If a weight is negative or no number, steps do not rise, or all weights are 0.
    """
    parsed: dict[str, Points] = {}
    for teacher, value in (schedule or {}).items():
        points = [[0, value]] if isinstance(value, int | float) and not isinstance(value, bool) else value
        where = f"{key}[{teacher!r}]"
        if not isinstance(points, list | tuple) or not points:
            raise GadConfigError(f"{where}: expected a weight or a list of [step, weight]; got {value!r}")
        for point in points:
            if not isinstance(point, list | tuple) or len(point) != 2:
                raise GadConfigError(f"{where}: expected [step, weight]; got {point!r}")
            step, weight = point
            if isinstance(step, bool) or not isinstance(step, int) or step < 0:
                raise GadConfigError(f"{where}: a step is a whole number from 0 on; got {step!r}")
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise GadConfigError(f"{where}: a weight is a number; got {weight!r}")
            if not math.isfinite(weight) or weight < 0:
                raise GadConfigError(f"{where}: a weight must be finite and not negative; got {weight!r}")
        steps = [step for step, _ in points]
        if any(later <= earlier for earlier, later in zip(steps, steps[1:], strict=False)):
            raise GadConfigError(f"{where}: the steps must rise; got {steps}")
        parsed[str(teacher)] = tuple((int(step), float(weight)) for step, weight in points)
    if parsed and all(weight == 0 for points in parsed.values() for _, weight in points):
        raise GadConfigError(f"{key}: every weight is 0; give at least one teacher a positive one")
    return parsed


def interpolate(points: Points, step: int) -> float:
    """Weight at ``step``: linear between the points, constant outside of them."""
    after = bisect.bisect_right([at for at, _ in points], step)
    if after == 0:
        return points[0][1]
    if after == len(points):
        return points[-1][1]
    (left, low), (right, high) = points[after - 1], points[after]
    return low + (high - low) * (step - left) / (right - left)


class TeacherMix:
    """Chooses the teacher texts of a row.

    ============  ====================================================================================================
    ``cycle``     one text a visit, the next one each time; no weights
    ``all``       all texts at once: each is paired with each response of the student, with its weight
    ``weighted``  one text a step, drawn with the weights as probabilities
    ============  ====================================================================================================

    Without a schedule all texts of a row weigh the same. With one, the weights of the teachers that a row has are
    divided by their sum; a teacher with several texts in the row shares its weight among them. A teacher that is not in
    the schedule has the weight 0.

    Raises:
        GadConfigError: If the mode is unknown or the schedule cannot work.
    """

    def __init__(self, mode: str = "cycle", schedule: Mapping[str, Any] | None = None, seed: int = 1) -> None:
        if mode not in TEACHER_MODES:
            raise GadConfigError(f"gad.teachers.mode must be one of {', '.join(TEACHER_MODES)}; got {mode!r}")
        self.mode = mode
        self.seed = seed
        self.schedule = parse_schedule(schedule)
        if self.schedule and mode == "cycle":
            raise GadConfigError(
                "gad.teachers.schedule has no effect with gad.teachers.mode=cycle: set the mode to all or weighted"
            )

    @property
    def needs_names(self) -> bool:
        """Whether each text must say who wrote it."""
        return bool(self.schedule)

    def teacher_weights(self, step: int) -> dict[str, float]:
        """Weights of all teachers of the schedule at ``step``, divided by their sum (all 0 where that is 0)."""
        weights = {teacher: interpolate(points, step) for teacher, points in sorted(self.schedule.items())}
        total = sum(weights.values())
        return {teacher: weight / total if total > 0 else 0.0 for teacher, weight in weights.items()}

    def text_weights(self, teachers: Sequence[str | None], step: int, where: str = "a row") -> list[float]:
        """Weights of the texts of a row, which sum to 1.

        Args:
            teachers: Who wrote each text; not read without a schedule.
            step: Counts from 1.
            where: The row, for the error.

        Raises:
            GadDataError: If every weight is 0.
        """
        if not self.schedule:
            return [1.0 / len(teachers)] * len(teachers)
        shares = [
            interpolate(self.schedule[teacher], step) / teachers.count(teacher) if teacher in self.schedule else 0.0
            for teacher in teachers
        ]
        total = math.fsum(shares)
        if total <= 0:
            raise GadDataError(self._no_weight(where, teachers, step))
        return [share / total for share in shares]

    def choose(
        self,
        texts: Sequence[str],
        teachers: Sequence[str | None] | None,
        index: int,
        step: int,
        visit: int,
        finished: Sequence[bool] | None = None,
    ) -> list[WeightedText]:
        """The texts that take part, in the order of the row, without those of weight 0; the weights sum to 1.

        Args:
            texts: All teacher texts of the row, at least one.
            teachers: Who wrote each; None where the data do not say.
            index: Number of the row.
            step: Counts from 1.
            visit: How often the data were gone through; ``cycle`` takes the next text each time.
            finished: Whether each text was ended by its author; None means all of them.

        Raises:
            GadDataError: If every weight is 0.
        """
        names: Sequence[str | None] = [None] * len(texts) if teachers is None else teachers
        ended: Sequence[bool] = [True] * len(texts) if finished is None else finished
        if self.mode == "cycle":
            position = (index + visit) % len(texts)
            return [WeightedText(texts[position], 1.0, names[position], ended[position])]
        weights = self.text_weights(names, step, f"row {index} of the training data")
        if self.mode == "weighted":
            position = self._drawn(weights, index, step)
            return [WeightedText(texts[position], 1.0, names[position], ended[position])]
        return [
            WeightedText(text, weight, name, end)
            for text, weight, name, end in zip(texts, weights, names, ended, strict=True)
            if weight > 0
        ]

    def choose_one(self, chosen: Sequence[WeightedText], index: int, step: int) -> WeightedText:
        """One of the texts of :meth:`choose`, for the supervised stages: of several one drawn with the weights."""
        if len(chosen) == 1:
            return chosen[0]
        one = chosen[self._drawn([choice.weight for choice in chosen], index, step)]
        return replace(one, weight=1.0)

    def _drawn(self, weights: Sequence[float], index: int, step: int) -> int:
        digest = hashlib.blake2b(f"{self.seed}/{index}/{step}".encode(), digest_size=8).digest()
        # 53 bits: exact in a float, so always below 1.
        level = (int.from_bytes(digest, "big") >> 11) / 2**53
        total = 0.0
        for position, weight in enumerate(weights):
            total += weight
            if level < total:
                return position
        # Rounding may leave the sum a little below 1.
        return max(position for position, weight in enumerate(weights) if weight > 0)

    # ------------------------------ checks before a run ------------------------------

    def _no_weight(self, where: str, teachers: Sequence[str | None], step: int) -> str:
        names = ", ".join(sorted({repr(teacher) for teacher in teachers}))
        return (
            f"{where}: all its teacher texts weigh 0 at step {step} (teachers of the row: {names}). Give one of them a "
            "weight in gad.teachers.schedule, or remove the row"
        )

    def check_rows(self, rows: Mapping[tuple[str | None, ...], str], first_step: int, last_step: int) -> None:
        """Check that every row has a text of positive weight at every step.

        Args:
            rows: Where each combination of teachers occurs first (file and row), by the combination.
            first_step, last_step: Steps of the run.

        Raises:
            GadConfigError: If the schedule names a teacher that no row has.
            GadDataError: Names the row and the step.
        """
        if not self.schedule:
            return
        known = {teacher for teachers in rows for teacher in teachers if teacher is not None}
        for teacher in self.schedule:
            if teacher not in known:
                raise GadConfigError(
                    f"gad.teachers.schedule names the teacher {teacher!r}, whom no row of the training data has; they "
                    f"have {', '.join(map(repr, sorted(known))) or 'none'}"
                )
        for teachers, where in rows.items():
            # Weights are not negative and linear between points: a sum is 0 at a point or along whole pieces.
            steps = {first_step, last_step}
            steps |= {at for teacher in teachers if teacher in self.schedule for at, _ in self.schedule[teacher]}
            for step in sorted(step for step in steps if first_step <= step <= last_step):
                self.text_weights(teachers, step, where)

    # ------------------------------ what is recorded ------------------------------

    def turning_points(self) -> list[int]:
        """Steps at which a weight begins or stops to change."""
        return sorted({max(1, step) for points in self.schedule.values() if len(points) > 1 for step, _ in points})

    def metrics(self, choices: Sequence[Sequence[WeightedText]]) -> dict[str, float]:
        """``gad/teacher_texts`` (texts per prompt) and ``gad/teacher_share_<i>`` (share of the weight, i by name)."""
        if not choices:
            return {}
        metrics = {"gad/teacher_texts": sum(map(len, choices)) / len(choices)}
        for number, teacher in enumerate(sorted(self.schedule)):
            shares = [choice.weight for chosen in choices for choice in chosen if choice.teacher == teacher]
            metrics[f"gad/teacher_share_{number}"] = math.fsum(shares) / len(choices)
        return metrics
