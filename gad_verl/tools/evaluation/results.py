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
"""The results of ``gad-verl evaluate``, as they are read back from its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gad_verl.core.intervals import Estimate
from gad_verl.errors import GadDataError
from gad_verl.record.files import read_json, read_json_lines

RESULTS = "results.json"
PROMPTS = "prompts.jsonl"
FORMAT = 1

# Keys of a line of PROMPTS.
QUESTION = "question"
TEACHER_TEXT = "teacher"
MARKS = "marks"
AGAINST = "against"
CHARACTERS = "characters"
REFERENCE = "reference"
TEACHER_MARKS = "teacher_marks"
CHECKS = "checks"


@dataclass
class Evaluation:
    """A folder of ``gad-verl evaluate``, read back.

    Args:
        name: Name of the folder.
        folder: Its path.
        settings: What decided the responses.
        figures: Name to figure with interval.
        plain: Figures without interval.
        judge: What the judge said, or None.
        prompt_ids: Of the prompts, in their order.
        columns: Name to one number (or None) per prompt.
        marks: The judge's marks against the reference, shape (prompts, 4), NaN where there are none.
        against: The same against each opponent.
        characters: Per opponent the lengths of the judged texts, shape (prompts, 2); empty in folders of gad-verl that
            did not note them.
        teacher_marks: The judge's marks of the teacher's texts against the reference, as ``marks``.
        references: Fingerprint of the reference of each prompt; None without one, and in older folders.
        checks: Fingerprint of the checks of each prompt; None without any, and in older folders.
        teacher: The open teacher to which the divergences are, or None.
        about: Name of a figure to what decided it beside the texts; of older folders nothing.
        texts: Prompt and teacher's text for people, by fingerprint of the prompt; of older folders none.
    """

    name: str
    folder: Path
    settings: dict[str, Any]
    figures: dict[str, Estimate]
    plain: dict[str, float | None]
    judge: dict[str, Any] | None
    prompt_ids: list[str]
    columns: dict[str, list[float | None]]
    marks: np.ndarray
    against: dict[str, np.ndarray]
    characters: dict[str, np.ndarray]
    teacher_marks: np.ndarray
    references: list[str | None]
    checks: list[str | None]
    teacher: dict[str, Any] | None = None
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: dict[str, tuple[str, str]] = field(default_factory=dict)

    def at(self, places: Sequence[int]) -> "Evaluation":
        """The same over some of the prompts, in the order of their places."""
        chosen = list(places)
        return replace(
            self,
            prompt_ids=[self.prompt_ids[place] for place in chosen],
            columns={name: [column[place] for place in chosen] for name, column in self.columns.items()},
            marks=self.marks[chosen],
            against={name: table[chosen] for name, table in self.against.items()},
            characters={name: table[chosen] for name, table in self.characters.items()},
            teacher_marks=self.teacher_marks[chosen],
            references=[self.references[place] for place in chosen],
            checks=[self.checks[place] for place in chosen],
        )


def read_evaluation(folder: str | Path) -> Evaluation:
    """A folder that ``gad-verl evaluate`` has finished.

    Raises:
        GadDataError: If it has not, or the files are damaged.
    """
    folder = Path(folder).expanduser()
    if folder.is_file():
        raise GadDataError(f"{folder} is a file of an evaluation, or of something else: name its folder")
    if not folder.is_dir():
        raise GadDataError(f"{folder}: no such folder; gad-verl evaluate --output {folder} would make it")
    if not (folder / RESULTS).is_file() or not (folder / PROMPTS).is_file():
        raise GadDataError(f"{folder} has no {RESULTS}: run gad-verl evaluate with --output {folder} to its end first")
    try:
        results: Any = read_json(folder / RESULTS)
        lines: list[Any] = [line for _, _, line in read_json_lines(folder / PROMPTS)]
        if results["format"] != FORMAT:
            raise GadDataError(f"{folder}: format {results['format']}, this gad-verl reads {FORMAT}; evaluate it again")
        if results["prompts"] != len(lines):
            raise ValueError("prompts are missing")
        opponents = sorted({name for line in lines for name in line[AGAINST]})
        return Evaluation(
            name=folder.resolve().name,
            folder=folder,
            settings=dict(results["settings"]),
            figures={name: estimate_of(figure) for name, figure in results["figures"].items()},
            plain=results["plain"],
            judge=None if results["judge"] is None else dict(results["judge"]),
            prompt_ids=[line["prompt_id"] for line in lines],
            columns={name: [line["figures"][name] for line in lines] for name in lines[0]["figures"]},
            marks=_table([line[MARKS] for line in lines]),
            against={name: _table([line[AGAINST].get(name) for line in lines]) for name in opponents},
            characters={
                name: np.array([line[CHARACTERS][name] for line in lines], dtype=float)
                for name in lines[0].get(CHARACTERS, ())
            },
            teacher_marks=_table([line.get(TEACHER_MARKS) for line in lines]),
            references=[line.get(REFERENCE) for line in lines],
            checks=[line.get(CHECKS) for line in lines],
            teacher=results.get("teacher"),
            about=results.get("about", {}),
            # Of a prompt that is there twice the first, as its first answer is the one that is shown.
            texts={line["prompt_id"]: (line[QUESTION], line[TEACHER_TEXT]) for line in lines[::-1] if QUESTION in line},
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        if isinstance(error, GadDataError):
            raise
        raise GadDataError(f"{folder}: {RESULTS} or {PROMPTS} is damaged; run gad-verl evaluate again") from None


def estimate_of(figure: Mapping[str, float | None]) -> Estimate:
    """A figure with its interval out of its JSON."""
    return Estimate(*(float("nan") if figure[key] is None else float(figure[key]) for key in ("value", "low", "high")))


def _table(marks: Sequence[Sequence[float | None] | None]) -> np.ndarray:
    rows = [[np.nan] * 4 if row is None else [np.nan if x is None else x for x in row] for row in marks]
    return np.array(rows, dtype=float).reshape(len(rows), 4)
