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
"""The data set on verl's: unique indices and teacher texts of a checked length."""

from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from omegaconf import DictConfig

from gad_verl.data.dataset import GadDataset
from gad_verl.errors import GadDataError

LIMIT = 8


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def row(teacher: Any, prompt: str = "hello", **more: Any) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": prompt}], "teacher_response": teacher, "data_source": "t"} | more


def build(folder: Path, config: DictConfig, tokenizer: Any, mode: str, *files: list[dict[str, Any]]) -> GadDataset:
    paths = []
    for number, content in enumerate(files):
        paths.append(str(folder / f"part{number}.parquet"))
        pd.DataFrame(content).to_parquet(paths[-1])
    config.gad.teacher_overlong = mode
    config.data.max_response_length = LIMIT
    return GadDataset(data_files=paths, tokenizer=tokenizer, config=config.data)


def texts(dataset: GadDataset) -> list[str]:
    return [dataset[number]["teacher_response"] for number in range(len(dataset))]


@pytest.mark.parametrize("mode", ["cut", "drop", "error"])
def test_indices_are_unique(tmp_path: Path, tiny_config: DictConfig, tokenizer: Any, mode: str) -> None:
    content = [row("ab", extra_info={"index": 5, "id": number}) for number in range(6)]
    dataset = build(tmp_path, tiny_config, tokenizer, mode, content[:4], content[4:])
    assert [dataset[number]["index"] for number in range(6)] == list(range(6))
    # Everything else of the row stays.
    assert [dataset[number]["extra_info"]["id"] for number in range(6)] == list(range(6))
    assert dataset[3]["raw_prompt"] == content[3]["prompt"] and dataset[3]["teacher_response"] == "ab"


def test_rows_without_extra_info(tmp_path: Path, tiny_config: DictConfig, tokenizer: Any) -> None:
    dataset = build(tmp_path, tiny_config, tokenizer, "cut", [row("a"), row("b")])
    assert [dataset[number]["index"] for number in range(2)] == [0, 1]


# One token a byte: LIMIT - 1 characters and the EOS fit.
SEQUENCE = ["a" * (LIMIT - 1), "b" * LIMIT, "c", "é" * 4, "d" * 100]


def test_cut_keeps_every_row(tmp_path: Path, tiny_config: DictConfig, tokenizer: Any) -> None:
    dataset = build(tmp_path, tiny_config, tokenizer, "cut", [row(text) for text in SEQUENCE])
    assert texts(dataset) == SEQUENCE


def test_drop_keeps_what_fits(tmp_path: Path, tiny_config: DictConfig, tokenizer: Any) -> None:
    dataset = build(tmp_path, tiny_config, tokenizer, "drop", [row(text) for text in SEQUENCE])
    assert texts(dataset) == [SEQUENCE[0], SEQUENCE[2]]
    assert [dataset[number]["index"] for number in range(2)] == [0, 1]


def test_drop_looks_at_every_text_of_a_row(tmp_path: Path, tiny_config: DictConfig, tokenizer: Any) -> None:
    content = [row(["a", "b"]), row(["a", "x" * LIMIT]), row(["x" * LIMIT, "a"]), row(["c"])]
    assert texts(build(tmp_path, tiny_config, tokenizer, "drop", content)) == [["a", "b"], ["c"]]


def test_drop_of_everything_is_an_error(tmp_path: Path, tiny_config: DictConfig, tokenizer: Any) -> None:
    with pytest.raises(GadDataError, match=f"leaves no row.*{LIMIT} tokens"):
        build(tmp_path, tiny_config, tokenizer, "drop", [row("x" * LIMIT)])


MARKED = [
    row("whole", extra_info={"finish_reason": "stop", "stopped_by_length": False}),
    row("half an ans", extra_info={"finish_reason": "length", "stopped_by_length": True}),
    row("half", extra_info={"finish_reason": "content_filter", "stopped_by_length": False}),
    row("nothing said", extra_info={"finish_reason": None, "stopped_by_length": None}),
]


def test_what_was_cut_when_it_was_written_is_too_long(tmp_path: Path, tiny_config: DictConfig, tokenizer: Any) -> None:
    reasons = [one["extra_info"]["finish_reason"] for one in build(tmp_path, tiny_config, tokenizer, "cut", MARKED)]
    assert reasons == ["stop", "length", "content_filter", None]
    short = [one | {"teacher_response": one["teacher_response"][:5]} for one in MARKED]
    assert texts(build(tmp_path, tiny_config, tokenizer, "drop", short)) == ["whole", "nothi"]
    with pytest.raises(
        GadDataError, match="row 1 of .*part0.parquet: .* was cut when it was written.*teacher_overlong"
    ):
        build(tmp_path, tiny_config, tokenizer, "error", short)


def test_columns_that_say_how_texts_ended_are_found_in_extra_info(
    tmp_path: Path, tiny_config: DictConfig, tokenizer: Any
) -> None:
    content = [row(["a", "b"], finish_reason=["length", "stop"]), row(["c", "d"], finish_reason=None)]
    dataset = build(tmp_path, tiny_config, tokenizer, "cut", content)
    assert [list(one["extra_info"].items()) for one in dataset] == [[("finish_reason", ["length", "stop"])], []]


def test_error_names_the_row(tmp_path: Path, tiny_config: DictConfig, tokenizer: Any) -> None:
    with pytest.raises(GadDataError) as error:
        build(tmp_path, tiny_config, tokenizer, "error", [row(text) for text in SEQUENCE])
    for part in ("row 1", "part0.parquet", f"{LIMIT + 1} tokens", f"max_response_length={LIMIT}", "teacher_overlong"):
        assert part in str(error.value)
    fitting = [row(text) for text in (SEQUENCE[0], SEQUENCE[2])]
    assert len(build(tmp_path, tiny_config, tokenizer, "error", fitting)) == 2


def test_error_names_the_row_of_the_file(tmp_path: Path, tiny_config: DictConfig, tokenizer: Any) -> None:
    # The first row is left out for its prompt; the user looks for the bad one in the file.
    tiny_config.data.filter_overlong_prompts = True
    tiny_config.data.filter_overlong_prompts_workers = 1
    with pytest.raises(GadDataError, match="row 2 .*part0.parquet"):
        build(tmp_path, tiny_config, tokenizer, "error", [row("a", prompt="x" * 1000), row("a"), row("x" * LIMIT)])


def test_long_prompts_are_dropped_with_the_texts(tmp_path: Path, tiny_config: DictConfig, tokenizer: Any) -> None:
    tiny_config.data.filter_overlong_prompts = True
    tiny_config.data.filter_overlong_prompts_workers = 1
    content = [row("a", prompt="x" * 1000), row("b"), row("x" * LIMIT), row("c")]
    assert texts(build(tmp_path, tiny_config, tokenizer, "drop", content)) == ["b", "c"]
