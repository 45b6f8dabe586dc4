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
"""Evaluations for the page of a run: the same few prompts, answered by the teacher and by every student."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gad_verl.tools.evaluation.comparison import Comparison, about, compare, difference_cell, shown_columns
from gad_verl.tools.evaluation.report import show
from gad_verl.tools.evaluation.responses import RESPONSES, Response, read_responses
from gad_verl.tools.evaluation.results import read_evaluation
from gad_verl.tools.report.answers import Answer, Answers, Asked, Table

PROMPTS = 8
"""How many prompts are shown."""

_LONGEST = 1500
_SEED = 0


def side_by_side(folders: Sequence[str | Path], prompts: int = PROMPTS) -> Answers:
    """Figures and answers of several folders of ``gad-verl evaluate``, over the prompts that all of them have.

    Args:
        folders: Differences are to the first.
        prompts: How many prompts are shown, drawn by a fixed seed.

    Raises:
        GadDataError: If a folder has no results, or the folders share no prompt.
        GadConfigError: If a folder is named twice.
    """
    comparison = compare(folders)
    return Answers(about(comparison), _tables(comparison), comparison.notes, _asked(comparison, prompts))


def _tables(comparison: Comparison) -> list[Table]:
    shown = shown_columns(comparison)
    titles = [title for _, title, _ in shown]
    cells = [
        (name, [show(comparison.figures[name].get(key), digits) for key, _, digits in shown])
        for name in comparison.names
    ]
    tables = [Table("Figures", titles, cells)]
    if comparison.differences:
        paired = [
            (name, [difference_cell(differences.get(key), digits) for key, _, digits in shown])
            for name, differences in comparison.differences.items()
        ]
        title = f"Paired differences to {comparison.names[0]}; * where the interval leaves 0 out"
        tables.append(Table(title, titles, paired))
    return tables


def _asked(comparison: Comparison, most: int) -> list[Asked]:
    """Some prompts that all folders have, with the first answer of each."""
    folders = {name: Path(folder) for name, folder in comparison.folders.items()}
    evaluations = [read_evaluation(folder) for folder in folders.values()]
    # Where the teacher's texts differ, the first folder's: the comparison notes it.
    texts = {key: both for evaluation in reversed(evaluations) for key, both in evaluation.texts.items()}
    answers = {name: _first_answers(folder) for name, folder in folders.items()}
    common = [
        key
        for key in dict.fromkeys(evaluations[0].prompt_ids)
        if key in texts and all(key in a for a in answers.values())
    ]
    chosen = np.random.default_rng(_SEED).permutation(len(common))[:most]
    asked = []
    for place in sorted(chosen):
        question, teacher = texts[common[place]]
        students = [
            Answer(name, _shortened(own[common[place]].text), not own[common[place]].finished)
            for name, own in answers.items()
        ]
        asked.append(Asked(_shortened(question), [Answer("teacher", _shortened(teacher)), *students]))
    return asked


def _first_answers(folder: Path) -> dict[str, Response]:
    responses = sorted(read_responses(folder / RESPONSES), key=lambda response: response.key, reverse=True)
    return {response.prompt_id: response for response in responses}


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text) - _LONGEST} more characters)"
