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
"""Answers that are a number: which one an answer ends with, and whether it is the right one."""

import re
from fractions import Fraction

from gad_verl.errors import GadDataError

# A fraction in TeX, then numbers with or without groups of thousands, decimals, exponents, and a plain fraction.
_TEX = re.compile(r"(-?)\\d?t?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(-?\d+)\s*\}")
_NUMBER = re.compile(
    r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:(?<=\d)\.\d+|\.\d+|(?<=\d))(?:[eE][-+]?\d{1,3})?"
    r"(?:\s*/\s*\d+(?:\.\d+)?)?(?![\w])"
)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\}|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_MARKED = re.compile(r"####\s*([^\n]+)")


def numbers(text: str) -> list[Fraction]:
    """All numbers of a text, in its order."""
    text = _TEX.sub(lambda found: f" {found[1]}{found[2]}/{found[3]} ", text).replace("−", "-")
    result = []
    for found in _NUMBER.finditer(text):
        top, _, bottom = found.group().replace(",", "").replace(" ", "").partition("/")
        try:
            result.append(Fraction(top) / (Fraction(bottom) if bottom else 1))
        except (ValueError, ZeroDivisionError):
            continue
    return result


def final_number(text: str) -> Fraction | None:
    """The number that an answer settles on: in the last ``\\boxed{}``, else behind the last ``####``, else the last
    one; None where there is none."""
    for pattern in (_BOXED, _MARKED):
        marked = pattern.findall(text)
        if marked:
            found = numbers(marked[-1])
            return found[-1] if found else None
    found = numbers(text)
    return found[-1] if found else None


def is_number(text: str, value: object, tolerance: float = 0.0) -> bool:
    """Whether an answer settles on a number.

    Args:
        text: The answer.
        value: The right number, or a text with it.
        tolerance: Largest distance, relative to the right number where that is above 1.

    Raises:
        GadDataError: There is no right number, or the tolerance is negative.
    """
    right = final_number(str(value))
    if right is None or tolerance < 0:
        raise GadDataError(f"a check of numbers needs a number and a tolerance from 0; got {value!r} and {tolerance!r}")
    found = final_number(text)
    return found is not None and abs(found - right) <= Fraction(tolerance) * max(1, abs(right))
