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
"""What makes the figures of several evaluations less comparable, in sentences."""

from collections.abc import Sequence

from gad_verl.tools.evaluation import length_control
from gad_verl.tools.evaluation.judging import TEACHER, parsed
from gad_verl.tools.evaluation.results import Evaluation

_TEMPLATE = "chat_template_kwargs"
# Settings whose difference makes figures incomparable to some degree.
_SHARED_SETTINGS = ("max_response_length", "max_prompt_length", "temperature", "top_p", "top_k", "samples", _TEMPLATE)


def notes_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """What makes the figures of evaluations less comparable."""
    notes = []
    for name in _SHARED_SETTINGS:
        none = {} if name == _TEMPLATE else None
        values = {evaluation.name: evaluation.settings.get(name, none) for evaluation in evaluations}
        if len(set(map(str, values.values()))) > 1:
            notes.append(f"{name} differs: " + ", ".join(f"{who} {value}" for who, value in values.items()) + ".")
    lengths = {tuple(evaluation.columns["teacher_length"]) for evaluation in evaluations}
    if len(lengths) > 1:
        notes.append("The teacher's texts differ in tokens: other texts, limits or tokenizers. Compare ratios.")
    notes += _teacher_notes(evaluations)
    notes += _length_notes(evaluations)
    judged = [evaluation.judge for evaluation in evaluations if evaluation.judge]
    if len({judge["model"] for judge in judged}) > 1:
        notes.append("Different judges: their scores are not comparable.")
    elif len({judge["references"] for judge in judged}) > 1:
        notes.append("Scores are against different reference answers; share --judge-store to compare on the same.")
    return notes


def _teacher_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """In what the open teachers differ that the divergences are to."""
    notes = []
    teachers = {evaluation.name: evaluation.teacher for evaluation in evaluations if evaluation.teacher}
    for name in ("weights", "context", "temperature"):
        values = {who: teacher[name] for who, teacher in teachers.items()}
        if len(set(map(str, values.values()))) > 1:
            said = ", ".join(f"{who} {value}" for who, value in values.items())
            notes.append(f"The KLs are to different teachers, the {name} differs: {said}.")
    return notes


def _length_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """Why a checkpoint has no win rate at equal length."""
    notes = []
    for evaluation in evaluations:
        if TEACHER not in evaluation.against or not (read := parsed(evaluation.against[TEACHER])).any():
            continue
        if TEACHER not in evaluation.characters:
            why = "its folder does not tell the lengths of the judged texts (the same gad-verl evaluate again does)"
        else:
            why = length_control.refusal(*evaluation.characters[TEACHER][read].T)
        if why is not None:
            notes.append(f"{evaluation.name} has no win rate at equal length: {why}.")
    return notes
