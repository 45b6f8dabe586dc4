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
"""Compare checkpoints of the student with the teacher on the held-out prompts.

    python examples/quickstart/evaluate.py --val data/val.parquet --output evaluation \
        --checkpoints before=student after_warmup=run/warmup after_gad=run/gad

Each checkpoint (a Hugging Face folder) answers greedily, in float32. ``table.md`` and ``results.json`` then hold, with
95 % intervals over the prompts:

- the response length in tokens, and its ratio to the teacher's;
- ROUGE-L F1 against the teacher's text. It rewards copying words: a diagnostic, not the goal;
- two-sample accuracy: how often a classifier on words and pairs of words tells teacher from student on prompts that it
  has not seen. 0.5 means that it cannot;
- how many answers are finished within the limit, and how many open with the teacher's most frequent first two words.

Answers are kept in ``generations/`` as they come; an interrupted run goes on there, a finished one is not repeated.
Any other comparison, with a judge for example, is ``gad-verl evaluate`` and ``gad-verl compare``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gad_verl.core import intervals
from gad_verl.core.intervals import Estimate
from gad_verl.data.overlap import rouge_l
from gad_verl.errors import USER_ERRORS
from gad_verl.record.files import write_atomically
from gad_verl.tools.evaluation import two_sample
from gad_verl.tools.evaluation.generation import Compute, GenerationSettings, build_sequences, generate
from gad_verl.tools.evaluation.responses import Response
from gad_verl.tools.evaluation.rows import Row, load_rows
from gad_verl.tools.export.checkpoint import find_checkpoint, load_tokenizer

logger = logging.getLogger("quickstart.evaluate")

SEED = 0
EXAMPLES = 3
SHOWN_CHARACTERS = 400
MAX_PROMPT_TOKENS = 512


@dataclass(frozen=True)
class Generation:
    """One answer of a checkpoint."""

    text: str
    finished: bool


def opening(text: str) -> str:
    """The first two words, in lower case."""
    return " ".join(text.lower().split()[:2])


def summarize(
    rows: Sequence[Row], generations: Sequence[Generation], count_tokens: Callable[[str], int]
) -> dict[str, Estimate]:
    """All figures of one checkpoint."""
    texts, teacher = [generation.text for generation in generations], [row.teacher for row in rows]
    lengths, teacher_lengths = [count_tokens(text) for text in texts], [count_tokens(text) for text in teacher]
    rouge = [rouge_l(target, text) for target, text in zip(teacher, texts, strict=True)]
    common = Counter(map(opening, teacher)).most_common(1)[0][0]
    return {
        "length": intervals.mean(lengths),
        "length_ratio": intervals.ratio(lengths, teacher_lengths),
        "rouge_l": intervals.bounded_mean(rouge),
        "two_sample_accuracy": two_sample.accuracy(two_sample.ngram_accuracies(teacher, texts)),
        "finished": intervals.bounded_mean([generation.finished for generation in generations]),
        "opens_like_teacher": intervals.bounded_mean([opening(text) == common for text in texts]),
    }


def answer_all(
    name: str, folder: Path, rows: Sequence[Row], output: Path, max_new_tokens: int, batch_size: int
) -> list[Generation]:
    """The greedy answers of one checkpoint, from ``output/name`` as far as they are there."""
    checkpoint = find_checkpoint(folder)
    settings = GenerationSettings(max_prompt_length=MAX_PROMPT_TOKENS, max_response_length=max_new_tokens)
    compute = Compute(engine="hf", batch_size=batch_size)
    builder = build_sequences(checkpoint, settings)
    responses: list[Response] = generate(checkpoint, rows, output / name, settings, compute, builder, {})
    return [Generation(response.text.strip(), response.finished) for response in responses]


# -------------------------------------------------------------------------------------------------------------- report


def one_line(text: str) -> str:
    """A text for a cell of a table: one line, shortened, without what Markdown would read as markup."""
    text = " ".join(text.split())
    if len(text) > SHOWN_CHARACTERS:
        text = text[:SHOWN_CHARACTERS].rstrip() + " …"
    for mark in "\\|*_`<>#":
        text = text.replace(mark, "\\" + mark)
    return text


def render(
    rows: Sequence[Row],
    teacher_length: float,
    results: dict[str, dict[str, Estimate]],
    generations: dict[str, list[Generation]],
    max_new_tokens: int,
) -> str:
    """The report as Markdown: one table of figures, then the same few prompts answered by everyone."""
    lines = [
        f"{len(rows)} held-out prompts, greedy, at most {max_new_tokens} new tokens; in brackets 95 % intervals "
        "over the prompts.",
        "",
        "| | tokens | length ratio | ROUGE-L F1 | two-sample accuracy | finished | opens like the teacher |",
        "|---|---|---|---|---|---|---|",
        f"| teacher | {teacher_length:.1f} | 1 | 1 | 0.5 | | |",
    ]
    for name, figures in results.items():
        cells = [name.replace("_", " "), figures["length"].show(1), figures["length_ratio"].show()]
        cells += [figures["rouge_l"].show(3), figures["two_sample_accuracy"].show()]
        cells += [figures["finished"].show(), figures["opens_like_teacher"].show()]
        lines.append("| " + " | ".join(cells) + " |")
    chosen = sorted(np.random.default_rng(SEED).choice(len(rows), size=min(EXAMPLES, len(rows)), replace=False))
    for index in chosen:
        lines += ["", f"**{one_line(rows[index].question)}**", "", "| | answer |", "|---|---|"]
        lines.append(f"| teacher | {one_line(rows[index].teacher)} |")
        for name, answers in generations.items():
            cut = "" if answers[index].finished else " *(cut)*"
            lines.append(f"| {name.replace('_', ' ')} | {one_line(answers[index].text)}{cut} |")
    return "\n".join(lines) + "\n"


def parse_checkpoint(text: str) -> tuple[str, Path]:
    """``name=folder`` of the command line."""
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=folder")
    return name, Path(folder)


def evaluate(
    checkpoints: dict[str, Path], val: Path, output: Path, max_new_tokens: int = 96, batch_size: int = 32
) -> str:
    """Generate, summarize, and write ``table.md`` and ``results.json`` into ``output``.

    Returns:
        The content of ``table.md``.
    """
    for folder in checkpoints.values():
        find_checkpoint(folder)  # before the first of them is asked
    rows = load_rows(val)
    generations = {
        name: answer_all(name, folder, rows, output / "generations", max_new_tokens, batch_size)
        for name, folder in checkpoints.items()
    }
    tokenizer = load_tokenizer(next(iter(checkpoints.values())))

    def count_tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    results = {name: summarize(rows, answers, count_tokens) for name, answers in generations.items()}
    teacher_length = float(np.mean([count_tokens(row.teacher) for row in rows]))
    table = render(rows, teacher_length, results, generations, max_new_tokens)
    record = {
        "prompts": len(rows),
        "max_new_tokens": max_new_tokens,
        "teacher_length": teacher_length,
        "checkpoints": {
            name: {key: asdict(estimate) for key, estimate in figures.items()} for name, figures in results.items()
        },
    }
    write_atomically(output / "table.md", table)
    write_atomically(output / "results.json", json.dumps(record, indent=2) + "\n")
    return table


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare checkpoints of the student with the teacher.")
    parser.add_argument("--checkpoints", type=parse_checkpoint, nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--val", type=Path, required=True, help="parquet of the held-out prompts")
    parser.add_argument("--output", type=Path, required=True, help="folder of the report and of the answers")
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    try:
        table = evaluate(dict(args.checkpoints), args.val, args.output, args.max_new_tokens, args.batch_size)
    except USER_ERRORS as error:
        logger.error("error: %s", error)
        return 1
    logger.info("%s", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
