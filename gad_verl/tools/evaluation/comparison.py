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
"""Checkpoints side by side, from their folders of ``gad-verl evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gad_verl.core import intervals
from gad_verl.core.intervals import Estimate
from gad_verl.errors import GadConfigError
from gad_verl.tools.evaluation import length_control, preferences
from gad_verl.tools.evaluation.comparability import notes_of
from gad_verl.tools.evaluation.figures import (
    NGRAMS,
    SHARES,
    TWO_SAMPLE,
    difference,
    length_ratio_difference,
    summarize_column,
)
from gad_verl.tools.evaluation.judging import TEACHER, parsed
from gad_verl.tools.evaluation.pairing import named, on_common_prompts, on_readable_prompts
from gad_verl.tools.evaluation.report import brackets, cell, show
from gad_verl.tools.evaluation.results import Evaluation, read_evaluation
from gad_verl.tools.evaluation.scores import KL_FIGURES, PER_TEXT
from gad_verl.tools.evaluation.selection import LENGTH_BAND, Candidate, Proposal, propose

_WIN = f"win_rate_{TEACHER}"
_CONTROLLED = f"length_controlled_{TEACHER}"
# S is the student, T the teacher; nats an answer.
_KL_TITLES = ("KL(S, T)", "KL(T, S)", "KL(S, T), per text", "KL(T, S), per text")
# Name in the results, title, digits.
COLUMNS = (
    ("length", "tokens", 1),
    ("length_ratio", "length ratio", 2),
    ("score", "judge score", 1),
    (_WIN, "win rate against the teacher", 1),
    (_CONTROLLED, "at equal length", 1),
    ("checks", "checks passed", 3),
    ("all_checks", "answers that pass all", 3),
    ("two_sample_words", "two-sample, words", 2),
    ("two_sample_characters", "characters", 2),
    ("two_sample_features", "features", 2),
    ("rouge_l", "ROUGE-L", 3),
    *((f"ngram_f1_{n}", f"{n}-gram F1", 3) for n in NGRAMS),
    ("self_repetition", "self-repetition", 3),
    ("finished", "finished", 2),
    *zip(KL_FIGURES, _KL_TITLES, (2,) * len(KL_FIGURES), strict=True),
)
# What a figure can be, where that is not any number from 0 on.
_LIMITS = {
    **dict.fromkeys((*SHARES, *TWO_SAMPLE), (0.0, 1.0)),
    **dict.fromkeys(("score", _WIN, _CONTROLLED), (0.0, 100.0)),
    **dict.fromkeys(PER_TEXT.values(), (-np.inf, np.inf)),
}
_TABLE = tuple(column for column in COLUMNS if not column[0].startswith("ngram_f1"))


@dataclass
class Comparison:
    """Figures of several checkpoints over the prompts that all of them have.

    Args:
        names: In the order given.
        prompts: Number of common prompts.
        figures: Checkpoint to figure to estimate.
        differences: Checkpoint (but the first) to figure to paired difference to the first.
        teacher: Figures of the teacher's own texts.
        notes: What makes figures less comparable.
        proposal: Of the rule.
    """

    names: list[str]
    prompts: int
    figures: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Estimate]]
    teacher: dict[str, Any]
    notes: list[str]
    proposal: Proposal
    folders: dict[str, str] = field(default_factory=dict)


def compare(folders: Sequence[str | Path], band: tuple[float, float] = LENGTH_BAND) -> Comparison:
    """Read, pair and propose.

    Args:
        folders: Of ``gad-verl evaluate``; differences are to the first.
        band: Acceptable ratio of mean lengths, lowest and highest.

    Raises:
        GadDataError: If a folder has no results, or the folders share no prompt.
        GadConfigError: If the band is none, or a folder is named twice.
    """
    if not 0 < band[0] <= band[1]:
        raise GadConfigError(
            f"--length-band {band[0]:g} {band[1]:g}: expected the lowest and the highest ratio, above 0"
        )
    evaluations = named([read_evaluation(folder) for folder in folders])
    first_alone = evaluations[0]
    evaluations, notes = on_common_prompts(evaluations)
    evaluations, more = on_readable_prompts(evaluations)
    teacher, untold = _teacher(evaluations[0], first_alone)
    notes += [*more, *untold, *notes_of(evaluations)]
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    figures = {name: figures_of(evaluation) for name, evaluation in by_name.items()}
    first = evaluations[0]
    judges = {evaluation.judge["model"] for evaluation in evaluations if evaluation.judge}
    candidates = [
        Candidate(
            name,
            figures[name]["length_ratio"].value,
            figures[name]["score"].value if "score" in figures[name] else None,
            figures[name]["two_sample_words"].value if "two_sample_words" in figures[name] else None,
        )
        for name in by_name
    ]
    comparable = len(judges) <= 1
    key = "score" if comparable and all(c.score is not None for c in candidates) else "two_sample_words"

    def difference(one: str, other: str) -> Estimate | None:
        return _differences(by_name[one], by_name[other], (key,)).get(key)

    return Comparison(
        names=list(by_name),
        prompts=len(first.prompt_ids),
        figures=figures,
        differences={e.name: _differences(first, e) for e in evaluations[1:]},
        teacher=teacher,
        notes=notes,
        proposal=propose(candidates, difference, band, comparable),
        folders={name: str(evaluation.folder) for name, evaluation in by_name.items()},
    )


def limits_of(name: str) -> tuple[float, float]:
    """The lowest and the highest number that a figure can be."""
    return _LIMITS.get(name, (0.0, np.inf))


def difference_limits_of(name: str) -> tuple[float, float]:
    """The same of a difference of two."""
    low, high = limits_of(name)
    return low - high, high - low


def figures_of(evaluation: Evaluation) -> dict[str, Estimate]:
    """Every figure of an evaluation, with its interval over the prompts."""
    figures = {}
    for name, column in evaluation.columns.items():
        if (estimate := summarize_column(name, column)) is not None:
            figures[name] = estimate
    figures["length_ratio"] = intervals.ratio(evaluation.columns["length"], evaluation.columns["teacher_length"])
    if (score := _score(evaluation.marks[parsed(evaluation.marks)])) is not None:
        figures["score"] = score
    if TEACHER in evaluation.against and (read := parsed(evaluation.against[TEACHER])).any():
        outcome = preferences.outcomes(evaluation.against[TEACHER][read])
        figures[_WIN] = preferences.win_rate(outcome)
        if TEACHER in evaluation.characters:
            characters = evaluation.characters[TEACHER][read].T
            if length_control.refusal(*characters) is None:
                figures[_CONTROLLED] = length_control.length_controlled_win_rate(outcome, *characters)
    return figures


def _score(marks: np.ndarray) -> Estimate | None:
    score = preferences.relative_score(marks)
    # Marks that are all 0 have no share, and no marks have none.
    return None if np.isnan(score.value) else score


def _differences(first: Evaluation, second: Evaluation, only: Sequence[str] | None = None) -> dict[str, Estimate]:
    """Second minus first over the prompts in which both have the figure."""
    differences = {}
    for name in first.columns:
        if name not in second.columns or name == "teacher_length" or (only and name not in only):
            continue
        pairs = [
            (one, other)
            for one, other in zip(first.columns[name], second.columns[name], strict=True)
            if one is not None and other is not None
        ]
        if pairs:
            differences[name] = difference(name, *np.array(pairs, dtype=float).T)
    if only is None:
        columns = [[one.columns[name] for name in ("length", "teacher_length")] for one in (first, second)]
        differences["length_ratio"] = length_ratio_difference(*np.array(columns, dtype=float))
    if only is None or "score" in only:
        read = parsed(first.marks) & parsed(second.marks)
        if read.any():
            score = preferences.relative_score_difference(first.marks[read], second.marks[read])
            if not np.isnan(score.value):
                differences["score"] = score
    if only is None and TEACHER in first.against and TEACHER in second.against:
        tables = first.against[TEACHER], second.against[TEACHER]
        read = parsed(tables[0]) & parsed(tables[1])
        if read.any():
            differences[_WIN] = preferences.win_rate_difference(*(preferences.outcomes(t[read]) for t in tables))
    return differences


def _teacher(compared: Evaluation, alone: Evaluation) -> tuple[dict[str, Any], list[str]]:
    """Figures of the teacher's texts over the prompts that are compared, and a note where one cannot be had.

    Args:
        compared: The first folder over these prompts.
        alone: The same over all that it has.
    """
    length = float(np.mean([value or 0 for value in compared.columns["teacher_length"]]))
    kept, every = parsed(compared.marks), parsed(alone.marks)
    if parsed(alone.teacher_marks).any():
        read = parsed(compared.teacher_marks) & (kept | ~kept.any())
        return {"length": length, "score": _score(compared.teacher_marks[read])}, []
    before = (alone.judge or {}).get("teacher_score") or {}
    if before.get("value") is None:
        return {"length": length, "score": None}, []
    # A folder of before these marks were noted has the score over all of its prompts alone.
    if len(kept) == len(every) and kept.sum() == every.sum():
        return {"length": length, "score": before}, []
    note = (
        f"The teacher's judge score is left out: {alone.name} does not tell it by prompt (the same gad-verl evaluate "
        "--judge-teacher again does)."
    )
    return {"length": length, "score": None}, [note]


def about(comparison: Comparison) -> str:
    """How many prompts are compared, and what the brackets hold."""
    if comparison.prompts > 1:
        return f"{comparison.prompts} prompts; {brackets(comparison.prompts)}."
    return f"One prompt; {brackets(1)}."


def shown_columns(comparison: Comparison) -> list[tuple[str, str, int]]:
    """Name, title and digits of the figures that a table shows."""
    return [column for column in _TABLE if any(column[0] in f for f in comparison.figures.values())]


def render(comparison: Comparison) -> str:
    """The comparison as Markdown."""
    shown = shown_columns(comparison)
    lines = [
        about(comparison),
        "",
        "| | " + " | ".join(title for _, title, _ in shown) + " |",
        "|---" * (len(shown) + 1) + "|",
        "| teacher | " + " | ".join(_teacher_cell(comparison.teacher, name) for name, _, _ in shown) + " |",
    ]
    for name in comparison.names:
        cells = [show(comparison.figures[name].get(key), digits) for key, _, digits in shown]
        lines.append(f"| {cell(name)} | " + " | ".join(cells) + " |")
    if comparison.differences:
        lines += [
            "",
            f"Paired differences to {comparison.names[0]}; * where the interval leaves 0 out:",
            "",
            "| | " + " | ".join(title for _, title, _ in shown) + " |",
            "|---" * (len(shown) + 1) + "|",
        ]
        for name, differences in comparison.differences.items():
            cells = [difference_cell(differences.get(key), digits) for key, _, digits in shown]
            lines.append(f"| {cell(name)} | " + " | ".join(cells) + " |")
    if comparison.notes:
        lines += ["", *(f"- {note}" for note in comparison.notes)]
    lines += ["", comparison.proposal.reason]
    return "\n".join(lines) + "\n"


def _teacher_cell(teacher: dict[str, Any], name: str) -> str:
    if name == "length":
        return f"{teacher['length']:.1f}"
    if name == "score":
        return show(teacher["score"])
    return {
        "length_ratio": "1",
        "rouge_l": "1",
        **dict.fromkeys(TWO_SAMPLE, "0.5"),
        **dict.fromkeys(KL_FIGURES, "0"),
    }.get(name, "")


def difference_cell(estimate: Estimate | None, digits: int) -> str:
    """A paired difference with its interval, marked where that leaves 0 out."""
    if estimate is None:
        return "-"
    if np.isnan(estimate.low):
        return f"{estimate.value:+.{digits}f}"
    mark = "" if estimate.covers(0) else " *"
    return f"{estimate.value:+.{digits}f} [{estimate.low:+.{digits}f}, {estimate.high:+.{digits}f}]{mark}"
