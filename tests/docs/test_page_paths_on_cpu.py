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
"""What the pages name of the package is there: ``gad_verl/core/rewards.py``, ``gad_verl.core.Phase``."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [path for path in (ROOT / "recipes").rglob("*") if path.suffix in (".md", ".yaml", ".sh", ".sbatch", ".txt")]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *RECIPES])
# A key in the metadata of parquet files, and the file of metrics by the names of project and run.
_OTHER = {"gad_verl.normalize", "gad_verl/gad.jsonl"}
# Not below another folder: the folders of a run bear the name of the project too.
_PATH = re.compile(r"(?<![\w/.-])gad_verl/[\w./-]*\w/?")
_NAME = re.compile(r"(?<![\w/.@-])gad_verl(?:\.\w+)+")


def lost_paths(text: str) -> list[str]:
    """Paths of the package that do not exist."""
    return [path for path in sorted(set(_PATH.findall(text)) - _OTHER) if not (ROOT / path).exists()]


def lost_names(text: str) -> list[str]:
    """Dotted names that lead to no module, nor to what a module holds."""
    return [name for name in sorted(set(_NAME.findall(text)) - _OTHER) if not _is_there(name)]


def _is_there(name: str) -> bool:
    """Whether modules, then attributes, lead there."""
    words = name.split(".")
    found, used = importlib.import_module(words[0]), 1
    while used < len(words) and hasattr(found, "__path__"):
        module = ".".join(words[: used + 1])
        if importlib.util.find_spec(module) is None:
            break
        found, used = importlib.import_module(module), used + 1
    for word in words[used:]:
        if not hasattr(found, word):
            return False
        found = getattr(found, word)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_of_the_package_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert lost_paths(text) == []
    assert lost_names(text) == []


def test_what_is_lost_is_found() -> None:
    text = (
        "`gad_verl/trainer/sync.py` and (gad_verl/core/), gad_verl/core/rewards.py. In `checkpoints/gad_verl/gad`, "
        "gad_verl.core.Phase, `gad_verl.core.phase`, gad_verl.trainer.sync. Also gad_verl.config.load_gad_config."
    )
    assert lost_paths(text) == ["gad_verl/trainer/sync.py"]
    assert lost_names(text) == ["gad_verl.core.phase", "gad_verl.trainer.sync"]


def test_pages_name_the_package() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert len(set(_PATH.findall(text))) > 40 and len(set(_NAME.findall(text))) > 15
