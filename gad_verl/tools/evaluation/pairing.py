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
"""The prompts over which evaluations are compared: those that all of them have, and that a judge could read in all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.evaluation.figures import TWO_SAMPLE
from gad_verl.tools.evaluation.judging import TEACHER, parsed
from gad_verl.tools.evaluation.results import Evaluation


def named(evaluations: list[Evaluation]) -> list[Evaluation]:
    """Names that tell all folders apart: more of the path where the last part is the same."""
    paths = [evaluation.folder.resolve() for evaluation in evaluations]
    if len(set(paths)) < len(paths):
        raise GadConfigError(f"{next(path for path in paths if paths.count(path) > 1)} is named twice")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return [
        replace(evaluation, name="/".join(path.parts[-depth:]))
        for evaluation, path in zip(evaluations, paths, strict=True)
    ]


def _keys(evaluation: Evaluation) -> list[tuple[str, int]]:
    """Prompt and its how-manieth occurrence: a file may hold a prompt twice."""
    seen: Counter[str] = Counter()
    keys = []
    for prompt_id in evaluation.prompt_ids:
        keys.append((prompt_id, seen[prompt_id]))
        seen[prompt_id] += 1
    return keys


def on_common_prompts(evaluations: list[Evaluation]) -> tuple[list[Evaluation], list[str]]:
    """The same evaluations over the prompts that all of them have, in the order of the first, and what was left out.

    Raises:
        GadDataError: If there is no such prompt.
    """
    keys = [_keys(evaluation) for evaluation in evaluations]
    common = set(keys[0]).intersection(*keys[1:])
    if not common:
        raise GadDataError("the folders share no prompt: evaluate all checkpoints on the same --data")
    order = [key for key in keys[0] if key in common]
    result, notes = [], []
    # A classifier that has learned from more prompts tells more texts apart, whoever wrote them.
    left_out = TWO_SAMPLE if len({frozenset(own) for own in keys}) > 1 else ()
    if any(name in evaluation.columns for evaluation in evaluations for name in left_out):
        notes.append(
            "The two-sample tests are left out: their classifiers have learned from different prompts. Evaluate all "
            "checkpoints on the same --data and --limit."
        )
    for evaluation, own in zip(evaluations, keys, strict=True):
        if len(own) > len(order):
            notes.append(f"{evaluation.name} has {len(own)} prompts; the {len(order)} that all have are compared.")
        places = {key: place for place, key in enumerate(own)}
        chosen = evaluation.at([places[key] for key in order])
        columns = {name: column for name, column in chosen.columns.items() if name not in left_out}
        result.append(replace(chosen, columns=columns))
    return result, notes


def on_readable_prompts(evaluations: Sequence[Evaluation]) -> tuple[list[Evaluation], list[str]]:
    """The same evaluations with the marks of those prompts alone that could be read in all that have any, and a note.

    With the prompts that each of them has, one whose hardest prompts cannot be read would have the better score.
    """
    scores, notes = _read_in_all({e.name: e.marks for e in evaluations}, "scores")
    won, more = _read_in_all({e.name: e.against[TEACHER] for e in evaluations if TEACHER in e.against}, "win rates")
    result = []
    for evaluation in evaluations:
        name = evaluation.name
        against = evaluation.against | ({TEACHER: won[name]} if name in won else {})
        result.append(replace(evaluation, marks=scores[name], against=against))
    return result, notes + more


def _read_in_all(tables: Mapping[str, np.ndarray], what: str) -> tuple[dict[str, np.ndarray], list[str]]:
    read = {name: parsed(table) for name, table in tables.items() if parsed(table).any()}
    if not read or len({tuple(own) for own in read.values()}) == 1:
        return dict(tables), []
    common = np.logical_and.reduce(list(read.values()))
    said = ", ".join(f"{name} {own.sum()}" for name, own in read.items())
    note = (
        f"The judge's replies can be read of other prompts in each folder ({said} of {len(common)}): {what} are over "
        f"the {common.sum()} that can be read in all."
    )
    return {name: np.where(common[:, None], table, np.nan) for name, table in tables.items()}, [note]


def paired(first: Evaluation, second: Evaluation) -> tuple[Evaluation, Evaluation]:
    """Both with each figure of those prompts alone in which both have it."""
    (first, second), _ = on_readable_prompts([first, second])
    mine, others = {}, {}
    for name in first.columns.keys() & second.columns.keys():
        numbers = zip(first.columns[name], second.columns[name], strict=True)
        both = [(None, None) if None in pair else pair for pair in numbers]
        mine[name], others[name] = [one for one, _ in both], [other for _, other in both]
    return replace(first, columns=mine), replace(second, columns=others)
