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
"""``gad-verl data leaks``: what would let a discriminator tell teacher from student without reading the texts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gad_verl.errors import GadDataError
from gad_verl.tools.data.advice import advice, headline, teacher_advice
from gad_verl.tools.data.separability import (
    Accuracy,
    SingleFeature,
    model_accuracy,
    noteworthy,
    single_features,
)
from gad_verl.tools.data.surface import SAME_TEXTS, FeatureTable, feature_table
from gad_verl.tools.data.two_sides import Side, chosen, load_side, pair

SHOWN_FEATURES = 25
MIN_TEXTS = 20

# One-sided: share of teacher texts from which a feature is worth a word. Style (markdown, length) is not.
_SUSPICIOUS = {
    "begins with white space": 0.0,
    "ends with white space": 0.0,
    "carriage returns": 0.0,
    "blanks before a line end": 0.1,
    "several empty lines in a row": 0.1,
    "template remains at an end": 0.0,
    "special tokens as text": 0.01,
    "thinking block": 0.0,
    "refusal": 0.01,
    "broken characters (U+FFFD)": 0.0,
    "Unicode not composed (NFC)": 0.0,
    "stopped by the length limit": 0.01,
    "ends in the middle of a word": 0.01,
    f"the same text as {SAME_TEXTS - 1} others or more": 0.01,
    "empty text": 0.0,
}
# A first or last token that so many texts have is a habit that D will use.
_HABIT = 0.3


@dataclass(frozen=True)
class LeakOptions:
    """What to compare.

    Args:
        teacher: File with the teacher's texts.
        student: File with the student's texts; None for one-sided statistics, or with ``student_key``.
        teacher_key: Column of the teacher's texts.
        student_key: Column of the student's texts, in ``student`` or, without it, in ``teacher``.
        prompt_key: Column of the prompts in both files.
        image_key: Column of the images in both files, which need not be there.
        max_texts: At most so many texts of each side.
        seed: Of the choice of texts and the halves.
    """

    teacher: Path
    student: Path | None = None
    teacher_key: str = "teacher_response"
    student_key: str | None = None
    prompt_key: str = "prompt"
    image_key: str = "images"
    max_texts: int = 5000
    seed: int = 0


@dataclass(frozen=True)
class Finding:
    """A kind of difference, its features (the best separating first), and what to do about it."""

    kind: str
    features: list[SingleFeature]
    advice: str


@dataclass(frozen=True)
class OneSided:
    """A feature of the teacher's texts that is suspicious by itself."""

    name: str
    share: float
    advice: str


@dataclass(frozen=True)
class LeakReport:
    """Everything that was found.

    Args:
        teacher_texts: Number of teacher texts compared.
        student_texts: Number of student texts; 0 in a one-sided report.
        pairing: How the sides were paired.
        warning: Why the comparison may mislead; empty if nothing speaks against it.
        accuracy: The logistic model's; None in a one-sided report.
        verdict: What it means.
        findings: Differences, the largest first.
        teacher_findings: What is suspicious in the teacher's texts by themselves.
        singles: Every feature alone; in a one-sided report with NaN for the student.
    """

    teacher_texts: int
    student_texts: int
    pairing: str
    warning: str
    accuracy: Accuracy | None
    verdict: str
    findings: list[Finding] = field(default_factory=list)
    teacher_findings: list[OneSided] = field(default_factory=list)
    singles: list[SingleFeature] = field(default_factory=list)


def _teacher_findings(table: FeatureTable, is_teacher: NDArray[np.bool_]) -> list[OneSided]:
    found = []
    for number, feature in enumerate(table.features):
        share = float(np.nanmean(table.values[is_teacher, number]))
        is_habit = feature.name.startswith(("first t", "last token")) and share >= _HABIT
        if is_habit or (feature.name in _SUSPICIOUS and share > _SUSPICIOUS[feature.name]):
            found.append(OneSided(feature.name, share, teacher_advice(feature)))
    return sorted(found, key=lambda one: -one.share)


def _by_kind(singles: Sequence[SingleFeature]) -> list[Finding]:
    kinds: dict[str, list[SingleFeature]] = {}
    for single in noteworthy(singles):
        kinds.setdefault(single.feature.kind, []).append(single)
    return [Finding(kind, features, advice(features)) for kind, features in kinds.items()]


def one_sided(side: Side) -> LeakReport:
    """Statistics of the teacher's texts alone."""
    table = feature_table(side.texts, side.unfinished)
    everyone = np.ones(len(side.texts), dtype=bool)
    means = np.nanmean(table.values, axis=0)
    singles = [
        SingleFeature(feature, float(mean), float("nan"), float("nan"), float("nan"))
        for feature, mean in zip(table.features, means, strict=True)
        if mean > 0
    ]
    found = _teacher_findings(table, everyone)
    verdict = "no student texts given: nothing is said about what tells the sides apart"
    return LeakReport(len(side.texts), 0, "one side only", "", None, verdict, [], found, singles)


def compare(teacher: Side, student: Side, most: int = 5000, seed: int = 0) -> LeakReport:
    """Compare two sides.

    Args:
        teacher: Teacher's texts.
        student: Student's texts.
        most: At most so many texts of each side.
        seed: Of the choice of texts and the halves.

    Raises:
        GadDataError: If a side has fewer than 20 texts.
    """
    pairing = pair(teacher, student, most, seed)
    teacher, student = pairing.teacher, pairing.student
    for side, name in ((teacher, "teacher"), (student, "student")):
        if len(side.texts) < MIN_TEXTS:
            raise GadDataError(
                f"the {name}'s side has {len(side.texts)} texts to compare; at least {MIN_TEXTS} are needed"
            )
    cut = [side.unfinished for side in (teacher, student)]
    unfinished = None if cut[0] is None or cut[1] is None else [*cut[0], *cut[1]]
    table = feature_table([*teacher.texts, *student.texts], unfinished)
    is_teacher = np.arange(len(table.values)) < len(teacher.texts)
    accuracy = model_accuracy(table, is_teacher, pairing.groups, seed)
    singles = single_features(table, is_teacher)
    findings = _by_kind(singles)
    return LeakReport(
        len(teacher.texts),
        len(student.texts),
        pairing.how,
        pairing.warning,
        accuracy,
        headline(accuracy, len(findings)),
        findings,
        [],
        singles,
    )


def run(options: LeakOptions) -> LeakReport:
    """Load the sides and report.

    Raises:
        GadDataError: Names file, row or column, and the remedy.
    """
    teacher = load_side(
        options.teacher, options.teacher_key, options.prompt_key, "teacher", "--teacher-key", options.image_key
    )
    if options.student is None and options.student_key is None:
        return one_sided(teacher.keep(chosen([str(row) for row in teacher.rows], options.max_texts, options.seed)))
    student = load_side(
        options.student or options.teacher,
        options.student_key or "response",
        options.prompt_key,
        "student",
        "--student-key",
        options.image_key,
    )
    return compare(teacher, student, options.max_texts, options.seed)


def _value(single: SingleFeature, value: float) -> str:
    if np.isnan(value):
        return ""
    is_share = single.feature.is_share or single.feature.name.startswith("share")
    return f"{value:.1%}" if is_share else f"{value:,.1f}"


def render(report: LeakReport) -> str:
    """The report as text."""
    lines = [f"teacher {report.teacher_texts} texts, student {report.student_texts} texts, {report.pairing}"]
    if report.accuracy is None:
        lines = [f"teacher {report.teacher_texts} texts"]
    if report.warning:
        lines += ["", f"warning: {report.warning}"]
    lines.append("")
    if report.accuracy is not None:
        one = report.accuracy
        lines.append(
            f"held-out accuracy on the surface alone: {one.value:.3f} [{one.low:.3f}, {one.high:.3f}], "
            f"AUC {one.auc:.3f}"
        )
    lines += [report.verdict, ""]
    for finding in report.findings:
        lines.append(f"{finding.kind}:")
        lines += [
            f"  {single.feature.name}: teacher {_value(single, single.teacher)}, student "
            f"{_value(single, single.student)}"
            for single in finding.features[:4]
        ]
        if len(finding.features) > 4:
            lines.append(f"  and {len(finding.features) - 4} more")
        lines += [f"  -> {finding.advice}", ""]
    for found in report.teacher_findings:
        lines += [f"{found.name}: {found.share:.1%} of the teacher's texts", f"  -> {found.advice}", ""]
    if not report.findings and not report.teacher_findings:
        lines += ["no findings", ""]
    lines.append(f"{'feature':<44} {'teacher':>10} {'student':>10} {'AUC':>6}")
    shown = report.singles[:SHOWN_FEATURES]
    for single in shown:
        auc = "" if np.isnan(single.auc) else f"{single.auc:.3f}"
        lines.append(
            f"{single.feature.name[:44]:<44} {_value(single, single.teacher):>10} {_value(single, single.student):>10} "
            f"{auc:>6}"
        )
    if len(shown) < len(report.singles):
        lines.append(f"and {len(report.singles) - len(shown)} more (--json FILE has them all)")
    return "\n".join(lines)
