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
"""A figure that is known between two bounds."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Everything from ``low`` to ``high``; of an exact figure they are equal.

    Raises:
        ValueError: If ``low`` is above ``high``.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"a range needs low <= high; got {self.low} and {self.high}")

    @classmethod
    def exact(cls, value: float) -> "Range":
        """A range of one value."""
        return cls(value, value)

    @property
    def middle(self) -> float:
        """Geometric mean: as many times above ``low`` as below ``high``."""
        return (self.low * self.high) ** 0.5

    def __add__(self, other: "Range | float") -> "Range":
        other = other if isinstance(other, Range) else Range.exact(other)
        return Range(self.low + other.low, self.high + other.high)

    __radd__ = __add__

    def __mul__(self, other: "Range | float") -> "Range":
        """Of figures that are not negative."""
        other = other if isinstance(other, Range) else Range.exact(other)
        return Range(self.low * other.low, self.high * other.high)

    __rmul__ = __mul__

    def over(self, rate: "Range | float") -> "Range":
        """Divided by a rate: least where the rate is highest."""
        rate = rate if isinstance(rate, Range) else Range.exact(rate)
        return Range(self.low / rate.high, self.high / rate.low)


def total(ranges: Iterable[Range]) -> Range:
    """Sum of ranges; 0 of none."""
    return sum(ranges, Range.exact(0.0))


def hidden_behind(work: Range, other: Range) -> Range:
    """Seconds of two things that may or may not overlap: the longer one at best, both one after the other at worst."""
    return Range(max(work.low, other.low), work.high + other.high)
