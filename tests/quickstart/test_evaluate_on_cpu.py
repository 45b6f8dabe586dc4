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
"""The evaluation: intervals, the two-sample test, and generation with a random model that is cut short and goes on."""

import json
from pathlib import Path

import evaluate
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluate import Estimate, EvaluationError, Generation, Row

WORDS = "green blue red small large old new fast slow warm cold wet dry high low near far soft hard round".split()


def texts(words: list[str], count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, size=8)) for _ in range(count)]


def test_interval_of_a_mean_has_the_closed_form() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, size=400)
    estimate = evaluate.bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_of_a_ratio_has_the_closed_form() -> None:
    rng = np.random.default_rng(4)
    below = rng.normal(10.0, 1.0, size=500)
    above = 2 * below + rng.normal(0.0, 1.0, size=500)
    estimate = evaluate.bootstrap_ratio(above, below)
    ratio = above.mean() / below.mean()
    half = 1.96 * (above - ratio * below).std() / np.sqrt(500) / below.mean()  # delta method
    assert estimate.value == pytest.approx(ratio)
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.1)


def test_interval_is_deterministic_and_collapses_without_spread() -> None:
    values = [0.0, 1.0, 1.0, 0.5]
    assert evaluate.bootstrap_mean(values) == evaluate.bootstrap_mean(values)
    assert evaluate.bootstrap_mean([1.0] * 10) == Estimate(1.0, 1.0, 1.0)


def test_the_same_texts_cannot_be_told_apart() -> None:
    same = texts(WORDS, 64, seed=0)
    assert evaluate.two_sample_accuracies(same, same, splits=3) == pytest.approx(np.full(64, 0.5))


def test_texts_of_one_source_can_hardly_be_told_apart() -> None:
    accuracy = evaluate.two_sample_accuracies(texts(WORDS, 200, seed=1), texts(WORDS, 200, seed=2), splits=5).mean()
    assert accuracy == pytest.approx(0.5, abs=0.06)


def test_disjoint_vocabularies_are_told_apart() -> None:
    accuracy = evaluate.two_sample_accuracies(texts(WORDS[:10], 64, 1), texts(WORDS[10:], 64, 2), splits=3).mean()
    assert accuracy > 0.99


def test_the_classifier_never_sees_the_tested_prompt() -> None:
    """Both texts of a prompt share a word that no other prompt has: knowing it would help, and must not."""
    teacher = [f"alpha{index}" for index in range(40)]
    student = [f"beta{index}" for index in range(40)]
    assert evaluate.two_sample_accuracies(teacher, student, splits=3).mean() == pytest.approx(0.5, abs=0.01)


def test_summary_of_a_perfect_student() -> None:
    rows = [Row([{"role": "user", "content": "?"}], text) for text in texts(WORDS, 20, seed=5)]
    figures = evaluate.summarize(rows, [Generation(row.teacher, True) for row in rows], lambda text: len(text.split()))
    for name in ("length_ratio", "rouge_l", "finished"):
        assert figures[name] == Estimate(1.0, 1.0, 1.0)
    assert figures["two_sample_accuracy"].value == pytest.approx(0.5)
    assert figures["length"].value == 8


def test_report_shows_everyone_and_escapes_markup() -> None:
    rows = [Row([{"role": "user", "content": f"Question {index}?"}], "one | two") for index in range(5)]
    generations = {"before": [Generation("**long** " * 100, False)] * 5, "after_gad": [Generation("one", True)] * 5}
    figures = {name: evaluate.summarize(rows, answers, len) for name, answers in generations.items()}
    table = evaluate.render(rows, 9.0, figures, generations, 96)
    assert table.count("| after gad |") == 1 + evaluate.EXAMPLES
    assert "one \\| two" in table and "\\*\\*long" in table and "*(cut)*" in table
    assert table == evaluate.render(rows, 9.0, figures, generations, 96)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 30,000 parameters with the tokenizer of the quickstart on single bytes."""
    import torch
    from student import build_tokenizer
    from tokenizers import pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("checkpoint")
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    template = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>"
    build_tokenizer(tokens, [], [0, 1, 2], template).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def val(tmp_path: Path) -> Path:
    rows = [
        {"prompt": [{"role": "user", "content": text}], "teacher_response": text.upper()} for text in texts(WORDS, 9, 7)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "val.parquet")
    return tmp_path / "val.parquet"


def test_evaluation_from_folder_to_table(checkpoint: Path, val: Path, tmp_path: Path) -> None:
    output = tmp_path / "evaluation"
    command = ["--checkpoints", f"before={checkpoint}", "--val", str(val), "--output", str(output)]
    assert evaluate.main([*command, "--max-new-tokens", "6", "--batch-size", "4"]) == 0
    results = json.loads((output / "results.json").read_text())
    assert results["prompts"] == 9
    figures = results["checkpoints"]["before"]
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in figures.values())
    assert "| before |" in (output / "table.md").read_text()


def test_generation_goes_on_after_an_interruption(
    checkpoint: Path, val: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, cache = evaluate.read_rows(val), tmp_path / "generations"
    whole = evaluate.generate("model", checkpoint, rows, cache, max_new_tokens=6, batch_size=4)
    (path,) = cache.iterdir()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:9])
    assert evaluate.generate("model", checkpoint, rows, cache, max_new_tokens=6, batch_size=4) == whole
    assert len(path.read_text().splitlines()) == 9

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *args, **kwargs: pytest.fail())
    assert evaluate.generate("model", checkpoint, rows, cache, max_new_tokens=6, batch_size=4) == whole


def test_padding_does_not_change_the_answers(checkpoint: Path, val: Path, tmp_path: Path) -> None:
    rows = evaluate.read_rows(val)
    batched = evaluate.generate("batched", checkpoint, rows, tmp_path / "cache", max_new_tokens=6, batch_size=9)
    single = evaluate.generate("single", checkpoint, rows, tmp_path / "cache", max_new_tokens=6, batch_size=1)
    assert batched == single


def test_a_missing_checkpoint_is_named(val: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="after_gad: .* has no config.json"):
        evaluate.evaluate({"after_gad": tmp_path}, val, tmp_path / "evaluation")
