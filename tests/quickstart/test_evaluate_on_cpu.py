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
from evaluate import Generation, Row

from gad_verl.errors import GadCheckpointError

WORDS = "green blue red small large old new fast slow warm cold wet dry high low near far soft hard round".split()


def texts(words: list[str], count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, size=8)) for _ in range(count)]


def test_summary_of_a_perfect_student() -> None:
    rows = [Row(({"role": "user", "content": "?"},), text) for text in texts(WORDS, 20, seed=5)]
    figures = evaluate.summarize(rows, [Generation(row.teacher, True) for row in rows], lambda text: len(text.split()))
    for name in ("length_ratio", "rouge_l", "finished"):
        assert figures[name].value == figures[name].high == 1 and figures[name].low > 0.8
    assert figures["two_sample_accuracy"].value == pytest.approx(0.5)
    assert figures["length"].value == 8


def test_report_shows_everyone_and_escapes_markup() -> None:
    rows = [Row(({"role": "user", "content": f"Question {index}?"},), "one | two") for index in range(5)]
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
    rows, cache = evaluate.load_rows(val), tmp_path / "generations"
    whole = evaluate.answer_all("model", checkpoint, rows, cache, max_new_tokens=6, batch_size=4)
    path = cache / "model" / "responses.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:9])
    assert evaluate.answer_all("model", checkpoint, rows, cache, max_new_tokens=6, batch_size=4) == whole
    assert len(path.read_text().splitlines()) == 9

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *args, **kwargs: pytest.fail())
    assert evaluate.answer_all("model", checkpoint, rows, cache, max_new_tokens=6, batch_size=4) == whole


def test_padding_does_not_change_the_answers(checkpoint: Path, val: Path, tmp_path: Path) -> None:
    rows = evaluate.load_rows(val)
    batched = evaluate.answer_all("batched", checkpoint, rows, tmp_path / "cache", max_new_tokens=6, batch_size=9)
    single = evaluate.answer_all("single", checkpoint, rows, tmp_path / "cache", max_new_tokens=6, batch_size=1)
    assert batched == single


def test_a_missing_checkpoint_is_named(checkpoint: Path, val: Path, tmp_path: Path) -> None:
    folders = {"before": checkpoint, "after_gad": tmp_path / "nothing"}
    with pytest.raises(GadCheckpointError, match="nothing: no such checkpoint"):
        evaluate.evaluate(folders, val, tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()
    arguments = ["--checkpoints", f"a={tmp_path}", "--val", str(val), "--output", str(tmp_path / "evaluation")]
    assert evaluate.main(arguments) == 1
