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
"""What two models say of each text (``divergence.jsonl``), and the divergences of each prompt from it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_verl.errors import GadDataError
from gad_verl.record.files import read_json_lines

STUDENT, TEACHER = "student", "teacher"
SCORES = "divergence.jsonl"
# Figure of an author's answers: exact by tokens, or an estimate by whole texts.
EXACT = {STUDENT: "kl_student_teacher", TEACHER: "kl_teacher_student"}
PER_TEXT = {author: f"{name}_per_text" for author, name in EXACT.items()}
KL_FIGURES = (*EXACT.values(), *PER_TEXT.values())


@dataclass(frozen=True)
class Score:
    """What both models say of one text, a line of ``divergence.jsonl``.

    Args:
        author: "student" or "teacher".
        prompt: Number of the prompt.
        sample: Number of the author's answer to it.
        digest: Of prompt and answer, as both models read them.
        tokens: Of the answer, in the student's tokens, the end-of-text token included.
        finished: Whether it has one.
        kl: Sum over its tokens of KL(author, other), nats; None where only the text can be compared.
        student_log_p: Log-probability of the text under the student, nats.
        teacher_log_p: The same under the teacher.

    A text with a token that a model does not have is left out: the last three are None.
    """

    author: str
    prompt: int
    sample: int
    digest: str
    tokens: int
    finished: bool
    kl: float | None
    student_log_p: float | None
    teacher_log_p: float | None

    @property
    def key(self) -> tuple[str, int, int]:
        """Author, prompt and sample."""
        return self.author, self.prompt, self.sample

    @property
    def log_ratio(self) -> float | None:
        """Log-probability under the author less that under the other one, nats."""
        if self.student_log_p is None or self.teacher_log_p is None:
            return None
        difference = self.student_log_p - self.teacher_log_p
        return difference if self.author == STUDENT else -difference


@dataclass(frozen=True)
class Divergence:
    """What ``--teacher-model`` finds.

    Args:
        per_prompt: Name of a figure to one number per prompt, means over its samples; None where there is none.
        about: The teacher, and how many texts were read, cut and left out.
    """

    per_prompt: dict[str, list[float | None]]
    about: dict[str, Any]


def read_scores(path: Path) -> list[Score]:
    """The whole lines of ``divergence.jsonl``; none if it does not exist.

    Raises:
        GadDataError: If a line is none of its.
    """
    scores = []
    for number, _, line in read_json_lines(path):
        try:
            scores.append(Score(**(line or {})))
        except TypeError:
            raise GadDataError(f"{path}, line {number}: no line of gad-verl evaluate; remove the file") from None
    return scores


def summarize_scores(scores: Sequence[Score], prompts: int, settings: Mapping[str, Any]) -> Divergence:
    """The figures of each prompt: means over its samples.

    Args:
        scores: Of all texts.
        prompts: Number of prompts.
        settings: What is said of the teacher (:attr:`gad_verl.tools.evaluation.open_teacher.OpenTeacher.settings`).
    """
    exact = settings["exact"]
    names = EXACT if exact else PER_TEXT
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for score in scores:
        value = score.kl if exact else score.log_ratio
        if value is not None:
            values[score.author, score.prompt].append(value)
    columns = {name: [_mean(values[author, number]) for number in range(prompts)] for author, name in names.items()}
    counts = {
        f"{author}_{what}": sum(score.author == author and bool(counted(score)) for score in scores)
        for author in EXACT
        for what, counted in (
            ("texts", lambda score: True),
            ("cut", lambda score: not score.finished),
            ("left_out", lambda score: score.student_log_p is None),
        )
    }
    return Divergence(columns, {**settings, **counts})


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
