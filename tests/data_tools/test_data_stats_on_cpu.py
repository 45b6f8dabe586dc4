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
"""``gad-verl data stats``: token counts as the training encodes them, and the share that the limits cut."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import build_model
from tiny_vlm import FAMILIES, build_vlm, picture

from gad_verl import cli
from gad_verl.data.images import with_images
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.tools.data.token_stats import COVERED, STEP, count_tokens, suggested_limit, summarize

LENGTHS = st.lists(st.integers(1, 5000), min_size=1, max_size=80).map(np.array)
# A text, and whether it was cut when it was written.
TEXTS = st.tuples(st.text("abcé ").map("x".__add__), st.booleans())


@pytest.fixture
def tokenizer_folder(tokenizer: Any, tmp_path: Path) -> Path:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def write(path: Path, prompts: list[str], texts: list[Any]) -> Path:
    rows = [
        {"prompt": [{"role": "user", "content": prompt}], "teacher_response": text}
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_counts_are_those_of_the_training(tokenizer: Any, tmp_path: Path) -> None:
    texts = ["short", "a longer text with é", "<|im_end|> spelt out"]
    path = write(tmp_path / "in.parquet", ["Q?", "Why is that?", "x"], texts)
    unlimited, limited = (SequenceBuilder(tokenizer, limit, limit) for limit in (10**6, 12))
    lengths = count_tokens(path, unlimited, "prompt", "teacher_response")
    # One token a byte, and the EOS.
    assert lengths.responses.tolist() == [len(text.encode()) + 1 for text in texts]
    cut = [limited.response(text).cut for text in texts]
    assert (lengths.responses > 12).tolist() == cut
    assert summarize(lengths.responses, 12)["cut_texts"] == sum(cut)
    assert lengths.prompts.tolist() == [
        len(unlimited.prompt([{"role": "user", "content": prompt}])) for prompt in ("Q?", "Why is that?", "x")
    ]


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=3), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_a_text_that_was_cut_has_no_end(
    tokenizer: Any, tmp_path_factory: pytest.TempPathFactory, rows: list[list[tuple[str, bool]]]
) -> None:
    path = tmp_path_factory.mktemp("stats") / "in.jsonl"
    lines = [
        {
            "prompt": [{"role": "user", "content": "Q?"}],
            "teacher_response": [text for text, _ in row],
            "extra_info": {"stopped_by_length": [cut for _, cut in row]},
        }
        for row in rows
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    lengths = count_tokens(path, SequenceBuilder(tokenizer, 10**6, 10**6), "prompt", "teacher_response")
    assert lengths.responses.tolist() == [len(text.encode()) + (not cut) for row in rows for text, cut in row]


def test_every_text_of_a_list_counts_and_a_limit_takes_rows_evenly(tokenizer: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", ["Q?"] * 10, [["a" * n, "b"] for n in range(1, 11)])
    builder = SequenceBuilder(tokenizer, 10**6, 10**6)
    lengths = count_tokens(path, builder, "prompt", "teacher_response", limit=5)
    assert len(lengths.prompts) == 5 and lengths.responses[::2].tolist() == [2, 4, 6, 8, 10]


@given(LENGTHS, st.integers(1, 5000))
@settings(max_examples=200, deadline=None)
def test_shares_are_counts(lengths: np.ndarray, limit: int) -> None:
    found = summarize(lengths, limit)
    over = [int(length) for length in lengths if length > limit]
    assert found["cut_texts"] == len(over) and found["cut_share"] == pytest.approx(len(over) / len(lengths))
    assert found["cut_tokens_share"] == pytest.approx(sum(length - limit for length in over) / int(lengths.sum()))
    quantiles = list(found["quantiles"].values())
    assert quantiles == sorted(quantiles) and quantiles[0] == lengths.min() and quantiles[-1] == lengths.max()


@given(LENGTHS)
@settings(max_examples=200, deadline=None)
def test_a_suggested_limit_is_the_smallest_that_covers(lengths: np.ndarray) -> None:
    limit = suggested_limit(lengths)
    assert limit % STEP == 0 and (lengths <= limit).mean() >= COVERED
    assert limit == STEP or (lengths <= limit - STEP).mean() < COVERED
    assert summarize(lengths, None)["suggested_limit_cuts"] <= 1 - COVERED + 1e-12


def test_the_command_reports_both_sides(
    tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "in.parquet", ["Q?"] * 10, ["x" * 9] * 7 + ["x" * 99] * 3)
    report = tmp_path / "report.json"
    command = ["data", "stats", str(path), "--tokenizer", str(tokenizer_folder), "--json", str(report)]
    assert cli.main([*command, "--max-prompt-length", "100", "--max-response-length", "50"]) == 0
    shown = capsys.readouterr().out
    assert "data.max_response_length=50 cuts 3 texts (30.00%)" in shown
    assert "data.max_prompt_length=100 cuts 0 texts (0.00%)" in shown
    assert "suggested: data.max_response_length=128, cuts 0.00%" in shown
    assert json.loads(report.read_text(encoding="utf-8"))["response"]["cut_share"] == pytest.approx(0.3)


def test_prompts_are_rendered_with_the_options_of_the_run(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer.chat_template += "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    tokenizer.save_pretrained(tmp_path / "thinks")
    path = write(tmp_path / "in.parquet", ["Q?"], ["A."])
    counted = []
    for options in ([], ["--chat-template-kwargs", '{"enable_thinking": false}']):
        report = tmp_path / f"report{len(options)}.json"
        command = ["data", "stats", str(path), "--tokenizer", str(tmp_path / "thinks"), "--json", str(report)]
        assert cli.main([*command, *options]) == 0
        counted.append(json.loads(report.read_text(encoding="utf-8"))["prompt"]["tokens"])
    assert counted[1] - counted[0] == len("<think></think>")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["data", "stats", str(path), "--tokenizer", "x", "--chat-template-kwargs", "false"])
    assert "'false' is no JSON object" in capsys.readouterr().err


def test_errors_are_one_line(tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "in.parquet", ["Q?"], ["A."])

    def fails(*arguments: str) -> str:
        assert cli.main(["data", "stats", *arguments]) == 2
        error = capsys.readouterr().err.strip()
        assert "Traceback" not in error
        return error.splitlines()[-1]

    assert "no tokenizer can be loaded" in fails(str(path), "--tokenizer", str(tmp_path / "missing"))
    assert "no such file" in fails(str(tmp_path / "no.parquet"), "--tokenizer", str(tokenizer_folder))
    with pytest.raises(SystemExit, match="2"):
        fails(str(path), "--tokenizer", str(tokenizer_folder), "--max-response-length", "0")
    assert "argument --max-response-length: 0 is below 1" in capsys.readouterr().err
    settings_file = tokenizer_folder / "chat_template.jinja"
    settings_file.unlink()
    assert "no chat template" in fails(str(path), "--tokenizer", str(tokenizer_folder))


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_counted_as_the_run_reads_them(
    tmp_path: Path, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from verl.utils.tokenizer import hf_processor, hf_tokenizer

    from gad_verl.data.image_prompts import ImagePrompts

    folder = build_vlm(tmp_path / "model", family)
    limits = {"min_pixels": 64 * 64, "max_pixels": 192 * 192}
    rows = [
        {"prompt": [{"role": "user", "content": "text alone"}], "images": [], "teacher_response": "a"},
        *(
            {
                "prompt": [{"role": "user", "content": "<image>Which?" * len(sizes)}],
                "images": [{"bytes": picture("red", 1, size), "path": None} for size in sizes],
                "teacher_response": "b",
            }
            for sizes in ([(40, 40)], [(300, 200)], [(64, 128), (500, 100)])
        ),
    ]
    path = tmp_path / "rows.parquet"
    pd.DataFrame(rows).to_parquet(path)
    options = ["--tokenizer", str(folder), "--mm-processor-kwargs", json.dumps(limits)]
    assert cli.main(["data", "stats", str(path), *options, "--json", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["prompt"]
    tokenizer = hf_tokenizer(str(folder))
    builder = SequenceBuilder(tokenizer, 10**6, 10**6)
    reader = ImagePrompts(tokenizer, hf_processor(str(folder)), family, 10**6, processor_kwargs=limits)
    expected = [len(builder.prompt(rows[0]["prompt"]))]
    for row in rows[1:]:
        files = [image["bytes"] for image in row["images"]]
        expected.append(len(reader.read(with_images(row["prompt"], files))[0]))
    assert found["tokens"] == sum(expected) and found["quantiles"]["1"] == max(expected)
    assert "prompt: 4 texts" in capsys.readouterr().out


def test_rows_with_images_need_a_processor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build_model(tmp_path / "model", hidden=32, layers=1)
    row = {"prompt": [{"role": "user", "content": "<image>"}], "images": [{"bytes": picture("red")}]}
    pd.DataFrame([row | {"teacher_response": "a"}]).to_parquet(tmp_path / "rows.parquet")
    assert cli.main(["data", "stats", str(tmp_path / "rows.parquet"), "--tokenizer", str(folder)]) == 2
    assert "images are covered for students with" in capsys.readouterr().err
