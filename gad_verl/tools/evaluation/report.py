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
"""What ``gad-verl evaluate`` leaves in its folder besides the responses.

``results.json`` holds settings and figures, ``prompts.jsonl`` every figure per prompt (what ``gad-verl compare``
pairs), ``report.md`` the same for people.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gad_verl.core.intervals import Estimate
from gad_verl.errors import GadDataError
from gad_verl.record.files import plain, to_json, write_atomically
from gad_verl.tools.evaluation.figures import NGRAMS, TWO_SAMPLE, Figures, summarize_column
from gad_verl.tools.evaluation.judging import Judgement
from gad_verl.tools.evaluation.responses import differing_settings
from gad_verl.tools.evaluation.results import (
    AGAINST,
    CHARACTERS,
    CHECKS,
    FORMAT,
    MARKS,
    PROMPTS,
    QUESTION,
    REFERENCE,
    RESULTS,
    TEACHER_MARKS,
    TEACHER_TEXT,
    Evaluation,
    estimate_of,
    read_evaluation,
)
from gad_verl.tools.evaluation.rows import Row
from gad_verl.tools.evaluation.scores import EXACT, KL_FIGURES, PER_TEXT, STUDENT, TEACHER, Divergence

logger = logging.getLogger(__name__)

REPORT = "report.md"


def write_evaluation(
    folder: Path,
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    figures: Figures,
    judgement: Judgement | None,
    divergence: Divergence | None = None,
) -> Evaluation:
    """Write the results; what an earlier run of the same folder found with a judge, features or a teacher is kept.

    Args:
        folder: Of the responses.
        rows: The prompts.
        settings: What decided the responses.
        figures: Figures without a judge.
        judgement: What the judge said in this run.
        divergence: What the open teacher gave in this run.
    """
    before = _results_before(folder)
    # Whose responses were removed is evaluated anew: what was said of the old ones holds for them alone.
    if before is not None and differing_settings(before.settings, plain(dict(settings))):
        before = None
    if divergence is not None:
        for name, column in divergence.per_prompt.items():
            figures.per_prompt[name] = column
            if (estimate := summarize_column(name, column)) is not None:
                figures.summary[name] = estimate
    if before is not None:
        _carry(before, figures, (TWO_SAMPLE[2], *(KL_FIGURES if divergence is None else ())))
    teacher = divergence.about if divergence else before.teacher if before else None
    if before is not None and before.judge is not None:
        earlier = Judgement(
            before.marks, before.against, before.characters, before.judge, before.references, before.teacher_marks
        )
        judgement = earlier if judgement is None else _with_earlier(judgement, earlier)
    none = np.full((len(rows), 4), np.nan)
    said = judgement or Judgement(none, {}, {}, {})
    scored = none if said.teacher is None else said.teacher
    lines = [
        {
            "prompt": number,
            "prompt_id": row.prompt_id,
            QUESTION: row.question,
            TEACHER_TEXT: row.teacher,
            "figures": {name: column[number] for name, column in figures.per_prompt.items()},
            MARKS: said.marks[number].tolist(),
            AGAINST: {name: table[number].tolist() for name, table in said.opponents.items()},
            CHARACTERS: {name: table[number].tolist() for name, table in said.characters.items()},
            TEACHER_MARKS: scored[number].tolist(),
            REFERENCE: said.references[number] if said.references else None,
            CHECKS: row.checks_id,
        }
        for number, row in enumerate(rows)
    ]
    results = {
        "format": FORMAT,
        "settings": dict(settings),
        "prompts": len(rows),
        "figures": {name: asdict(estimate) for name, estimate in figures.summary.items()},
        "plain": figures.plain,
        "about": figures.about,
        "judge": judgement.summary if judgement else None,
        "teacher": teacher,
    }
    # The results come last: a folder with results has everything.
    write_atomically(folder / PROMPTS, "".join(json.dumps(plain(line), ensure_ascii=False) + "\n" for line in lines))
    write_atomically(folder / RESULTS, to_json(results))
    evaluation = read_evaluation(folder)
    write_atomically(folder / REPORT, render(evaluation))
    return evaluation


def _results_before(folder: Path) -> Evaluation | None:
    """What an earlier run left, if it can be read: who is told to evaluate again must be able to."""
    if not (folder / RESULTS).is_file() or not (folder / PROMPTS).is_file():
        return None
    try:
        return read_evaluation(folder)
    except GadDataError as error:
        logger.warning(
            "%s. Its results are written anew: what a judge, --features-model or --teacher-model gave comes back with "
            "a run that names them",
            error,
        )
        return None


def _with_earlier(judgement: Judgement, earlier: Judgement) -> Judgement:
    """The judgement and what the same judge has said of other opponents and of the teacher."""
    new, old = judgement.summary, earlier.summary
    if _asked(new) != _asked(old):
        return judgement
    rates = old.get("win_rates", {})
    kept = [name for name in earlier.opponents if name not in judgement.opponents and name in rates]
    summary = new | {"win_rates": {name: rates[name] for name in kept} | new["win_rates"]}
    teacher = judgement.teacher
    # Another reference answer would make it another score.
    if "teacher_score" in old and "teacher_score" not in new and old.get("references") == new.get("references"):
        summary["teacher_score"], teacher = old["teacher_score"], earlier.teacher
    return Judgement(
        judgement.marks,
        {name: earlier.opponents[name] for name in kept} | judgement.opponents,
        {name: earlier.characters[name] for name in kept if name in earlier.characters} | judgement.characters,
        summary,
        judgement.references,
        teacher,
    )


def _asked(summary: Mapping[str, Any]) -> tuple[Any, Any]:
    """Who was asked how; how often, until a reply can be read, changes no reply."""
    settings = plain(summary.get("settings") or {})
    return summary.get("model"), {name: value for name, value in settings.items() if name != "attempts"}


def _carry(before: Evaluation, figures: Figures, names: Sequence[str]) -> None:
    """Keep figures that cost a model of their own and were not measured this time."""
    for name in names:
        if name in before.columns and name not in figures.per_prompt:
            figures.per_prompt[name] = before.columns[name]
            if name in before.about:
                figures.about[name] = before.about[name]
            if name in before.figures:
                figures.summary[name] = before.figures[name]


# ------------------------------------------------------------------------------------------------------------ Markdown

# Name of a figure to its title and digits.
TITLES = {
    "length": ("tokens per response", 1),
    "teacher_length": ("tokens per teacher text", 1),
    "length_ratio": ("length ratio student / teacher", 2),
    "finished": ("finished within the limit", 2),
    "checks": ("share of a prompt's checks passed", 3),
    "all_checks": ("answers that pass all checks of their prompt", 3),
    "rouge_l": ("ROUGE-L F1", 3),
    **{f"ngram_f1_{n}": (f"{n}-gram F1", 3) for n in NGRAMS},
    "self_repetition": ("self-repetition (4-grams)", 3),
    "two_sample_words": ("two-sample accuracy, words", 2),
    "two_sample_characters": ("two-sample accuracy, characters", 2),
    "two_sample_features": ("two-sample accuracy, features", 2),
    EXACT[STUDENT]: ("KL(student, teacher), nats an answer", 2),
    EXACT[TEACHER]: ("KL(teacher, student), nats an answer", 2),
    PER_TEXT[STUDENT]: ("KL(student, teacher), nats an answer, per-text estimate", 2),
    PER_TEXT[TEACHER]: ("KL(teacher, student), nats an answer, per-text estimate", 2),
}


def cell(text: str) -> str:
    """A text for a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|")


def show(figure: Mapping[str, Any] | Estimate | None, digits: int = 1) -> str:
    """A figure with its interval, "-" where there is none."""
    if figure is None or (not isinstance(figure, Estimate) and figure.get("value") is None):
        return "-"
    return (figure if isinstance(figure, Estimate) else estimate_of(figure)).show(digits)


def brackets(prompts: int) -> str:
    """What stands in the brackets behind the figures of so many prompts."""
    if prompts > 1:
        return "in brackets 95 % intervals over the prompts"
    return "it tells nothing of the spread, and in brackets is what a figure can be at all"


def render(evaluation: Evaluation) -> str:
    """The report of one checkpoint as Markdown."""
    settings, plain = evaluation.settings, evaluation.plain
    way = "greedy" if settings["temperature"] == 0 else f"temperature {settings['temperature']:g}"
    options = settings.get("chat_template_kwargs") or {}
    given = ", ".join(f"{name}={json.dumps(value)}" for name, value in options.items() if name != "tools")
    rendered = f", prompts rendered with {given}" if given else ""
    count = len(evaluation.prompt_ids)
    lines = [
        f"# {settings['model']}",
        "",
        f"{count} prompt{'s' if count > 1 else ''} of {settings['data']}, {settings['samples']} response(s) each, "
        f"{way}, at most {settings['max_response_length']} tokens{rendered}; {brackets(count)}.",
        "",
        "| figure | value |",
        "|---|---|",
    ]
    lines += [
        f"| {title} | {evaluation.figures[name].show(digits)} |"
        for name, (title, digits) in TITLES.items()
        if name in evaluation.figures
    ]
    for name, title in (("distinct_1", "distinct-1"), ("distinct_2", "distinct-2")):
        lines.append(f"| {title} (teacher) | {_plain(plain[name])} ({_plain(plain[f'teacher_{name}'])}) |")
    lines.append(f"| self-repetition of the teacher | {_plain(plain['teacher_self_repetition'])} |")
    lines.append(f"| teacher texts cut at the limit | {_plain(plain['teacher_cut'], 2)} |")
    lines.append(f"| empty responses | {_plain(plain['empty'], 2)} |")
    if "unclosed" in plain:
        lines.append(f"| tokens of thoughts, hidden | {_plain(plain['thought_tokens'], 1)} |")
        lines.append(f"| never came to an answer | {_plain(plain['unclosed'], 2)} |")
    if "turns" in plain:
        lines.append(f"| turns of a trajectory | {_plain(plain['turns'], 2)} |")
        lines.append(
            f"| calls of tools, invalid ones | {_plain(plain['calls'], 2)}, {_plain(plain['invalid_calls'], 3)} |"
        )
    lines += ["", "Two-sample accuracy 0.5: a classifier cannot tell student from teacher."]
    if evaluation.teacher:
        lines += ["", _render_teacher(evaluation.teacher)]
    if evaluation.judge:
        lines += _render_judge(evaluation.judge)
    return "\n".join(lines) + "\n"


def _plain(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _render_teacher(teacher: Mapping[str, Any]) -> str:
    way = (
        "exact at each token of the common vocabulary"
        if teacher["exact"]
        else "estimated from the log-probabilities of whole texts, for the vocabularies differ"
    )
    told = "a context that the student does not see" if teacher["context"] else "the student's prompts"
    left_out = teacher["student_left_out"] + teacher["teacher_left_out"]
    return (
        f"KL to {cell(Path(teacher['teacher']).name)} with {told}, at temperature {teacher['temperature']:g}: {way}. "
        f"{teacher['student_cut']} of {teacher['student_texts']} responses and {teacher['teacher_cut']} of "
        f"{teacher['teacher_texts']} teacher texts were cut at the limit and have no end"
        + (f"; {left_out} texts with tokens that a model does not have are left out." if left_out else ".")
    )


def _render_judge(judge: Mapping[str, Any]) -> list[str]:
    counts = judge["counts"]
    lines = [
        "",
        f"## Judge: {judge['model']}",
        "",
        "| | value | prompts | win/tie/loss | position bias | inconsistent |",
        "|---|---|---|---|---|---|",
    ]

    def line(title: str, figure: Mapping[str, Any] | None, of: Mapping[str, Any], record: str = "") -> str:
        read = f"{of['prompts']} of {of['prompts'] + of['unreadable_prompts']}"
        bias = "-" if "position_bias" not in of else f"{of['position_bias']:+.2f}"
        inconsistent = "-" if "inconsistent" not in of else f"{of['inconsistent']:.2f}"
        return f"| {title} | {show(figure)} | {read} | {record} | {bias} | {inconsistent} |"

    lines.append(line("score, 50 is parity with the reference", judge["score"], judge["score"]))
    if "teacher_score" in judge:
        lines.append(line("score of the teacher", judge["teacher_score"], judge["teacher_score"]))
    refused: list[str] = []
    for name, rates in judge["win_rates"].items():
        record = f"{rates['wins']}/{rates['ties']}/{rates['losses']}" if "wins" in rates else ""
        lines.append(line(f"win rate against {cell(name)}", rates.get("win_rate"), rates, record))
        controlled = rates.get("length_controlled") or {}
        lines.append(line(f"at equal length, against {cell(name)}", controlled, rates))
        if "refused" in controlled:
            refused.append(f"No win rate at equal length against {cell(name)}: {cell(controlled['refused'])}.")
    lines += [
        "",
        f"{counts['ratings']} ratings in the judge's last run (both orders counted): {counts['asked_again']} asked "
        f"again because the reply could not be read, {counts['unparsed']} never readable, {counts['unanswered']} "
        f"without an answer, {counts['empty_references']} empty references. Prompts with an unreadable order are left "
        "out.",
    ]
    for sentence in refused:
        lines += ["", sentence]
    return lines
