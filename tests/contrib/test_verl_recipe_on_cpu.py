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
"""The folder for verl-recipe, as its script makes it of recipes/gad, runs from the root of verl."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import verl
from setuptools import find_packages
from tiny_model import build_all

import gad_verl

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "contrib" / "verl_docs"


def load_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_recipe", ROOT / "contrib" / "make_recipe.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = load_maker()


def contents(folder: Path) -> dict[str, tuple[str, bool]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.read_text(encoding="utf-8"), os.access(path, os.X_OK)) for path in files
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as the script makes it."""
    folder = tmp_path_factory.mktemp("recipe") / "gad"
    MAKER.write_recipe(folder)
    return folder


def test_the_folder_has_every_file_of_the_recipe_and_is_made_anew(made: Path) -> None:
    ours, theirs = contents(MAKER.SOURCE), contents(made)
    assert {name: runs for name, (_, runs) in theirs.items()} == {name: runs for name, (_, runs) in ours.items()}
    (made / "of_an_earlier_version.sh").touch()
    MAKER.write_recipe(made)
    assert contents(made) == theirs


def test_what_the_readme_no_longer_says_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "README.md"
    text = (MAKER.SOURCE / "README.md").read_text(encoding="utf-8")
    changed.write_text(text.replace("from its source folder", "somehow"), encoding="utf-8")
    with pytest.raises(ValueError, match="change contrib/make_recipe.py"):
        MAKER.recipe_text(changed)


def test_nothing_leads_out_of_the_folder(made: Path) -> None:
    for name, (text, _) in contents(made).items():
        body = text.rpartition("This folder is made from")[0] or text
        assert "recipes/gad" not in body, name
        targets = [target for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in target]
        assert all((made / target).is_file() and ".." not in target for target in targets), name
    readme = contents(made)["README.md"][0]
    assert f"`pip install gad-verl=={gad_verl.__version__}`" in readme
    assert "## Required `verl` version" in readme


def test_all_python_is_in_the_wheels(made: Path) -> None:
    files = contents(made)
    assert not [name for name in files if name.endswith(".py")]
    packages = set(find_packages(str(ROOT), include=["gad_verl", "gad_verl.*"]))
    modules = {module for text, _ in files.values() for module in re.findall(r"\b(?:gad_)?verl(?:\.\w+)+", text)}
    started = {module for module in modules if module.split(".")[-1] in ("main_ppo", "cli")}
    assert started == {"verl.trainer.main_ppo", "gad_verl.cli"}
    for module in started:
        assert importlib.util.find_spec(module) is not None
        assert not module.startswith("gad_verl") or module.rpartition(".")[0] in packages


def test_dry_run_from_the_root_of_verl(tmp_path: Path) -> None:
    """verl's checkout with the recipe folder in it, as its submodule is; the plan is made and nothing is started."""
    root, tiny = tmp_path / "verl-root", build_all(tmp_path / "tiny")
    root.mkdir()
    # python -m reads the folder in which it is started first: there lies the package of the checkout.
    (root / "verl").symlink_to(Path(verl.__file__).parent)
    MAKER.write_recipe(root / "recipe" / "gad")
    variables = {
        "DRY_RUN": "1",
        "PYTHON": sys.executable,
        "MODEL_PATH": str(tiny / "model"),
        "TRAIN_FILE": str(tiny / "train.parquet"),
        "TEST_FILE": str(tiny / "val.parquet"),
        "PROMPT_KEY": "prompt",
        "TRAIN_BATCH_SIZE": "8",
        "MAX_PROMPT_LENGTH": "64",
        "MAX_RESPONSE_LENGTH": "16",
        "NGPUS_PER_NODE": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        ["bash", "recipe/gad/run_qwen2_5_7b_fsdp.sh", "gad.discriminator_only_steps=2"],
        cwd=root,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "All checks passed" in done.stdout and "Nothing was started" in done.stdout
    assert sorted(path.name for path in root.iterdir()) == ["recipe", "verl"]


# ------------------------------ pages for verl's documentation ------------------------------


def table_cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_row_of_the_baselines_has_the_columns_and_the_figures_of_our_page() -> None:
    text = (DOCS / "baseline_rows.md").read_text(encoding="utf-8")
    header, _, *rows = [table_cells(line) for line in text.splitlines() if line.startswith("|")]
    assert header == ["Hardware", "Model", "Method", "Test score", "Details"]
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    measured = {cells[0]: cells for cells in map(table_cells, page.splitlines()) if len(cells) == 8}
    names = {"GAD": "after GAD", "SeqKD": "SeqKD, as many updates", "hf checkpoint": "before"}
    assert {row[2] for row in rows} == set(names)
    for row in rows:
        assert len(row) == len(header)
        assert row[3] == measured[names[row[2]]][4], "the quickstart's table has other figures"


def test_page_says_what_was_measured_and_what_was_not() -> None:
    text = (DOCS / "docs" / "algo" / "gad.md").read_text(encoding="utf-8")
    assert re.search(r"^Last updated: \d\d/\d\d/\d{4}\.$", text, flags=re.MULTILINE)
    assert re.search(r"^Author: ", text, flags=re.MULTILINE)
    assert "not been run on GPUs" in text and "make quickstart" in text
    keys = set(re.findall(r"`((?:gad|discriminator)\.[a-z_.]+)`", text))
    configuration = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert keys and {key for key in keys if f"`{key}`" not in configuration} == set()
