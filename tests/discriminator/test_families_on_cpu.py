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
"""The page of the families is what is measured: a few families in seconds, all of them in the slow tests."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
MAKER = ROOT / "docs" / "make_models.py"
ROWS = json.loads((ROOT / "docs" / "models.json").read_text(encoding="utf-8"))
# A head in the place of the LM head, no SDPA, a dropout that is a number, a configuration with images, experts.
FEW = ("granite", "gpt_oss", "seed_oss", "qwen3_5", "mixtral")


def load_maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_models", MAKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(
    names: tuple[str, ...], rows: Path, timeout_s: float, *options: str, known: dict[str, dict[str, str]] | None = None
) -> dict[str, dict[str, str]]:
    """What ``docs/make_models.py`` finds, in a process of its own: it opens a process group and patches classes."""
    if known is not None:
        rows.write_text(json.dumps(known), encoding="utf-8")
    command = [sys.executable, str(MAKER), "--rows", str(rows), *options, "--families", *names]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(rows.read_text(encoding="utf-8"))


def test_the_page_holds_the_rows() -> None:
    maker = load_maker()
    page = maker.PAGE.read_text(encoding="utf-8")
    assert page == maker.make_page(page, maker.make_table(ROWS)), "run python docs/make_models.py --page"


def test_every_family_has_a_row_without_an_empty_cell_and_none_fails() -> None:
    maker = load_maker()
    assert set(ROWS) == set(FAMILIES)
    for name, row in ROWS.items():
        assert set(row) == set(maker.HEAD)
        assert row["name"] == FAMILIES[name].name
        assert all(row.values())
        assert not [cell for cell in row.values() if cell.startswith("fails")]


def rollouts(rows: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Known before: what vLLM does is measured apart."""
    return {name: {"rollout": row["rollout"]} for name, row in rows.items()}


def test_a_few_families_do_what_their_rows_say(tmp_path: Path) -> None:
    found = measured(FEW, tmp_path / "rows.json", 300, known=ROWS)
    assert {name: found[name] for name in FEW} == {name: ROWS[name] for name in FEW}


@pytest.mark.slow
def test_all_families_do_what_their_rows_say(tmp_path: Path) -> None:
    assert measured((), tmp_path / "rows.json", 1800, known=rollouts(ROWS)) == ROWS


def test_rollouts_are_seen_where_the_page_says_so() -> None:
    maker = load_maker()
    assert {name for name, row in ROWS.items() if row["rollout"] != maker.NOT_RUN} == set(maker.ROLLOUTS)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_follows_the_students_of_the_page(tmp_path: Path) -> None:
    """Real vLLM: the weights by the names that verl sends, twice, and its log-probabilities beside transformers'."""
    maker = load_maker()
    found = measured((), tmp_path / "rows.json", 1800, "--rollouts")
    assert {name: row["rollout"] for name, row in found.items()} == {
        name: ROWS[name]["rollout"] for name in maker.ROLLOUTS
    }
