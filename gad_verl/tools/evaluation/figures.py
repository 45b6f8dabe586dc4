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
"""All figures of a checkpoint that need no judge: per prompt, and over the prompts with intervals."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gad_verl.core import intervals
from gad_verl.core.intervals import Estimate
from gad_verl.data.overlap import ngram_f1, rouge_l
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.tools.evaluation import two_sample
from gad_verl.tools.evaluation.checks import passed_share
from gad_verl.tools.evaluation.diversity import distinct, self_repetition
from gad_verl.tools.evaluation.responses import Response
from gad_verl.tools.evaluation.rows import Row

NGRAMS = range(1, 7)
DISTINCT = (1, 2)
# Figures between 0 and 1: their intervals are, too.
SHARES = ("finished", "checks", "all_checks", "rouge_l", "self_repetition", *(f"ngram_f1_{n}" for n in NGRAMS))
# Those of them that an answer has or has not.
EVENTS = ("finished", "all_checks")
# Figures of the two-sample tests: their intervals are widened (gad_verl.tools.evaluation.two_sample).
TWO_SAMPLE = ("two_sample_words", "two_sample_characters", "two_sample_features")

Featurize = Callable[[Sequence[str]], np.ndarray]


@dataclass
class Figures:
    """Figures of one checkpoint.

    Args:
        per_prompt: Name to one number per prompt, means over its samples; None where it is not defined.
        summary: Name to figure with interval.
        plain: Figures without interval.
        about: Name to what decided a figure beside the texts, such as the splits of a two-sample test.
    """

    per_prompt: dict[str, list[float | None]]
    summary: dict[str, Estimate] = field(default_factory=dict)
    plain: dict[str, float | None] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)


def summarize_column(name: str, values: Sequence[float | None]) -> Estimate | None:
    """Mean over the prompts in which a figure is defined, with its interval; None if there is none."""
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    if name in TWO_SAMPLE:
        return two_sample.accuracy(np.asarray(defined))
    return intervals.bounded_mean(defined) if name in SHARES else intervals.mean(defined)


def difference(name: str, first: np.ndarray, second: np.ndarray) -> Estimate:
    """Second minus first over the same prompts, with its interval.

    Args:
        name: Of the figure.
        first, second: One number per prompt.
    """
    estimate = intervals.difference(first, second, unit=1.0 if name in EVENTS else 0.0)
    # No difference of two shares exceeds 1.
    limit = 1.0 if name in (*SHARES, *TWO_SAMPLE) else np.inf
    return estimate.widened(two_sample.WIDENING if name in TWO_SAMPLE else 1.0, -limit, limit)


def length_ratio_difference(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Length ratio of the second minus that of the first, with a paired interval.

    Args:
        first, second: Tokens of the student and of the teacher, shape (2, prompts).
    """
    ratios = [float(mine.mean() / teacher.mean()) for mine, teacher in (first, second)]
    one, other = (
        (mine - ratio * teacher) / teacher.mean()
        for (mine, teacher), ratio in zip((first, second), ratios, strict=True)
    )
    return intervals.student(ratios[1] - ratios[0], other - one)


def seen_teacher_text(row: Row, builder: SequenceBuilder) -> str:
    """The teacher's text as far as the limit of tokens lets a student answer: what a fair comparison sees."""
    encoded = builder.response(row.teacher, row.teacher_finished)
    return builder.decode(encoded.token_ids) if encoded.cut else row.teacher


def measure(
    rows: Sequence[Row],
    responses: Sequence[Response],
    builder: SequenceBuilder,
    features: Featurize | None = None,
    splits: int = two_sample.SPLITS,
) -> Figures:
    """Compare the responses with the teacher's texts.

    Args:
        rows: The prompts.
        responses: Sorted by prompt and sample; each prompt has at least one.
        builder: Counts tokens on both sides, with the end-of-text token, up to the response limit.
        features: Turns texts into features for the third two-sample test; None leaves it out.
        splits: Random halves of the two-sample tests.
    """
    by_prompt: dict[int, list[Response]] = defaultdict(list)
    for response in responses:
        by_prompt[response.prompt].append(response)
    columns: dict[str, list[float | None]] = defaultdict(list)
    has_checks = any(row.checks for row in rows)
    encoded_teachers = [builder.response(row.teacher, row.teacher_finished) for row in rows]
    for number, (row, teacher) in enumerate(zip(rows, encoded_teachers, strict=True)):
        answers = by_prompt[number]
        texts = [answer.text for answer in answers]
        columns["length"].append(
            _mean([len(builder.response(answer.text, answer.finished).token_ids) for answer in answers])
        )
        columns["teacher_length"].append(len(teacher.token_ids))
        columns["rouge_l"].append(_mean([rouge_l(row.teacher, text) for text in texts]))
        for n in NGRAMS:
            columns[f"ngram_f1_{n}"].append(_mean([ngram_f1(row.teacher, text, n) for text in texts]))
        columns["self_repetition"].append(_mean([self_repetition(text) for text in texts]))
        columns["finished"].append(_mean([float(answer.finished) for answer in answers]))
        if has_checks:
            shares = [passed_share(row.checks, text) for text in texts]
            columns["checks"].append(_mean(shares))
            columns["all_checks"].append(_mean([None if share is None else float(share == 1) for share in shares]))
    teacher_texts = [seen_teacher_text(row, builder) for row in rows]
    # The first sample speaks for the student: several would be given more weight than the one text of the teacher.
    student_texts = [by_prompt[number][0].text for number in range(len(rows))]
    prompts = [row.prompt_id for row in rows]
    if len(set(prompts)) >= two_sample.FEWEST_PROMPTS:
        for name, characters in zip(TWO_SAMPLE[:2], (False, True), strict=True):
            accuracies = two_sample.ngram_accuracies(
                teacher_texts, student_texts, splits, characters=characters, prompts=prompts
            )
            columns[name] = accuracies.tolist()
        if features is not None:
            both = features([*teacher_texts, *student_texts])
            columns[TWO_SAMPLE[2]] = two_sample.feature_accuracies(
                both[: len(rows)], both[len(rows) :], splits, prompts=prompts
            ).tolist()
    figures = Figures(dict(columns), about={name: {"splits": splits} for name in TWO_SAMPLE if name in columns})
    for name, values in columns.items():
        if (estimate := summarize_column(name, values)) is not None:
            figures.summary[name] = estimate
    figures.summary["length_ratio"] = intervals.ratio(columns["length"], columns["teacher_length"])
    for n in DISTINCT:
        figures.plain[f"distinct_{n}"] = distinct(student_texts, n)
        figures.plain[f"teacher_distinct_{n}"] = distinct(teacher_texts, n)
    figures.plain["teacher_self_repetition"] = _mean([self_repetition(text) for text in teacher_texts])
    figures.plain["teacher_cut"] = _mean([float(encoded.cut) for encoded in encoded_teachers])
    figures.plain["empty"] = _mean([float(not response.text.strip()) for response in responses])
    if hidden := [response for response in responses if response.thought_tokens is not None]:
        figures.plain["thought_tokens"] = _mean([float(response.thought_tokens or 0) for response in hidden])
        figures.plain["unclosed"] = _mean([float(response.finish_reason == "thoughts") for response in hidden])
    if rolled := [response for response in responses if response.turns is not None]:
        calls = sum(response.calls or 0 for response in rolled)
        figures.plain["turns"] = _mean([float(response.turns or 0) for response in rolled])
        figures.plain["calls"] = calls / len(rolled)
        invalid = sum(response.invalid_calls or 0 for response in rolled)
        figures.plain["invalid_calls"] = invalid / calls if calls else 0.0
    return figures


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
