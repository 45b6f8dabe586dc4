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
"""What the runs of ``teacher_language.py`` share: the requests, the teacher's texts, and how a student is judged."""

import functools
import hashlib
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from study_common import STUDIES

# isort: split
sys.path.insert(0, str(STUDIES.parent / "quickstart"))
from lm_lab import Dice, Lab, Loop, Sizes, Texts, validation_loss
from lm_model import Ids, sample
from prompts import load_subjects
from teacher import SYSTEM_PROMPT, examples
from teacher_model import Teacher, divergences

from gad_verl.record.files import write_atomically

SAMPLES = 2  # answers of each to a test prompt
SPLIT_SEED, JUDGE_SEED = 540, 10_000
CONTEXT = ({"role": "system", "content": SYSTEM_PROMPT}, *examples())
SIZES = Sizes(
    train=400,
    validation=40,
    test=150,
    start=80,
    every=20,
    passes=2,
    steps=30,
    equal_time=240,
    checkpoints=2,
    limit=40,
)


@dataclass(frozen=True)
class Asked:
    """A request of the quickstart.

    Args:
        subject: What it is about, with its kind.
        text: The user's message.
    """

    subject: str
    text: str


@dataclass(frozen=True)
class Splits:
    """Requests of every seed; no subject stands in two of them."""

    train: Sequence[Asked]
    validation: Sequence[Asked]
    test: Sequence[Asked]


def make_splits(train: int, validation: int, test: int) -> Splits:
    """All kinds in turn. A held-out subject is asked about once; the others in so many wordings as ``train`` takes.

    Raises:
        ValueError: If there are not so many requests.
    """
    random_ = random.Random(SPLIT_SEED)
    subjects = load_subjects()
    kinds = {kind: [one for one in subjects if one.kind == kind] for kind in dict.fromkeys(s.kind for s in subjects)}
    for some in kinds.values():
        random_.shuffle(some)
    order = [subject for some in zip(*kinds.values(), strict=True) for subject in some]
    asked = []
    for number, one in enumerate(order):
        # The wordings take turns within a kind, and in each list.
        first = number // len(kinds) % len(one.texts)
        texts = (*one.texts[first:], *one.texts[:first])
        asked.append([Asked(f"{one.kind}: {one.name}", text) for text in texts])
    taught = asked[test + validation :]
    # "why" has three wordings, the others four.
    rounds = [some[number] for number in range(3) for some in taught]
    if train > len(rounds):
        raise ValueError(f"{train} training requests: there are {len(rounds)} that nothing held out is asked in")
    held_out = [some[0] for some in asked[: test + validation]]
    return Splits(rounds[:train], held_out[test:], held_out[:test])


class TaughtTexts(Texts):
    """The teacher's texts of a seed.

    Args:
        lab: Has splits and tokenizers.
        seed: Of the texts.
        answers: Of the teacher, in its own tokens, to each request of training, validation and test.
    """

    def __init__(self, lab: "TeacherLab", seed: int, answers: Sequence[Sequence[Ids]]) -> None:
        splits, self.seed = lab.splits, seed
        pairs = [
            (lab.prompt(one.text), lab.as_student(some[0]))
            for one, some in zip((*splits.train, *splits.validation), answers, strict=False)
        ]
        count = len(splits.train)
        super().__init__(lab, pairs[:count], pairs[count:], [one.subject for one in splits.train])
        self.test_prompts = [lab.prompt(one.text) for one in splits.test]
        self.test_answers = answers[len(pairs) :]


class TeacherLab(Lab):
    """The harness of ``lm_language.py`` with a teacher to be asked.

    Args:
        student: Folder of the model.
        teacher: Folder of the teacher; None takes the student's own model.
        name: Of the teacher, in rows.
        work, sizes, more: See :class:`lm_lab.Lab`.
        context: What the teacher alone is told.
    """

    # Of 210 subjects; an eighth by the hash is 14 of them, with which D is never trusted (gad.trust.least_prompts).
    held_out_share = 0.25

    def __init__(
        self,
        student: Path,
        teacher: Path | None,
        name: str,
        work: Path,
        sizes: Sizes = SIZES,
        *more: Any,
        context: Sequence[dict[str, str]] = CONTEXT,
    ) -> None:
        self.teacher_folder, self.name, self.context = teacher or student, name, context
        super().__init__(student, work, sizes, *more)
        self.splits = make_splits(sizes.train, sizes.validation, sizes.test)

    def settings(self) -> dict[str, Any]:
        """With the teacher and its context."""
        digest = hashlib.sha256(json.dumps(self.context).encode()).hexdigest()[:16]
        return {**super().settings(), "teacher": self.name, "context": digest, "held_out": self.held_out_share}

    @functools.cached_property
    def teacher(self) -> Teacher:
        """Loaded once for all runs."""
        asked = [one.text for part in (self.splits.train, self.splits.validation, self.splits.test) for one in part]
        return Teacher(self.teacher_folder, self.builder, self.context, asked, self.sizes.limit, self.dtype)

    def as_student(self, ids: Ids) -> list[int]:
        """A text of the teacher in the student's tokens, cut at the limit; a token stands for one without any."""
        text, finished = self.teacher.builder.student_text(ids)
        return self.builder.response(text, finished).token_ids or [self.end]

    def corpus(self, seed: int) -> TaughtTexts:
        """The teacher's texts; they are sampled once."""
        return TaughtTexts(self, seed, teacher_texts(self, seed))

    def judge(self, student: Any, corpus: TaughtTexts, temperature: float = 1.0) -> dict[str, Any]:
        """Both divergences, lengths, and how many answers have an end; by prompt, and with the likelihood, which is
        that of temperature 1 always."""
        view, dice = self.teacher.student(student, temperature), Dice(JUDGE_SEED + corpus.seed)
        prompts, limit = corpus.test_prompts, self.sizes.limit
        own = [
            some
            for begin in range(0, len(prompts), 50)
            for some in sample(view, prompts[begin : begin + 50], SAMPLES, limit, self.end, dice.generator)
        ]
        asked = prompts, self.teacher.prompts([one.text for one in self.splits.test])
        kl_student, kl_teacher = divergences(self.teacher, view, self.builder, asked, (own, corpus.test_answers))
        by_prompt = {
            "kl_student_teacher": kl_student.tolist(),
            "kl_teacher_student": kl_teacher.tolist(),
            "length": [float(np.mean([len(ids) for ids in some])) for some in own],
            "finished": [float(np.mean([ids[-1] == self.end for ids in some])) for some in own],
        }
        texts = [ids for some in corpus.test_answers for ids in some]
        return {
            "validation_loss": validation_loss(student, corpus),
            **{name: float(np.mean(values)) for name, values in by_prompt.items()},
            "teacher_length": float(np.mean([len(self.as_student(ids)) for ids in texts])),
            "teacher_finished": float(np.mean([ids[-1] == self.teacher.end for ids in texts])),
            "exact": self.teacher.exact,
            "by_prompt": {name: [round(value, 3) for value in values] for name, values in by_prompt.items()},
        }


def teacher_texts(lab: TeacherLab, seed: int, batch: int = 16) -> list[list[list[int]]]:
    """One text to each request of training and validation, :data:`SAMPLES` to each of the test, as token ids of the
    teacher; they stay in the work folder, and an interruption costs some minutes of sampling.

    Raises:
        Paused: After the deadline of the lab.
    """
    path, splits = lab.of_seed(seed, "texts.jsonl"), lab.splits
    if not path.is_file():
        teacher, dice = lab.teacher, Dice(seed)
        taught, test = [one.text for one in (*splits.train, *splits.validation)], [one.text for one in splits.test]
        parts = [
            (some[begin : begin + batch], count)
            for some, count in ((taught, 1), (test, SAMPLES))
            for begin in range(0, len(some), batch)
        ]
        loop = Loop(lab, lab.of_seed(seed, "texts-state.pt"), {"dice": dice}, {"answers": []})

        def step(number: int) -> None:
            texts, count = parts[number - 1]
            asked = teacher.prompts(texts)
            loop.history["answers"] += sample(
                teacher.model, asked, count, lab.sizes.limit, teacher.end, dice.generator, teacher.prefix
            )

        loop.run(len(parts), step)
        rows = [
            {"prompt": text, "texts": [teacher.builder.student_text(ids)[0] for ids in some], "ids": some}
            for text, some in zip([*taught, *test], loop.history["answers"], strict=True)
        ]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
    return [json.loads(line)["ids"] for line in path.read_text(encoding="utf-8").splitlines()]
