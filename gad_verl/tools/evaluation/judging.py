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
"""Everything that the judge says of one checkpoint: score as in the paper, win rates, and how reliable they are."""

import hashlib
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gad_verl.core.intervals import Estimate
from gad_verl.errors import GadDataError
from gad_verl.tools.evaluation import length_control, preferences
from gad_verl.tools.evaluation.judge import Judge
from gad_verl.tools.evaluation.responses import RESPONSES, Response, read_responses
from gad_verl.tools.evaluation.rows import Row

TEACHER = "teacher"


@dataclass(frozen=True)
class Opponent:
    """Texts to compare with, one per prompt."""

    name: str
    texts: list[str]


def find_opponent(name: str, rows: Sequence[Row]) -> Opponent:
    """The teacher, or another checkpoint's responses.

    Args:
        name: "teacher", a folder of ``gad-verl evaluate`` or its ``responses.jsonl``; ``NAME=PATH`` gives it a name,
            unless all of it is a path.
        rows: The prompts; each needs a response.

    Raises:
        GadDataError: If there is no such file, it lacks a prompt, or it would be named as the teacher is.
    """
    if name == TEACHER:
        return Opponent(TEACHER, [row.teacher for row in rows])
    label, equals, location = name.partition("=")
    if Path(name).expanduser().exists():
        equals = ""
    path = Path(location if equals else name).expanduser()
    file = path / RESPONSES if path.is_dir() else path
    if not file.is_file():
        raise GadDataError(
            f"--against {name}: {file} is missing; name 'teacher', a folder of gad-verl evaluate, or its {RESPONSES} "
            "(NAME=PATH gives it a name)"
        )
    own_name = label if equals else path.resolve().name if path.is_dir() else path.resolve().parent.name
    if own_name == TEACHER:
        raise GadDataError(f"--against {name}: 'teacher' is the teacher of --data; give it another name (NAME={path})")
    # A file may hold a prompt twice: its responses are handed out in their order.
    texts: dict[str, deque[str]] = defaultdict(deque)
    for response in sorted(read_responses(file), key=lambda response: response.key):
        if response.sample == 0:
            texts[response.prompt_id].append(response.text)
    found = [texts[row.prompt_id].popleft() if texts[row.prompt_id] else None for row in rows]
    missing = [number for number, text in enumerate(found) if text is None]
    if missing:
        raise GadDataError(
            f"--against {name}: {file} lacks {len(missing)} of the {len(rows)} prompts (first: row {missing[0]}); "
            "evaluate it on the same --data and --limit"
        )
    return Opponent(own_name, [text or "" for text in found])


@dataclass
class Judgement:
    """What came out.

    Args:
        marks: Marks of the student against the reference, shape (prompts, 4), NaN where unparsed.
        opponents: The same against each opponent.
        characters: Per opponent the lengths of the judged texts, shape (prompts, 2), the student's first.
        summary: Figures, ready for JSON.
        references: Fingerprint of each prompt's reference answer, None without one; empty where nobody noted them.
        teacher: Marks of the teacher's texts against the references, None where it was not scored.
    """

    marks: np.ndarray
    opponents: dict[str, np.ndarray]
    characters: dict[str, np.ndarray]
    summary: dict[str, Any]
    references: Sequence[str | None] = ()
    teacher: np.ndarray | None = None

    @property
    def is_empty(self) -> bool:
        """Whether not one prompt could be judged."""
        return not any(parsed(marks).any() for marks in (self.marks, *self.opponents.values()))


def judge_checkpoint(
    judge: Judge,
    rows: Sequence[Row],
    responses: Sequence[Response],
    opponents: Sequence[Opponent] = (),
    with_teacher: bool = False,
) -> Judgement:
    """Score and win rates of a checkpoint; of several responses to a prompt the first is judged.

    Args:
        judge: Asks and keeps.
        rows: The prompts.
        responses: At least sample 0 of every prompt.
        opponents: Whom to compare with directly.
        with_teacher: Score the teacher's texts too, against the same references.

    Raises:
        GadEndpointError: If the API fails; what was answered is kept.
    """
    first = {response.prompt: response for response in responses if response.sample == 0}
    texts = [first[number].text for number in range(len(rows))]
    references = judge.references(rows)
    marks = _against_references(judge, rows, texts, references, "Student and reference")
    summary: dict[str, Any] = {
        "model": judge.endpoint.model,
        "base_url": judge.endpoint.base_url,
        "settings": {**asdict(judge.settings), "options": dict(judge.settings.options)},
        "references": _references_digest(rows, references),
        "score": _score(marks),
    }
    teacher = None
    if with_teacher:
        teacher = _against_references(judge, rows, [row.teacher for row in rows], references, "Teacher and reference")
        summary["teacher_score"] = _score(teacher)
    tables, rates, characters = {}, {}, {}
    for opponent in opponents:
        pairs = [(row.question, mine, theirs) for row, mine, theirs in zip(rows, texts, opponent.texts, strict=True)]
        seen = [row.images for row in rows]
        tables[opponent.name] = judge.rate(pairs, f"Student and {opponent.name}", seen)
        # As the judge sees them: without white space around them.
        lengths = [[len(mine.strip()), len(theirs.strip())] for _, mine, theirs in pairs]
        characters[opponent.name] = np.array(lengths, dtype=float)
        rates[opponent.name] = _rates(tables[opponent.name], characters[opponent.name])
    summary |= {"win_rates": rates, "counts": asdict(judge.counts)}
    digests = [None if reference is None else _digest(reference) for reference in references]
    return Judgement(marks, tables, characters, summary, digests, teacher)


def _against_references(
    judge: Judge, rows: Sequence[Row], texts: Sequence[str], references: Sequence[str | None], what: str
) -> np.ndarray:
    usable = [number for number, reference in enumerate(references) if reference is not None]
    marks = np.full((len(rows), 4), np.nan)
    if usable:
        pairs = [(rows[n].question, texts[n], references[n] or "") for n in usable]
        marks[usable] = judge.rate(pairs, what, [rows[n].images for n in usable])
    return marks


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _references_digest(rows: Sequence[Row], references: Sequence[str | None]) -> str:
    """The same for two checkpoints if they were scored against the same reference answers."""
    return _digest("".join(f"{row.prompt_id}{text!r}" for row, text in zip(rows, references, strict=True)))


def parsed(marks: np.ndarray) -> np.ndarray:
    """The prompts of which both orders could be read: a prompt with one order would carry its bias."""
    return ~np.isnan(marks).any(axis=1)


def _score(marks: np.ndarray) -> dict[str, Any]:
    read = marks[parsed(marks)]
    result: dict[str, Any] = {"prompts": len(read), "unreadable_prompts": len(marks) - len(read)}
    if len(read):
        estimate = preferences.relative_score(read)
        result |= _json(estimate)
        result |= {
            "student_mean": float((read[:, 0] + read[:, 2]).mean() / 2),
            "reference_mean": float((read[:, 1] + read[:, 3]).mean() / 2),
            "position_bias": preferences.position_bias(read),
            "inconsistent": preferences.inconsistent(read),
        }
    return result


def _rates(marks: np.ndarray, characters: np.ndarray) -> dict[str, Any]:
    read = parsed(marks)
    result: dict[str, Any] = {"prompts": int(read.sum()), "unreadable_prompts": int((~read).sum())}
    if read.any():
        outcome = preferences.outcomes(marks[read])
        result |= {
            "win_rate": _json(preferences.win_rate(outcome)),
            "length_controlled": _controlled(outcome, characters[read]),
            "wins": int((outcome == preferences.WIN).sum()),
            "ties": int((outcome == preferences.TIE).sum()),
            "losses": int((outcome == preferences.LOSE).sum()),
            "position_bias": preferences.position_bias(marks[read]),
            "inconsistent": preferences.inconsistent(marks[read]),
        }
    return result


def _json(estimate: Estimate) -> Mapping[str, float]:
    return asdict(estimate)


def _controlled(outcome: np.ndarray, characters: np.ndarray) -> Mapping[str, Any]:
    """The length-controlled win rate, or why there is none (``refused``)."""
    refused = length_control.refusal(*characters.T)
    if refused is not None:
        return {"value": None, "low": None, "high": None, "refused": refused}
    return _json(length_control.length_controlled_win_rate(outcome, *characters.T))
