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
"""Every block of Python on the pages is run, here or by a test of its own, or marked as not run."""

from collections.abc import Callable
from pathlib import Path

import pytest
from page_blocks import Block, page_blocks

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md")), ROOT / "recipes" / "gad" / "README.md"]

# Pages whose blocks want more than a folder, and the test that runs them.
ELSEWHERE = {
    "evaluation.md": "tests/docs/test_evaluation_page_on_cpu.py",
    "export.md": "tests/export/test_export_docs_on_cpu.py",
    "extending.md": "tests/docs/test_extension_points_on_cpu.py",
    "teacher.md": "tests/teacher/test_teacher_docs_on_cpu.py",
    "trajectories.md": "tests/docs/test_trajectories_page_on_cpu.py",
}


def python_blocks(page: Path) -> list[Block]:
    return [block for block in page_blocks(page) if block.language == "python"]


def _a_discriminator(folder: Path) -> None:
    """What ``gad-verl export --part both`` leaves of a discriminator."""
    from tiny_model import build_model
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model = build_model(folder / "tiny")
    classifier = AutoModelForTokenClassification.from_pretrained(model, num_labels=1)
    classifier.save_pretrained(folder / "exported" / "discriminator")
    AutoTokenizer.from_pretrained(model).save_pretrained(folder / "exported" / "discriminator")


# What a page takes for granted.
PREPARE: dict[str, Callable[[Path], None]] = {"megatron.md": _a_discriminator}


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in ELSEWHERE and python_blocks(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page in one interpreter, one after another."""
    monkeypatch.chdir(tmp_path)
    if page.name in PREPARE:
        PREPARE[page.name](tmp_path)
    names: dict = {"__name__": "page"}
    for block in python_blocks(page):
        code = compile(block.text, str(block), "exec")
        if block.not_run is None:
            exec(code, names)


@pytest.mark.parametrize("page", [page for page in ELSEWHERE if (ROOT / "docs" / page).exists()])
def test_blocks_that_run_elsewhere_do(page: str) -> None:
    assert python_blocks(ROOT / "docs" / page)
    assert page in (ROOT / ELSEWHERE[page]).read_text(encoding="utf-8")


def test_there_are_pages_to_run() -> None:
    assert {page.name for page in PAGES if python_blocks(page)} >= {
        "api.md",
        "concepts.md",
        "megatron.md",
        "extending.md",
    }
