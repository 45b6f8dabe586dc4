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
"""Replies of judges, written for these tests after the shapes that real ones have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.tools.evaluation.judge_replies import parse_scores

EASY = [
    ("9 8\nThe first answer is fuller.", (9, 8)),
    ("  9 8  ", (9, 8)),
    ("9, 8", (9, 8)),
    ("9.5 8\nBoth are fine.", (9.5, 8)),
    ("**7 9**\n\nAssistant 2 gives an example.", (7, 9)),
    ("(10, 4)", (10, 4)),
    ("[[6]] [[5]]", (6, 5)),
    ("9/10 and 8/10", (9, 8)),
    ("9/10, 8/10.", (9, 8)),
    ("9 out of 10 and 8 out of 10", (9, 8)),
    ("Scores: 3 | 4", (3, 4)),
    ("Overall scores: 9 8\nExplanation follows.", (9, 8)),
    ("0 9\nThe first assistant said nothing.", (0, 9)),
    ("\r\n8 9\r\nGood.", (8, 9)),
    ("\ufeff8 9", (8, 9)),
    ("\\boxed{8 9}", (8, 9)),
]

HARD = [
    ("Both answers are right.\n\nAssistant 1: 9\nAssistant 2: 8", (9, 8)),
    ("Let me think.\n\n**Assistant 1**: 9/10\n**Assistant 2**: 8/10\n\nThe first is longer.", (9, 8)),
    ("Assistant 1: 7 (right, but short)\nAssistant 2: 3 (wrong)", (7, 3)),
    ("Assistant 1: 9, Assistant 2: 8", (9, 8)),
    ("Assistant A: 9\nAssistant B: 8", (9, 8)),
    ("Assistant 1's score: 9\nAssistant 2's score: 8", (9, 8)),
    ('{"assistant_1": 9, "assistant_2": 8}', (9, 8)),
    ("I would give Assistant 1 a score of 10 and Assistant 2 a score of 4.", (10, 4)),
    ("So Assistant 1 receives 6 and Assistant 2 receives 7.5 points.", (6, 7.5)),
    ("I give a score of 6 to Assistant 1 and a score of 9 to Assistant 2.", (6, 9)),
    ("The point (2, 4) is right.\n\nThe tuple with the scores is (1, 3). Assistant 2 is better.", (1, 3)),
    ("Solving it: x = 10.\n\nFinal verdict: 8 2", (8, 2)),
    ("8 2\nTo repeat: Assistant 1: 8, Assistant 2: 2", (8, 2)),
    ("<think>Perhaps 3 4\n5 6\n</think>\n9 8\nGood.", (9, 8)),
    ("Assistant 1:\n1. Reads the task\n2. Solves it\n\nAssistant 2:\nGuesses.\n\nScores:\n9 4", (9, 4)),
    ("| Assistant 1 | Assistant 2 |\n|---|---|\n| 8 | 9 |", (8, 9)),
    ("Assistant 1 — 8\nAssistant 2 — 9", (8, 9)),
    ("9 7\nHelpfulness: Assistant 1: 8, Assistant 2: 7\n**Accuracy**: Assistant 1: 10, Assistant 2: 7", (9, 7)),
]

NOT_TO_BE_READ = [
    "",
    "I'm sorry, but I cannot rate these answers.",
    "Both assistants did well.",
    "9",
    "9 8 7",
    "Assistant 1: 9",
    "4/5 and 3/5",
    "95 80",
    "11 8",
    "-1 8",
    "9-8",
    "9/8",
    "In 2024 there were 9 planets and 8 remained.",
    "Assistant 1 made 3 mistakes and Assistant 2 made 4.",
    "Assistant 1: 2 steps are wrong\nAssistant 2: 3 steps are wrong",
    "90% 80%",
    "The distance from (2, 4) to (10, 4) is 8.",
    "9 8\nOn reflection:\n8 9",
    "9 8\n\nAssistant 1: 8\nAssistant 2: 9",
    "Assistant 1: 9\nAssistant 1: 7\nAssistant 2: 8",
    "<think>9 8",
    "Helpfulness: 9 8\nRelevance: 8 7",
    "3, 4, 5, 6",
    "1.\n2.\n3.",
    "Sorting the list gives\n2 4\nBoth assistants found that.",
    "9 8\nAssistant 2 wrote\n2 4\nwhich is right.",
]

# What follows gives the second assistant's score first.
REVERSED = [
    "Scores (Assistant B, Assistant A): {} {}",
    "Scores (Assistant 2, Assistant 1): {} {}",
    "Scores (Assistant 2, Assistant 1):\n{} {}",
    "**Scores (Assistant B / Assistant A)**\n\n{} {}",
    "scores (second, first): ({}, {})",
    "Scores, second then first: {}, {}",
    "Scores (B, A): {} {}",
    "Scores (2, 1): ({}, {})",
    "Overall scores in reverse order: {} {}",
    "The scores, in reversed order:\n{} {}",
    "Ratings of the second answer and the first answer: {} {}",
    "The tuple of the scores of Assistant B and of Assistant A is ({}, {}).",
    "| Assistant 2 | Assistant 1 |\n|---|---|\n| {} | {} |",
    "Final scores (order: latter, former): {} | {}",
    "Assistant B, Assistant A\n{} {}",
    "{} {}\n(Assistant 2, Assistant 1)",
    "Scores (Assistant B: Assistant A) = {} {}",
    "Note: the scores are in reverse order.\n{} {}",
]


@given(st.sampled_from(REVERSED), st.integers(1, 10), st.integers(1, 10), st.booleans())
def test_an_order_that_is_named_is_not_passed_over(form: str, second: int, first: int, explained: bool) -> None:
    reply = form.format(second, first) + "\nBoth are good." * explained
    assert parse_scores(reply) in (None, (first, second))


@pytest.mark.parametrize(
    "reply",
    [
        "Scores (Assistant 1, Assistant 2):\n9 7",
        "Scores (Assistant A, Assistant B): 9 7",
        "scores (first, second): (9, 7)",
        "9 7\nAssistant 2, unlike Assistant 1, sorts in reverse order.",
        "9 7\nThe second and the first answer are both right.",
        "Assistant 2 sorts in reverse order.\n\nFinal scores: 9 7",
        "Assistant 2 is not as good as Assistant 1.\n9 7",
    ],
)
def test_the_usual_order_and_words_about_the_answers_do_not_matter(reply: str) -> None:
    assert parse_scores(reply) == (9, 7)


@pytest.mark.parametrize("reply", ["Scores (1, 2): (9, 7)", "Scores (1, 2) = 9, 7", "Scores [1, 2]: 9 7"])
def test_numbers_of_the_assistants_are_no_scores(reply: str) -> None:
    assert parse_scores(reply) in (None, (9, 7))


@pytest.mark.parametrize(("reply", "scores"), EASY + HARD)
def test_scores_are_read(reply: str, scores: tuple[float, float]) -> None:
    assert parse_scores(reply) == scores


@pytest.mark.parametrize("reply", NOT_TO_BE_READ)
def test_nothing_is_guessed(reply: str) -> None:
    assert parse_scores(reply) is None


SCORE = st.sampled_from([number / 2 for number in range(2, 21)])
FORMS = ("{} {}", "{}, {}", "**{} {}**", "({}, {})", "Scores: {} {}", "Assistant 1: {}\nAssistant 2: {}", "{}/10 {}/10")
WORDS = st.lists(st.sampled_from("the first answer is longer and says more about it".split()), max_size=8)


@given(SCORE, SCORE, st.sampled_from(FORMS), WORDS, WORDS)
def test_the_form_and_the_words_around_it_do_not_matter(
    first: float, second: float, form: str, before: list[str], after: list[str]
) -> None:
    # A bare pair in the middle could be anything; after a word about scores it is not.
    heading = "Scores:" if before and after else ""
    reply = f"{' '.join(before)}\n{heading}\n{form.format(f'{first:g}', f'{second:g}')}\n{' '.join(after)}"
    assert parse_scores(reply) == (first, second)


@given(SCORE, SCORE, SCORE, SCORE, st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_two_places_count_only_if_they_agree(
    first: float, second: float, third: float, fourth: float, one: str, other: str
) -> None:
    reply = f"{one.format(f'{first:g}', f'{second:g}')}\n\n{other.format(f'{third:g}', f'{fourth:g}')}"
    expected = (first, second) if (first, second) == (third, fourth) else None
    assert parse_scores(reply) == expected


@given(st.text(max_size=300))
def test_any_text_gives_scores_on_the_scale_or_none(reply: str) -> None:
    scores = parse_scores(reply)
    assert scores is None or all(0 <= score <= 10 for score in scores)
