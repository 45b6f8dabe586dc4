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
"""What the runs of study 4 share: the rows of a teacher that are short enough, and how a student is judged."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from study_common import Column, Row, arguments, table
from torch import Tensor, nn

# isort: split
from gad_command import load_models
from token_rows import token_log_probs

from gad_verl.core import intervals
from gad_verl.core.intervals import Estimate
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.record.files import read_json_lines, write_atomically
from gad_verl.tools.evaluation.figures import measure
from gad_verl.tools.evaluation.generation import Compute, GenerationSettings, build_sequences, generate
from gad_verl.tools.evaluation.rows import Row as TeacherRow
from gad_verl.tools.evaluation.rows import load_rows
from gad_verl.tools.export.checkpoint import find_checkpoint

FIRST_SEED = 100
ALONE = 2  # first steps of the warmup that train D alone
BASE, WARMED, SEQKD, GAD = "base", "warmup", "SeqKD", "GAD"
MAX_PROMPT, MAX_RESPONSE, TEST_PROMPTS, LAYERS_OF_D, TEMPERATURE = 80, 48, 96, 6, 0.8
# What a row keeps of each prompt, and of each step, with what it is at best.
BY_PROMPT = ("rouge_l", "ngram_f1_2", "length", "finished")
SERIES = {"disc/accuracy": 0.5, "gad/length_ratio": 1.0}


def study_arguments(description: str | None, name: str, seeds: int) -> argparse.ArgumentParser:
    """The options that the study has on both trainers."""
    parser = arguments(description, name, seeds)
    parser.add_argument("--data", type=Path, required=True, help="teacher rows (gad-verl data import)")
    parser.add_argument("--work", type=Path, required=True, help="folder of weights, states, logs and texts")
    parser.add_argument("--student", type=Path, help="folder of a student (default: SmolLM2-135M-Instruct is made)")
    parser.add_argument("--warmup", type=int, default=40, help="steps of the warmup (default: 40)")
    parser.add_argument("--steps", type=int, default=40, help="steps after it, of each arm (default: 40)")
    return parser


def check_steps(warmup: int, steps: int) -> None:
    """Check the options of that name.

    Raises:
        GadConfigError: If a stage would be empty.
    """
    if warmup <= ALONE or steps < 1:
        raise GadConfigError(f"--warmup must be above {ALONE}, where the discriminator is alone; --steps at least 1")


class SmolLab:
    """Rows, and the judge of students.

    Args:
        data: Teacher rows, from ``gad-verl data import``.
        work: Folder of weights, states and texts.
        student: Folder of the student.
        batch_size: Prompts of a step; four of them at least are needed.

    Raises:
        GadDataError: If too few rows are short enough.
    """

    def __init__(self, data: Path, work: Path, student: Path, batch_size: int) -> None:
        self.work, self.student = work, student
        self.asked = GenerationSettings(
            max_prompt_length=MAX_PROMPT, max_response_length=MAX_RESPONSE, temperature=TEMPERATURE
        )
        self.builder = build_sequences(find_checkpoint(student), self.asked)
        rows = [row for row in load_rows(data) if short(row, self.builder)]
        if len(rows) < TEST_PROMPTS + 4 * batch_size:
            raise GadDataError(
                f"{data}: {len(rows)} rows have a prompt of at most {MAX_PROMPT} and a teacher's text of at most "
                f"{MAX_RESPONSE} tokens; the study needs {TEST_PROMPTS + 4 * batch_size}"
            )
        order = np.random.default_rng(0).permutation(len(rows))
        self.test = [rows[number] for number in order[:TEST_PROMPTS]]
        asked = {row.prompt_id for row in self.test}
        # Their places in the order stay, since they seed the runs in one file.
        self.numbered = {
            number: rows[number] for number in map(int, order[TEST_PROMPTS:]) if rows[number].prompt_id not in asked
        }

    def judge(self, model: Path, answers: str, seed: int) -> dict[str, Any]:
        """Figures of the student in ``model`` on the test prompts.

        Args:
            model: Its folder.
            answers: Name of the folder of its texts, in the work folder.
            seed: Of sampling.
        """
        output = self.work / "answers" / answers
        responses = generate(
            find_checkpoint(model),
            self.test,
            output,
            replace(self.asked, seed=seed),
            Compute(engine="hf", batch_size=32),
            self.builder,
            {},
        )
        figures = measure(self.test, responses, self.builder)
        row: dict[str, Any] = {name: estimate.value for name, estimate in figures.summary.items()}
        row |= {name: value for name, value in figures.plain.items() if value is not None}
        losses = likelihoods(load_models(str(model), 1, 0)[0], self.test, self.builder)
        row["loss"] = float(sum(losses) / sum(len(self.builder.response(one.teacher).token_ids) for one in self.test))
        row["by_prompt"] = {name: figures.per_prompt[name] for name in BY_PROMPT}
        return row

    def samples(self, path: Path, answers: Mapping[str, str]) -> None:
        """The same prompts answered by everyone, for reading.

        Args:
            path: File to write.
            answers: Folder of each one's texts, as in :meth:`judge`.
        """
        texts = {}
        for arm, name in answers.items():
            lines = read_json_lines(self.work / "answers" / name / "responses.jsonl")
            texts[arm] = {answer["prompt"]: answer["text"] for _, _, answer in lines if answer is not None}
        parts = []
        for number, row in enumerate(self.test[:12]):
            parts.append(f"## {row.question}\n\nteacher: {row.teacher}\n")
            parts += [f"{arm}: {texts[arm].get(number, '')}\n" for arm in texts]
        write_atomically(path, "\n".join(parts))


def of_metrics(steps: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What a row keeps of the metrics of the steps."""
    return {
        "train_s": sum(step["timing_s/step"] for step in steps),
        "series": {name: [step.get(name) for step in steps] for name in SERIES if name in steps[-1]},
    }


def short(row: TeacherRow, builder: SequenceBuilder) -> bool:
    """Whether prompt and teacher's text fit the limits whole."""
    return (
        len(builder.prompt(list(row.messages))) < MAX_PROMPT
        and not builder.response(row.teacher, row.teacher_finished).cut
    )


@torch.no_grad()
def likelihoods(student: nn.Module, rows: Sequence[TeacherRow], builder: SequenceBuilder, batch: int = 16) -> Tensor:
    """Negative log-likelihood of the teacher's text in each row, in nats."""
    totals = torch.zeros(len(rows), dtype=torch.float64)
    for begin in range(0, len(rows), batch):
        part = rows[begin : begin + batch]
        prompts = [builder.prompt(list(row.messages)) for row in part]
        texts = [builder.response(row.teacher).token_ids for row in part]
        log_probs, _, place = token_log_probs(student, prompts, texts, temperature=1.0)
        totals.index_add_(0, begin + place, -log_probs.double())
    return totals


# ------------------------------------------------------ tables ------------------------------------------------------

COLUMNS = [
    Column("two-sample accuracy, words", "two_sample_words"),
    Column("characters", "two_sample_characters"),
    Column("ROUGE-L F1", "rouge_l", 3),
    Column("2-gram F1", "ngram_f1_2", 3),
    Column("length ratio", "length_ratio"),
    Column("finished, %", "finished", 0, 100),
    Column("distinct-2", "distinct_2"),
    Column("loss on the teacher's texts", "loss", 3),
]
DIFFERENCES = [
    Column("ROUGE-L F1", "rouge_l", 3),
    Column("2-gram F1", "ngram_f1_2", 3),
    Column("tokens", "length", 1),
    Column("finished, points", "finished", 1, 100),
]


def difference(rows: Sequence[Row], first: str, second: str, column: str) -> Estimate | None:
    """Second less first, paired by prompt and seed: the mean over the seeds, with an interval over the prompts."""
    by_seed: dict[int, dict[str, Any]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], {})[row["arm"]] = row["by_prompt"][column]
    both = [np.subtract(arms[second], arms[first]) for arms in by_seed.values() if {first, second} <= arms.keys()]
    return intervals.difference(np.zeros(len(both[0])), np.mean(both, axis=0)) if both else None


def shown(estimate: Estimate, column: Column) -> str:
    """A difference with its sign and interval."""
    parts = [f"{column.scale * part:+.{column.digits}f}" for part in (estimate.value, estimate.low, estimate.high)]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]"


def arms_table(rows: Sequence[Row], arms: Sequence[str]) -> str:
    """All arms, with a figure for each of their seeds."""
    lines = []
    for arm in arms:
        mine = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])
        cells = [[f"{column.scale * row[column.key]:.{column.digits}f}" for row in mine] for column in COLUMNS]
        lines.append([arm, *(" / ".join(cell) or "–" for cell in cells)])
    return table(["arm", *(column.title for column in COLUMNS)], lines)


def differences_table(
    rows: Sequence[Row], pairs: Sequence[tuple[str, str]], columns: Sequence[Column] = DIFFERENCES
) -> str:
    """What distinguishes two arms, for each pair: the second less the first."""
    lines = []
    for column in columns:
        found = [difference(rows, *pair, column.key) for pair in pairs]
        lines.append([column.title, *("–" if one is None else shown(one, column) for one in found)])
    return table(["held-out prompts", *(f"{second} less {first}" for first, second in pairs)], lines)
