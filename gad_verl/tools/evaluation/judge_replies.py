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
"""Two scores out of a judge's reply. What cannot be read without a guess is not read.

The judge is asked for a first line with two numbers. Real judges also solve the task first and give the scores at the
end, name the assistants, write 9/10 or put brackets around. Every such place of a reply is collected; the scores count
only if all places agree, one of them is where scores are expected, and they lie on the scale.
"""

import re
from collections.abc import Iterator

from gad_verl.tools.data.cleaning import strip_thinking

# The judge is asked for 1 to 10. Real ones give an empty answer a 0: to drop those would flatter a broken student.
LOWEST, HIGHEST = 0.0, 10.0

Scores = tuple[float, float]

_NUMBER = r"(\d{1,3}(?:\.\d{1,2})?)"
# A score may name its scale, and no other one: 4/5 is neither a score of 4 nor the scores 4 and 5.
_SCORE = rf"(?<![\w.,/+\-]){_NUMBER}(?:\s*/\s*10(?:\.0)?|\s+out\s+of\s+10)?(?:\s*points?)?(?![\w%]|[.,/\-]\d|\s*/)"
_BETWEEN = r"(?:\s*[,;|&]\s*|\s+and\s+|\s+vs\.?\s+|\s+)"
_PAIR = rf"{_SCORE}{_BETWEEN}{_SCORE}"
_ABOUT_SCORES = r"\b(?:scores?|ratings?|rated|verdict|overall|final)\b"

_PAIR_LINE = re.compile(rf"{_PAIR}\s*[.;]?", re.IGNORECASE)
_TITLED_PAIR_LINE = re.compile(rf"[^\d:=\n]*{_ABOUT_SCORES}[^\d:=\n]*[:=]\s*{_PAIR}\s*[.;]?", re.IGNORECASE)
_PAIR_IN_BRACKETS = re.compile(
    rf"(?:\btuple\b|{_ABOUT_SCORES})[^.\n()\[\]\d]{{0,80}}[(\[]\s*{_SCORE}\s*,\s*{_SCORE}\s*[)\]](?!\s*[:=])",
    re.IGNORECASE,
)
_KIND = r"(?:assistant|answer|response|model)s?"
_OF = r"(?:(?:scores?|ratings?|of|for|the|then)\s+)*"
_SECOND = rf"(?:\b{_KIND}[\s_#]*(?:2|b)|\b2|\bb|\b(?:second|latter)(?:\s+{_KIND})?)\b(?:'s)?"
_FIRST = rf"(?:{_KIND}[\s_#]*(?:1|a)|1|a(?!\s+[a-z])|(?:first|former)(?:\s+{_KIND})?)\b"
_SECOND_THEN_FIRST = rf"{_SECOND}\s*(?:[,;:/|&>]|\b(?:and|then|before|vs\.?)\s)\s*{_OF}{_FIRST}"
# A title that names the second assistant before the first one, or says that the order is not the usual one.
_OTHER_ORDER = re.compile(rf"{_SECOND_THEN_FIRST}|\b(?:revers|swapp|opposite|invers|inverted)\w*", re.IGNORECASE)
_NAMES_ALONE = re.compile(rf"[\W_]*{_SECOND_THEN_FIRST}[\W_]*", re.IGNORECASE)

_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_DECORATION = re.compile(r"\\boxed\b|[*_`#>\"'(){}\[\]\ufeff]+")
# What is said of one criterion is no score of the whole answer.
_CRITERION = re.compile(
    r"^[^A-Za-z\n]*(?:helpfulness|relevance|accuracy|correctness|(?:level\s+of\s+)?details?|depth)\b[^\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
# A title of scores is short; looking for one in a long line takes its length squared.
_LONGEST_TITLE = 400
_NAMES = (
    r"(?:assistant|answer|response|model)[\s_#]*(?:1|a)\b",
    r"(?:assistant|answer|response|model)[\s_#]*(?:2|b)\b",
)


def _of_one(name: str) -> re.Pattern[str]:
    """Patterns that give one assistant its score; the number is the only group that matches."""
    # "Assistant 1: 9", and nothing after it on the line that would make the number part of a sentence or a list.
    someone = r"(?:assistant|answer|response|model)\b"
    ending = rf"(?=\s*(?:$|\n|[,;(]|and\b|\.\s*(?:$|\n|{someone})|[-–—]\s|{someone}))"
    then = r"[ \t]*(?:[:=]|[-–—](?=\s))[ \t]*"
    titled = rf"{name}(?:'s)?(?:\s+(?:overall|total|final))?(?:\s+(?:score|rating))?{then}{_SCORE}{ending}"
    # "give Assistant 1 a score of 10", "Assistant 1 receives 9/10"
    told = rf"{name}[^.\n\d]{{0,40}}?\b(?:score|rating)\b[^.\n\d]{{0,15}}?(?:\bof|\bis|\bas)\s+{_SCORE}"
    given = rf"{name}\s+(?:gets|receives|earns|deserves|scores)\s+(?:an?\s+)?{_SCORE}"
    # "a score of 9 to Assistant 1"
    turned = rf"\b(?:score|rating)\s+of\s+{_SCORE}\s+(?:to|for)\s+{name}"
    return re.compile("|".join((titled, told, given, turned)), re.IGNORECASE | re.MULTILINE)


_EACH = tuple(_of_one(name) for name in _NAMES)


def _places(text: str) -> Iterator[tuple[Scores, bool]]:
    """Two numbers that may be the scores, and whether it is a place of scores: elsewhere they only can contradict."""
    text = _CRITERION.sub("", text)
    # A row of a table has bars at its ends.
    lines = [line for line in (_DECORATION.sub(" ", line).strip(" \t|") for line in text.splitlines()) if line]
    for number, line in enumerate(lines):
        if match := _PAIR_LINE.fullmatch(line):
            expected = number in (0, len(lines) - 1) or bool(re.search(_ABOUT_SCORES, lines[number - 1], re.IGNORECASE))
            yield from _pair(match, _titles(lines, number), expected)
        elif len(line) <= _LONGEST_TITLE and (match := _TITLED_PAIR_LINE.fullmatch(line)):
            yield from _pair(match, line[: match.start(1)], True)
    for match in _PAIR_IN_BRACKETS.finditer(text):
        yield from _pair(match, text[text.rfind("\n", 0, match.start()) + 1 : match.start(1)], True)
    undecorated = re.sub(r"[*_`#>\"{}\[\]]+", "", text)
    first, second = (
        [next(float(group) for group in match.groups() if group) for match in pattern.finditer(undecorated)]
        for pattern in _EACH
    )
    if first and second:
        # Every combination: an assistant with two different scores is a contradiction.
        yield from {((one, other), True) for one in first for other in second}


def _pair(match: "re.Match[str]", title: str, expected: bool) -> Iterator[tuple[Scores, bool]]:
    """Two numbers under a title. Where it names another order they are read in both: only equal scores survive that."""
    scores = float(match[1]), float(match[2])
    yield scores, expected
    if _OTHER_ORDER.search(title[-_LONGEST_TITLE:]):
        yield scores[::-1], expected


def _titles(lines: list[str], number: int) -> str:
    """What may say whose the two numbers of a line are: a title before it, past the rule of a table, names behind."""
    before = next((line for line in reversed(lines[:number]) if re.search(r"\w", line)), "")
    behind = lines[number + 1] if number + 1 < len(lines) else ""
    is_title = re.search(_ABOUT_SCORES, before, re.IGNORECASE) or _NAMES_ALONE.fullmatch(before)
    return (before if is_title else "") + "\n" + (behind if _NAMES_ALONE.fullmatch(behind) else "")


def parse_scores(reply: str) -> Scores | None:
    """The scores of the first and of the second assistant, each from 0 to 10.

    Args:
        reply: What the judge wrote. Thoughts in ``<think>`` tags are not read, nor those before a lone ``</think>``.

    Returns:
        None if there are no two scores, if they are off the scale, or if two places of the reply contradict each other.
    """
    found = list(_places(_THOUGHTS.sub(" ", strip_thinking(reply))))
    if len({scores for scores, _ in found}) != 1 or not any(expected for _, expected in found):
        return None
    scores = found[0][0]
    return scores if all(LOWEST <= score <= HIGHEST for score in scores) else None
