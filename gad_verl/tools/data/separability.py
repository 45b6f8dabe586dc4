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
"""How well two sides can be told apart: a logistic model's held-out accuracy, and each feature alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gad_verl.core.intervals import bounded
from gad_verl.errors import GadDataError
from gad_verl.tools.data.surface import Feature, FeatureTable


@dataclass(frozen=True)
class Accuracy:
    """A balanced accuracy on texts that the model was not fitted on, with an interval of 95 %."""

    value: float
    low: float
    high: float
    auc: float


@dataclass(frozen=True)
class SingleFeature:
    """One feature alone.

    Args:
        feature: The feature.
        teacher: Its mean on the teacher's side (a share, where it is 0 or 1).
        student: Its mean on the student's side.
        auc: Chance that a teacher's value is above a student's, ties counted half; 0.5 tells nothing.
        p_value: Of the Mann-Whitney test.
    """

    feature: Feature
    teacher: float
    student: float
    auc: float
    p_value: float


def _held_out(groups: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Which texts are kept from the models: those of half of the prompts.

    One split, not cross-validation: the fits of several folds share texts, and an interval over their pooled results
    gave intervals that are too narrow (on texts of one source, 34 of 40 covered 0.5 instead of 38).
    """
    distinct, inverse = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    return (order % 2 == 1)[inverse]


def _balanced(correct: NDArray[np.bool_], is_teacher: NDArray[np.bool_]) -> float:
    if is_teacher.all() or not is_teacher.any():
        return float("nan")
    return float((correct[is_teacher].mean() + correct[~is_teacher].mean()) / 2)


def _interval(
    correct: NDArray[np.bool_], is_teacher: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[float, float]:
    """Over groups: texts of one prompt are no independent witnesses."""
    _, inverse = np.unique(groups, return_inverse=True)
    shares = np.zeros(inverse.max() + 1)
    for side in (is_teacher, ~is_teacher):
        right, texts = (np.bincount(inverse, weights=column.astype(float)) for column in (correct & side, side))
        shares += (right - right.sum() / texts.sum() * texts) / texts.mean() / 2
    estimate = bounded(_balanced(correct, is_teacher), shares)
    return estimate.low, estimate.high


def model_accuracy(
    table: FeatureTable, is_teacher: NDArray[np.bool_], groups: NDArray[np.int64], seed: int = 0
) -> Accuracy:
    """Accuracy of a logistic model on all features, fitted on half of the prompts, on the other half.

    Args:
        table: Features of the texts of both sides.
        is_teacher: Side of each text.
        groups: Prompt of each text: no prompt is in both halves.
        seed: Of the halves.

    Raises:
        GadDataError: If a half lacks one side.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    held_out = _held_out(groups, seed)
    if len(np.unique(is_teacher[held_out])) < 2 or len(np.unique(is_teacher[~held_out])) < 2:
        raise GadDataError("too few prompts to keep half of them from the model: give more texts")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500))
    model.fit(table.for_model[~held_out], is_teacher[~held_out])
    scores, is_teacher, groups = (
        model.decision_function(table.for_model[held_out]),
        is_teacher[held_out],
        groups[held_out],
    )
    # A score of exactly 0 (no feature varies) is a coin's toss.
    tosses = np.random.default_rng(seed).random(len(scores)) < 0.5
    correct = np.where(scores == 0, tosses, (scores > 0) == is_teacher)
    low, high = _interval(correct, is_teacher, groups)
    return Accuracy(_balanced(correct, is_teacher), low, high, float(roc_auc_score(is_teacher, scores)))


def single_features(table: FeatureTable, is_teacher: NDArray[np.bool_]) -> list[SingleFeature]:
    """Every feature alone, the best separating first."""
    from scipy.stats import mannwhitneyu

    found = []
    for number, feature in enumerate(table.features):
        known = ~np.isnan(table.values[:, number])
        teacher, student = table.values[is_teacher & known, number], table.values[~is_teacher & known, number]
        if not len(teacher) or not len(student) or np.ptp(table.values[known, number]) == 0:
            continue
        test = mannwhitneyu(teacher, student, method="asymptotic")
        auc = float(test.statistic / (len(teacher) * len(student)))
        found.append(SingleFeature(feature, float(teacher.mean()), float(student.mean()), auc, float(test.pvalue)))
    return sorted(found, key=lambda single: (-abs(single.auc - 0.5), single.feature.name))


def noteworthy(singles: Sequence[SingleFeature], effect: float = 0.03, level: float = 0.01) -> list[SingleFeature]:
    """Features that differ by more than chance (Bonferroni over all of them) and by enough to matter.

    Args:
        singles: All single features.
        effect: Least distance of the AUC from 0.5; for a share this is half the difference of the sides.
        level: Chance of any false finding when the sides are alike.
    """
    return [single for single in singles if abs(single.auc - 0.5) >= effect and single.p_value * len(singles) < level]
