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
95 % bootstrap intervals over the prompts:

- the response length in tokens, and its ratio to the teacher's;
- ROUGE-L F1 against the teacher's text. It rewards copying words: a diagnostic, not the goal;
- two-sample accuracy: how often a classifier on words and pairs of words tells teacher from student on prompts that it
  has not seen. 0.5 means that it cannot;
- how many answers are finished within the limit, and how many open with the teacher's most frequent first two words.

Answers are kept in ``generations/`` as they come; an interrupted run goes on there, a finished one is not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger("quickstart.evaluate")

RESAMPLES = 2000
SPLITS = 20
SEED = 0
EXAMPLES = 3
SHOWN_CHARACTERS = 400


class EvaluationError(RuntimeError):
    """The evaluation cannot run; the message says what to do."""


@dataclass(frozen=True)
class Row:
    """One held-out prompt with the teacher's answer."""

    messages: list[dict[str, str]]
    teacher: str

    @property
    def question(self) -> str:
        """The last turn of the user."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Generation:
    """One answer of a checkpoint."""

    text: str
    finished: bool


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def show(self, digits: int = 2) -> str:
        """The figure and its interval as text."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


# ---------------------------------------------------------------------------------------------------------- statistics


def bootstrap(
    columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], resamples: int = RESAMPLES, seed: int = SEED
) -> Estimate:
    """Percentile bootstrap over the rows (the prompts).

    Args:
        columns: Shape ``(prompts, k)``: k numbers per prompt, which are drawn together.
        statistic: Maps the means of the columns, shape ``(..., k)``, to the figure, shape ``(...)``.
        resamples: Number of draws.
        seed: Seed of the draws.
    """
    count = len(columns)
    # How often each prompt is drawn: the same as gathering rows, in one product of matrices.
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    low, high = np.quantile(statistic(draws @ columns / count), [0.025, 0.975])
    return Estimate(float(statistic(columns.mean(axis=0))), float(low), float(high))


def bootstrap_mean(values: Sequence[float]) -> Estimate:
    """Mean with its interval."""
    return bootstrap(np.asarray(values, dtype=float)[:, None], lambda means: means[..., 0])


def bootstrap_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Estimate:
    """Ratio of two means over the same prompts, with its interval."""
    columns = np.stack([np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)], axis=1)
    return bootstrap(columns, lambda means: means[..., 0] / means[..., 1])


def two_sample_accuracies(
    teacher: Sequence[str], student: Sequence[str], splits: int = SPLITS, seed: int = SEED
) -> np.ndarray:
    """Per prompt, how often a classifier that has not seen the prompt names the author of its two texts correctly.

    A logistic regression on counts of words, punctuation marks and pairs of them learns from one half of the prompts
    (both texts of each) and is tested on the other half, then the halves change places; this is done for several
    random halves. The same text on both sides gives exactly one half.

    Returns:
        Shape ``(prompts,)``, each between 0 and 1.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    teacher_texts, student_texts = np.asarray(teacher, dtype=object), np.asarray(student, dtype=object)
    rng = np.random.default_rng(seed)
    correct = np.zeros(len(teacher_texts))
    for _ in range(splits):
        halves = np.array_split(rng.permutation(len(teacher_texts)), 2)
        for seen, unseen in (halves, halves[::-1]):
            classifier = make_pipeline(
                CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]"), LogisticRegression(max_iter=1000)
            )
            labels = np.repeat([1, 0], len(seen))
            classifier.fit(np.concatenate([teacher_texts[seen], student_texts[seen]]), labels)
            correct[unseen] += classifier.predict(teacher_texts[unseen]) == 1
            correct[unseen] += classifier.predict(student_texts[unseen]) == 0
    return correct / (2 * splits)


def opening(text: str) -> str:
    """The first two words, in lower case."""
    return " ".join(text.lower().split()[:2])


def summarize(
    rows: Sequence[Row], generations: Sequence[Generation], count_tokens: Callable[[str], int]
) -> dict[str, Estimate]:
    """All figures of one checkpoint."""
    from rouge_score.rouge_scorer import RougeScorer

    texts, teacher = [generation.text for generation in generations], [row.teacher for row in rows]
    lengths, teacher_lengths = [count_tokens(text) for text in texts], [count_tokens(text) for text in teacher]
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score(target, text)["rougeL"].fmeasure for target, text in zip(teacher, texts, strict=True)]
    common = Counter(map(opening, teacher)).most_common(1)[0][0]
    return {
        "length": bootstrap_mean(lengths),
        "length_ratio": bootstrap_ratio(lengths, teacher_lengths),
        "rouge_l": bootstrap_mean(rouge),
        "two_sample_accuracy": bootstrap_mean(two_sample_accuracies(teacher, texts)),
        "finished": bootstrap_mean([generation.finished for generation in generations]),
        "opens_like_teacher": bootstrap_mean([opening(text) == common for text in texts]),
    }


# ---------------------------------------------------------------------------------------------------------- generation


def read_rows(path: Path) -> list[Row]:
    """The held-out rows of a parquet file in the schema of GAD; of several teacher texts the first counts."""
    import pyarrow.parquet as pq

    rows = []
    for record in pq.read_table(path, columns=["prompt", "teacher_response"]).to_pylist():
        text = record["teacher_response"]
        rows.append(Row(record["prompt"], text if isinstance(text, str) else text[0]))
    return rows


def fingerprint(folder: Path, rows: Sequence[Row], max_new_tokens: int) -> str:
    """Changes with the weights, the tokenizer, the prompts and the limit: with all that decides a greedy answer."""
    digest = hashlib.sha256(json.dumps([[row.messages for row in rows], max_new_tokens]).encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in {".json", ".jinja", ".safetensors"}:
            digest.update(path.name.encode())
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
    return digest.hexdigest()[:16]


def read_generations(path: Path) -> list[Generation]:
    """What an earlier run left; a line torn by an interruption is cut off."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with open(path, "r+b") as file:
            file.truncate(whole)
    return [Generation(**json.loads(line)) for line in content[:whole].splitlines()]


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint, padding on the left, with a padding token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def generate(
    name: str, folder: Path, rows: Sequence[Row], cache: Path, max_new_tokens: int, batch_size: int
) -> list[Generation]:
    """The greedy answers of one checkpoint, from the cache as far as they are there."""
    import torch
    from tqdm import tqdm
    from transformers import AutoModelForCausalLM, GenerationConfig

    path = cache / f"{name}-{fingerprint(folder, rows, max_new_tokens)}.jsonl"
    generations = read_generations(path)
    if len(generations) == len(rows):
        return generations

    cache.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config = GenerationConfig(  # the folder's own settings may ask for sampling
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with open(path, "a", encoding="utf-8") as file:
        with tqdm(total=len(rows), initial=len(generations), desc=name, unit="answer") as bar:
            for start in range(len(generations), len(rows), batch_size):
                chats = [
                    tokenizer.apply_chat_template(row.messages, tokenize=False, add_generation_prompt=True)
                    for row in rows[start : start + batch_size]
                ]
                inputs = tokenizer(chats, return_tensors="pt", padding=True, add_special_tokens=False)
                with torch.inference_mode():
                    output = model.generate(**inputs)
                for ids in output[:, inputs["input_ids"].shape[1] :].tolist():
                    finished = tokenizer.eos_token_id in ids
                    ids = ids[: ids.index(tokenizer.eos_token_id)] if finished else ids
                    generation = Generation(tokenizer.decode(ids, skip_special_tokens=True).strip(), finished)
                    file.write(json.dumps(asdict(generation), ensure_ascii=False) + "\n")
                    generations.append(generation)
                file.flush()
                bar.update(len(chats))
    return generations


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
        f"{len(rows)} held-out prompts, greedy, at most {max_new_tokens} new tokens; in brackets 95 % bootstrap "
        "intervals over the prompts.",
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


def write_text(path: Path, content: str) -> None:
    """Write under a temporary name, then rename."""
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(content, encoding="utf-8")
    os.replace(scratch, path)


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
    for name, folder in checkpoints.items():
        if not (folder / "config.json").exists():
            raise EvaluationError(f"{name}: {folder} is no Hugging Face folder (it has no config.json)")
    rows = read_rows(val)
    generations = {
        name: generate(name, folder, rows, output / "generations", max_new_tokens, batch_size)
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
    write_text(output / "table.md", table)
    write_text(output / "results.json", json.dumps(record, indent=2) + "\n")
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
    except EvaluationError as error:
        logger.error("error: %s", error)
        return 1
    logger.info("%s", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
