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
"""``gad-verl data split``: no prompt or near-duplicate on both sides, whatever the order of the rows."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_vlm import picture

from gad_verl import cli
from gad_verl.data.schema import check_file
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.data import near_duplicates
from gad_verl.tools.data.image_groups import image_groups
from gad_verl.tools.data.near_duplicates import (
    PERMUTATIONS,
    RECALL,
    group_near_duplicates,
    normal_form,
    rows_per_band,
    shingles,
)
from gad_verl.tools.data.row_file import open_gad_file, open_table, without_views
from gad_verl.tools.data.splitting import SIDES, SplitOptions, assign, prompt_text, split_file, without_common_affixes
from gad_verl.tools.data.templates import ALPACA

_RNG = random.Random(5)
WORDS = ["".join(_RNG.choices("abcdefghijklmnopqrstuvwxyz", k=_RNG.randint(3, 9))) for _ in range(500)]


def sentences(count: int, seed: int, words: int = 12) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=words)) for _ in range(count)]


def with_near_duplicates(count: int, seed: int) -> list[str]:
    """Sentences, a third of them with one word added or left out, and some twice."""
    rng = random.Random(seed)
    texts = sentences(count, seed, words=20)
    for text in texts[: count // 3]:
        words = text.split()
        place = rng.randrange(len(words))
        texts.append(" ".join(words[:place] + words[place + 1 :]) if rng.random() < 0.5 else f"{text} please")
    return [*texts, *texts[: count // 10]]


def exact_sets(text: str) -> set[str]:
    """5-grams by their definition."""
    size = min(5, len(text))
    return {text[place : place + size] for place in range(len(text) - size + 1)}


def jaccard(first: str, second: str) -> float:
    one, two = exact_sets(first), exact_sets(second)
    return len(one & two) / len(one | two)


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_shingles_stand_for_the_sets_of_5_grams(first: str, second: str) -> None:
    one, two = set(shingles(first).tolist()), set(shingles(second).tolist())
    assert len(one & two) / len(one | two) == pytest.approx(jaccard(first, second))


def test_an_estimate_agrees_with_the_exact_similarity() -> None:
    texts = with_near_duplicates(40, seed=1)
    sketches = near_duplicates.signatures(texts)
    for first, second in [(n, n + 40) for n in range(13)] + [(0, n) for n in range(1, 10)]:
        estimate = (sketches[first] == sketches[second]).mean()
        exact = jaccard(texts[first], texts[second])
        # Five standard errors of a share of 128.
        assert abs(estimate - exact) <= 5 * np.sqrt(exact * (1 - exact) / PERMUTATIONS) + 1e-9


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    rows = rows_per_band(threshold)
    assert 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL or rows == 1


def test_groups_are_the_connected_components_of_close_pairs() -> None:
    texts = sorted(set(with_near_duplicates(90, seed=2)))
    labels = group_near_duplicates(texts, 0.8).labels
    for first in range(len(texts)):
        for second in range(first):
            similarity = jaccard(texts[first], texts[second])
            if similarity >= 0.8:
                assert labels[first] == labels[second]
            if labels[first] == labels[second]:
                # Joined by a chain of close pairs; unrelated sentences share almost nothing.
                assert similarity > 0.4


def test_unrelated_texts_stay_apart_and_a_threshold_of_one_joins_nothing() -> None:
    texts = sentences(300, seed=3)
    assert len(set(group_near_duplicates(texts, 0.8).labels)) == len(texts)
    close = sorted({*texts, *(f"{text} x" for text in texts)})
    assert len(set(group_near_duplicates(close, 1.0).labels)) == len(close)
    assert len(set(group_near_duplicates(close, 0.8).labels)) == len(texts)


def test_a_bucket_over_the_limit_is_kept_together(monkeypatch: pytest.MonkeyPatch) -> None:
    base = " ".join(sentences(1, seed=4, words=40))
    texts = [f"{base} {number}" for number in range(30)]
    checked = group_near_duplicates(texts, 0.8)
    monkeypatch.setattr(near_duplicates, "BUCKET_LIMIT", 10)
    unchecked = group_near_duplicates(texts, 0.8)
    assert checked.unchecked == 0 and unchecked.unchecked > 0
    assert len(set(checked.labels)) == len(set(unchecked.labels)) == 1


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_white_space_makes_no_difference(text: str) -> None:
    assert normal_form(f"  {text}\n") == normal_form(text)
    assert normal_form(text.replace(" ", " \t\n")) == normal_form(text)


def test_prompts_are_compared_without_wrapper_and_system_message() -> None:
    plain = [{"role": "user", "content": "Why is\n THE sky blue?"}]
    wrapped = [{"role": "system", "content": "S"}, {"role": "user", "content": ALPACA.render("Why is the sky blue?")}]
    assert prompt_text(plain) == prompt_text(wrapped) == "why is the sky blue?"
    # With an input the heading stays, but the long first sentence goes.
    assert prompt_text([{"role": "user", "content": ALPACA.render("Add.", "1 2")}]).startswith("add.")


def test_a_wrapper_that_all_prompts_share_is_cut_off() -> None:
    inner = sentences(50, seed=6)
    assert without_common_affixes([f"<<{text}>>" for text in inner]) == inner
    assert without_common_affixes(["same"] * 50) == ["same"] * 50
    assert without_common_affixes(["aXb", "aYb"]) == ["aXb", "aYb"]


def test_short_questions_in_a_long_wrapper_are_no_near_duplicates() -> None:
    wrapper = "Please read this carefully and answer in one short sentence, without any explanation: "
    texts = [normal_form(wrapper + text) for text in sentences(100, seed=7, words=4)]
    _, result = assign(texts, SplitOptions(val=0.1))
    assert result.groups == result.prompts


@pytest.mark.parametrize("options", [SplitOptions(val=0.1), SplitOptions(val=20, test=0.2, seed=3)])
def test_no_prompt_and_no_near_duplicate_is_on_two_sides(options: SplitOptions) -> None:
    texts = with_near_duplicates(150, seed=8)
    sides, result = assign(texts, options)
    for first in range(len(texts)):
        for second in range(first):
            if sides[first] != sides[second]:
                assert jaccard(texts[first], texts[second]) < 0.8
    assert {name: int((sides == number).sum()) for number, name in enumerate(SIDES)} == result.rows


@given(st.randoms(use_true_random=False), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_rows_has_no_influence(rng: random.Random, seed: int) -> None:
    texts = with_near_duplicates(60, seed=9)
    options = SplitOptions(val=0.15, test=7, seed=seed)
    expected = dict(zip(texts, assign(texts, options)[0].tolist(), strict=True))
    rng.shuffle(texts)
    assert dict(zip(texts, assign(texts, options)[0].tolist(), strict=True)) == expected


def test_sizes_are_exact_where_groups_allow_it_and_seeds_differ() -> None:
    texts = sentences(200, seed=10)
    for options, rows in (
        (SplitOptions(val=0.1), {"train": 180, "val": 20, "test": 0}),
        (SplitOptions(val=7, test=0.25), {"train": 143, "val": 7, "test": 50}),
    ):
        assert assign(texts, options)[1].rows == rows
    first, second = (assign(texts, SplitOptions(val=0.5, seed=seed))[0] for seed in (0, 1))
    # Two independent halves agree on about half of 200 rows: six standard deviations are 42.
    assert abs(int((first == second).sum()) - 100) < 42


def test_new_rows_move_few_of_the_old_ones() -> None:
    texts = sentences(400, seed=11)
    old = set(np.flatnonzero(assign(texts, SplitOptions(val=0.1))[0] == 1).tolist())
    new = set(np.flatnonzero(assign(texts + sentences(20, seed=12), SplitOptions(val=0.1))[0] == 1).tolist())
    assert len(old & new) >= len(old) - 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SplitOptions(val=0), "would stay empty"),
        (SplitOptions(val=0.001), "would stay empty"),
        (SplitOptions(val=50), "below the 50 rows"),
        (SplitOptions(val=-1), "--val -1"),
        (SplitOptions(val=float("nan")), "--val nan"),
        (SplitOptions(val=5, test=float("nan")), "--test nan"),
        (SplitOptions(val=float("inf")), "--val inf"),
        (SplitOptions(val=1.5), "whole number"),
        (SplitOptions(val=0.6, test=0.5), "leave some for training"),
    ],
)
def test_impossible_sizes_are_errors(options: SplitOptions, message: str) -> None:
    with pytest.raises(GadConfigError, match=message):
        assign(sentences(50, seed=13), options)


def test_one_group_of_everything_cannot_be_split() -> None:
    base = " ".join(sentences(1, seed=14, words=40))
    texts = [f"{number} {base} {number}" for number in range(30)]
    with pytest.raises(GadDataError, match="largest group has 30 of 30 rows.*--near-duplicates"):
        assign(texts, SplitOptions(val=0.1))
    assert assign(texts, SplitOptions(val=0.1, threshold=1.0))[1].rows["val"] == 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def gad_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": text}],
            "teacher_response": ["A.", "B."] if number % 2 else [f"C{number}."],
            "own_column": {"number": number},
        }
        for number, text in enumerate(sentences(count, seed=15))
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_files_hold_every_row_once_in_order_with_all_columns(suffix: str, tmp_path: Path) -> None:
    rows = gad_rows(120)
    source = tmp_path / f"in{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows).replace_schema_metadata({"mine": "kept"}), source)
    elif suffix == ".json":
        source.write_text(json.dumps(rows), encoding="utf-8")
    else:
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    output = tmp_path / "split"
    code = cli.main(["data", "split", str(source), "--output", str(output), "--val", "0.1", "--test", "10"])
    assert code == 0
    tables = {name: parquet.read_table(output / f"{name}.parquet") for name in SIDES}
    found = {name: table.to_pylist() for name, table in tables.items()}
    assert [len(found[name]) for name in SIDES] == [98, 12, 10]
    numbers = {name: [row["own_column"]["number"] for row in found[name]] for name in SIDES}
    assert all(values == sorted(values) for values in numbers.values())
    assert sorted(sum(numbers.values(), [])) == list(range(120))
    assert sorted(sum(found.values(), []), key=lambda row: row["own_column"]["number"]) == rows
    if suffix == ".parquet":
        assert tables["val"].schema.metadata[b"mine"] == b"kept"
    card = json.loads((output / "card.json").read_text(encoding="utf-8"))
    assert [one["rows"] for one in card["outputs"]] == [98, 12, 10]
    for name in SIDES:
        check_file(output / f"{name}.parquet", "prompt", "teacher_response")


def test_nothing_is_written_on_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jsonl"
    output = tmp_path / "split"

    def fails(*options: str) -> str:
        assert cli.main(["data", "split", str(source), "--output", str(output), *options]) == 2
        assert not output.exists() or not any(output.iterdir())
        return capsys.readouterr().err

    assert "no such file" in fails()
    source.write_text('{"prompt": "text", "teacher_response": "A."}\n', encoding="utf-8")
    assert "row 0, column 'prompt': the prompt is plain text" in fails()
    source.write_text('{"question": "text", "teacher_response": "A."}\n', encoding="utf-8")
    assert "has no column 'prompt'; it has question, teacher_response. Set --prompt-key" in fails()
    source.write_text("".join(json.dumps(row) + "\n" for row in gad_rows(30)), encoding="utf-8")
    assert "--near-duplicates 0" in fails("--near-duplicates", "0")
    assert "would stay empty" in fails("--val", "0.001")
    mixed = [{"prompt": [{"role": "user", "content": "Q?"}], "teacher_response": value} for value in ("A.", ["B."])]
    source.write_text("".join(json.dumps(row) + "\n" for row in mixed), encoding="utf-8")
    assert "column 'teacher_response' mixes types" in fails()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from("ab"), values, max_size=2),
    max_leaves=5,
)


@given(st.lists(JSON, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_column_of_json_is_written_or_refused_by_its_name(folder: Path, values: list[Any]) -> None:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps({"own": value}) + "\n" for value in values), encoding="utf-8")
    try:
        opened = open_table(path)
    except GadDataError as error:
        assert str(error).startswith(f"{path}, column 'own'") and "\n" not in str(error)
        return
    parquet.write_table(opened.table, folder / "out.parquet")
    assert parquet.read_table(folder / "out.parquet").to_pylist() == opened.table.to_pylist()


def test_objects_without_a_key_become_nulls_where_no_row_has_one(folder: Path) -> None:
    values = [{"a": {}, "b": [{}, None], "c": {"d": {"e": {}}}, "f": [[{}], []], "g": 1}, {"b": []}, {}]
    path, empty = folder / "in.json", {"always": {}, "sometimes": {}}
    rows = [{"own": value, **empty} for value in values]
    path.write_text(json.dumps([*rows, {"own": None, "sometimes": {"x": 1}}]), encoding="utf-8")
    table = open_table(path).table
    assert table["own"].to_pylist() == [
        {"a": None, "b": [None, None], "c": {"d": {"e": None}}, "f": [[None], []], "g": 1},
        {"a": None, "b": [], "c": None, "f": None, "g": None},
        dict.fromkeys("abcfg"),
        None,
    ]
    assert table["always"].to_pylist() == [None] * 4
    assert table["sometimes"].to_pylist() == [{"x": None}] * 3 + [{"x": 1}]
    parquet.write_table(table, folder / "out.parquet")


@pytest.mark.parametrize("values", [[2**64], [2**63, -1], [{"a": [1, -(2**63) - 1]}]])
@pytest.mark.parametrize("tool", ["split", "normalize", "stats"])
def test_numbers_that_are_too_large_are_named(
    tool: str, values: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"seed": value} for row, value in zip(gad_rows(len(values)), values, strict=True)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if tool == "stats":
        with pytest.raises(GadDataError, match="column 'seed'"):
            open_gad_file(path, "prompt", "teacher_response")
        return
    assert cli.main(["data", tool, str(path), "--output", str(tmp_path / f"out{'.parquet' * (tool != 'split')}")]) == 2
    error = capsys.readouterr().err
    assert f"{path}, column 'seed' holds whole numbers" in error and "write them as text" in error


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_empty_extra_info_of_every_row_is_no_obstacle(suffix: str, tmp_path: Path) -> None:
    rows = [row | {"extra_info": {}, "kwargs": [{}]} for row in gad_rows(40)]
    path = tmp_path / f"in{suffix}"
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
    assert cli.main(["data", "split", str(path), "--output", str(tmp_path / "split"), "--val", "5"]) == 0
    assert check_file(tmp_path / "split" / "val.parquet", "prompt", "teacher_response") == 5
    output = tmp_path / "out.parquet"
    assert cli.main(["data", "normalize", str(path), "--output", str(output)]) == 0
    assert parquet.read_table(output)["extra_info"].to_pylist() == [None] * 40


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_views_become_plain_texts_at_any_depth(data: st.DataObject) -> None:
    """What Arrow can filter: of a type that was drawn and of the same without views, the same values."""
    texts, others = [(pa.string_view(), pa.string()), (pa.binary_view(), pa.binary())], [pa.int64(), pa.large_string()]
    leaves = st.sampled_from([*texts, *((kind, kind) for kind in others)])

    def wider(inner: st.SearchStrategy) -> st.SearchStrategy:
        return st.one_of(
            inner.map(lambda pair: tuple(pa.list_(kind) for kind in pair)),
            inner.map(lambda pair: tuple(pa.large_list(kind) for kind in pair)),
            inner.map(lambda pair: tuple(pa.map_(pa.string(), kind) for kind in pair)),
            st.tuples(inner, inner).map(
                lambda pairs: tuple(pa.struct([("a", one), ("b", other)]) for one, other in zip(*pairs, strict=True))
            ),
        )

    viewed, plain = data.draw(st.recursive(leaves, wider, max_leaves=6))
    assert without_views(viewed) == plain and without_views(plain) == plain
    empty = pa.array([None, None], type=viewed).cast(plain)
    assert empty.filter(pa.array([True, False])).to_pylist() == [None]


@pytest.mark.parametrize("several", [False, True])
def test_columns_of_views_are_split_and_normalised(tmp_path: Path, several: bool) -> None:
    rows = gad_rows(40)
    texts = [[f"{row['teacher_response']} ", "</s>"] if several else f"{row['teacher_response']} " for row in rows]
    table = pa.table(
        {
            "note": pa.array([None, "n"] * 20, type=pa.string_view()),
            "prompt": pa.array([row["prompt"] for row in rows]),
            "teacher_response": pa.array(texts, type=pa.list_(pa.string_view()) if several else pa.string_view()),
        }
    ).replace_schema_metadata({"mine": "kept"})
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(table, source)
    assert cli.main(["data", "normalize", str(source), "--output", str(output)]) == 0
    cleaned = parquet.read_table(output)
    expected = [[text[0].strip()] if several else text.strip() for text in texts]
    assert cleaned["teacher_response"].to_pylist() == expected and cleaned["note"].to_pylist() == [None, "n"] * 20
    assert cleaned.schema.names == table.schema.names and cleaned.schema.metadata[b"mine"] == b"kept"
    split_file(source, tmp_path / "split", SplitOptions(val=5))
    sides = [parquet.read_table(tmp_path / "split" / f"{name}.parquet") for name in ("train", "val")]
    found = [text for side in sides for text in side["teacher_response"].to_pylist()]
    assert len(found) == 40 and sorted(map(str, found)) == sorted(map(str, texts))


def test_existing_files_are_kept_unless_told_otherwise(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    parquet.write_table(pa.Table.from_pylist(gad_rows(40)), source)
    split_file(source, tmp_path / "split", SplitOptions(val=4))
    with pytest.raises(FileExistsError, match="--overwrite"):
        split_file(source, tmp_path / "split", SplitOptions(val=5))
    assert parquet.read_table(tmp_path / "split" / "val.parquet").num_rows == 4
    split_file(source, tmp_path / "split", SplitOptions(val=5), overwrite=True)
    assert parquet.read_table(tmp_path / "split" / "val.parquet").num_rows == 5
    assert shingles("").size == 1


# ------------------------------ rows with images ------------------------------


@given(st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_rows_that_share_an_image_are_one_group(rows: list[tuple[int, ...]]) -> None:
    digests = [tuple(f"image {number}" for number in row) for row in rows]
    groups = image_groups(digests)
    # Grown from each image by hand.
    for row, group in zip(digests, groups, strict=True):
        known, before = set(row), set()
        while known != before:
            before = known
            known = known.union(*(other for other in digests if known & set(other)))
        assert group == (min(known) if row else None)


def test_one_question_to_many_images_is_split_by_its_images(tmp_path: Path) -> None:
    rng = random.Random(5)
    files = [tmp_path / f"{number}.png" for number in range(12)]
    for number, file in enumerate(files):
        file.write_bytes(picture("red", number))
    # A copy of another name is the same image.
    copy = tmp_path / "copy.png"
    copy.write_bytes(files[0].read_bytes())
    shown = [[file] for file in files for _ in range(3)] + [[copy], [files[1], files[2]]]
    rng.shuffle(shown)
    rows = [
        {
            "prompt": [{"role": "user", "content": "<image>" * len(images) + "Which colour?"}],
            "images": [str(image) for image in images],
            "teacher_response": "Red.",
        }
        for images in shown
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    result = split_file(tmp_path / "rows.parquet", tmp_path / "data", SplitOptions(val=0.3))
    assert result.groups == 11
    sides = [pd.read_parquet(tmp_path / "data" / f"{name}.parquet") for name in ("train", "val")]
    assert sum(map(len, sides)) == len(rows) and min(map(len, sides)) > 0
    seen = [{Path(one).read_bytes() for images in side["images"] for one in images} for side in sides]
    assert not seen[0] & seen[1]


def test_an_image_that_is_gone_is_named(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "user", "content": "<image>?"}], "images": ["gone.png"], "teacher_response": "Red."}
    pd.DataFrame([row] * 4).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(GadDataError, match="row 0, column 'images': the image gone.png cannot be read"):
        split_file(tmp_path / "rows.parquet", tmp_path / "data", SplitOptions(val=0.5))
    assert not (tmp_path / "data").exists()
