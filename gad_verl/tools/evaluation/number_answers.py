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

import math
import re
from fractions import Fraction

from gad_verl.errors import GadDataError

# TeX: a group of thousands (1{,}000 and 1,\!000), a power of ten, a fraction with or without a whole number before it.
_TEX_COMMA = re.compile(r"\{,\}|,\\!|(?<=\d)\\,(?=\d{3})")
_TEX_POWER = re.compile(
    r"(?<=\d)\s{0,4}(?:\\times|\\cdot|×)\s*10\s*\^\s*(?:\{\s*([-+]?\d{1,3})\s*\}|([-+]?\d{1,3}))(?!\d)"
)
# Digits are read from their first one alone, and few spaces: an answer may be one long run of either.
_TEX_FRACTION = re.compile(
    r"([-+]?)(?:(?<!\d)(\d+))?\s{0,4}\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(-?\d+)\s*\}|(\d))"
)
# Numbers with or without groups of thousands, decimals, exponents, and a plain fraction. What stands before one is not
# a part of a name (v2, B12, x_1), in scripts without spaces it may be a letter; a unit may follow at once (18cm, 18元).
_NUMBER = re.compile(
    r"(?<![A-Za-z\d.])(?<![A-Za-z\d]_)[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?"
    r"(?:(?<=\d)\.\d+|\.\d+|(?<=\d))(?:[eE][-+]?\d{1,3}(?!\d))?(?:\s*/\s*\d+(?:\.\d+)?)?(?!\d)"
)
_BRACES = re.compile(r"(\\boxed\s*\{)|\\.|[{}]", re.DOTALL)
# GSM8K's mark has a number and nothing else behind it; a heading of Markdown has a title.
_MARKED = re.compile(rf"####[ \t]*[*$€£¥ ]*({_NUMBER.pattern})[ \t]*[*%]*\.?[ \t]*$", re.MULTILINE)


def _fraction(found: "re.Match[str]") -> str:
    sign, whole, top, bottom = found[1], found[2] or "", found[3] or found[4], found[5] or found[6]
    if whole and not top.startswith("-") and not bottom.startswith("-"):
        try:
            top = str(int(whole) * int(bottom) + int(top))
        except ValueError:
            # More digits than Python reads or writes: no number, as any other of that length.
            return " "
        whole = ""
    return f" {whole} {sign}{top}/{bottom} "


def numbers(text: str) -> list[Fraction]:
    """All numbers of a text, in its order."""
    text = _TEX_COMMA.sub(",", text.replace("−", "-"))
    text = _TEX_POWER.sub(lambda found: f"e{found[1] or found[2]}", text)
    text = _TEX_FRACTION.sub(_fraction, text)
    result = []
    for found in _NUMBER.finditer(text):
        top, _, bottom = found.group().replace(",", "").replace(" ", "").partition("/")
        try:
            result.append(Fraction(top) / (Fraction(bottom) if bottom else 1))
        except (ValueError, ZeroDivisionError):
            continue
    return result


def boxed(text: str) -> list[str]:
    """What stands in each whole ``\\boxed{}``, in the order of their ends.

    One pass with a stack: an answer that was cut off in a box is as long as any other.
    """
    result: list[str] = []
    starts: list[int | None] = []
    for found in _BRACES.finditer(text):
        if found[1] or found[0] == "{":
            starts.append(found.end() if found[1] else None)
        elif found[0] == "}" and starts:
            start = starts.pop()
            if start is not None:
                result.append(text[start : found.start()])
    return result


def final_number(text: str) -> Fraction | None:
    """The number that an answer settles on: in the last ``\\boxed{}`` that is not empty, else behind the last ``####``
    that a number follows, else the last one; None where there is none."""
    marked = [inner for inner in boxed(text) if inner.strip()] or _MARKED.findall(text)
    found = numbers(marked[-1] if marked else text)
    return found[-1] if found else None


def is_number(text: str, value: object, tolerance: float = 0.0) -> bool:
    """Whether an answer settles on a number.

    Args:
        text: The answer.
        value: The right number, or a text with it.
        tolerance: Largest distance, relative to the right number where that is above 1.

    Raises:
        GadDataError: There is no right number, or the tolerance is no number from 0.
    """
    right = final_number(str(value))
    if right is None or not 0 <= tolerance < math.inf:
        raise GadDataError(f"a check of numbers needs a number and a tolerance from 0; got {value!r} and {tolerance!r}")
    found = final_number(text)
    return found is not None and abs(found - right) <= Fraction(tolerance) * max(1, abs(right))
