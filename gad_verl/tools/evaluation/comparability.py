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

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gad_verl.record.files import plain
from gad_verl.tools.evaluation import length_control
from gad_verl.tools.evaluation.figures import TWO_SAMPLE
from gad_verl.tools.evaluation.judging import TEACHER, parsed
from gad_verl.tools.evaluation.report import TITLES
from gad_verl.tools.evaluation.results import Evaluation

_TEMPLATE = "chat_template_kwargs"
# Settings whose difference makes figures incomparable to some degree.
_SHARED_SETTINGS = (
    "max_response_length",
    "max_prompt_length",
    "temperature",
    "top_p",
    "top_k",
    "samples",
    _TEMPLATE,
    "thinking",
    "tools",
    "mm_processor_kwargs",
    "engine",
    "dtype",
)


def notes_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """What makes the figures of evaluations less comparable.

    Args:
        evaluations: Over the same prompts, with marks where they are compared.
    """
    notes = []
    for name in _SHARED_SETTINGS:
        none = {} if name == _TEMPLATE else None
        values = {evaluation.name: evaluation.settings.get(name, none) for evaluation in evaluations}
        # A folder of before a setting existed has none of it.
        if _differ({who: value or None for who, value in values.items()}):
            notes.append(f"{name} differs: {_list(values)}.")
    notes += _text_notes(evaluations)
    notes += _measure_notes(evaluations)
    notes += _teacher_notes(evaluations)
    notes += _length_notes(evaluations)
    notes += _judge_notes(evaluations)
    return notes


def _differ(values: Mapping[str, Any]) -> bool:
    return len({json.dumps(plain(value), sort_keys=True) for value in values.values()}) > 1


def _list(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{who} {value}" for who, value in values.items())


def _differing(columns: Sequence[Sequence[Any]]) -> int:
    """In how many prompts columns differ."""
    return sum(len(set(row)) > 1 for row in zip(*columns, strict=True))


def _text_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """Whether the responses are compared with the same texts of the teacher."""
    texts = [{key: teacher for key, (_, teacher) in evaluation.texts.items()} for evaluation in evaluations]
    prompts = [key for key in dict.fromkeys(evaluations[0].prompt_ids) if all(key in of for of in texts)]
    if count := _differing([[of[key] for key in prompts] for of in texts]):
        return [
            f"The teacher's texts differ in {count} of {len(prompts)} prompts: figures compare with each folder's own."
        ]
    if _differ({evaluation.name: evaluation.columns["teacher_length"] for evaluation in evaluations}):
        return ["The teacher's texts differ in tokens: other texts, limits or tokenizers. Compare ratios."]
    return []


def _measure_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """Which figures were not measured in the same way."""
    checked = [evaluation.checks for evaluation in evaluations if any(evaluation.checks)]
    notes = []
    if checked and (count := _differing(checked)):
        notes.append(f"The checks differ in {count} of {len(checked[0])} prompts: what is passed is not the same.")
    said: dict[str, list[str]] = {}
    for name in TWO_SAMPLE:
        about = {e.name: e.about[name] for e in evaluations if name in e.columns and name in e.about}
        for key in dict.fromkeys(key for of in about.values() for key in of):
            values = {who: of.get(key) for who, of in about.items()}
            if _differ(values):
                said.setdefault(f"{key} {_list(values)}", []).append(TITLES[name][0])
    return notes + [f"Measured differently: {', '.join(titles)} ({values})." for values, titles in said.items()]


def _judge_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """In what the judges differ, or what they compared with."""
    judged = [evaluation for evaluation in evaluations if evaluation.judge]
    judges = {evaluation.name: evaluation.judge or {} for evaluation in judged}
    if len({judge["model"] for judge in judges.values()}) > 1:
        return ["Different judges: their scores are not comparable."]
    asked = {who: {"base_url": j.get("base_url"), **j["settings"]} for who, j in judges.items() if "settings" in j}
    notes = []
    for name in dict.fromkeys(name for of in asked.values() for name in of):
        values = {who: of.get(name) for who, of in asked.items()}
        # How often it is asked until a reply can be read changes no reply.
        if name != "attempts" and _differ(values):
            notes.append(f"The judge was asked differently, {name}: {_list(values)}.")
    # Folders of before their references were noted by prompt have a fingerprint of all of them.
    if all(any(evaluation.references) for evaluation in judged):
        rows = zip(*(evaluation.references for evaluation in judged), strict=True)
        differ = any(len(set(row) - {None}) > 1 for row in rows)
    else:
        differ = _differ({who: judge.get("references") for who, judge in judges.items()})
    if differ:
        notes.append("Scores are against different reference answers; share --judge-store to compare on the same.")
    return notes


def _teacher_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """In what the open teachers differ that the divergences are to."""
    notes = []
    teachers = {evaluation.name: evaluation.teacher for evaluation in evaluations if evaluation.teacher}
    for name in ("weights", "context", "temperature"):
        values = {who: teacher[name] for who, teacher in teachers.items()}
        if _differ(values):
            notes.append(f"The KLs are to different teachers, the {name} differs: {_list(values)}.")
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
