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
"""Makes the folder that verl-recipe gets from recipes/gad.

    python contrib/make_recipe.py           writes contrib/verl_recipe/gad, which git ignores
    python contrib/make_recipe.py FOLDER    writes FOLDER, e.g. recipe/gad of a checkout of verl

There it is started from the root of verl, no link leads into this repository, and the package comes from a registry.
"""

import argparse
import logging
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "recipes" / "gad"
TARGET = ROOT / "contrib" / "verl_recipe" / "gad"
# Where the folder lies, seen from the root from which commands are run.
HERE, THERE = "recipes/gad", "recipe/gad"
_LINK = re.compile(r"\[([^\]]+)\]\(\.\./\.\./([^)#]+)(?:#[^)]*)?\)")
_INSTALL = "then the package `gad-verl` from its source folder: `pip install .`"
_TESTS = "On a CPU, by the tests:"

logger = logging.getLogger(__name__)


def _version() -> str:
    text = (ROOT / "gad_verl" / "__init__.py").read_text(encoding="utf-8")
    return text.split('__version__ = "', 1)[1].split('"', 1)[0]


def _replaced(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise ValueError(f"recipes/gad/README.md has {text.count(old)} times {old!r}; change contrib/make_recipe.py")
    return text.replace(old, new)


def _readme(text: str) -> str:
    text = _replaced(
        text, _INSTALL, f"then the package `gad-verl` of this recipe's version: `pip install gad-verl=={_version()}`"
    )
    text = _replaced(text, _TESTS, "On a CPU, by the tests of `gad-verl`:")
    text = _LINK.sub(r"\1 (`\2` of gad-verl)", text)
    return (
        text.rstrip("\n") + f"\n\nThis folder is made from `{HERE}` of gad-verl, which tests it; it is changed there.\n"
    )


def recipe_text(path: Path) -> str:
    """A file of the recipe as verl-recipe gets it.

    Args:
        path: In ``recipes/gad``.

    Raises:
        ValueError: If the README no longer says what is replaced in it.
    """
    text = path.read_text(encoding="utf-8").replace(HERE, THERE)
    return _readme(text) if path.name == "README.md" else text


def recipe_files() -> list[Path]:
    """Files of the recipe, relative to its folder."""
    return sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*") if path.is_file())


def write_recipe(target: Path) -> None:
    """Write the folder anew.

    Args:
        target: What is there is removed first.
    """
    texts = {name: recipe_text(SOURCE / name) for name in recipe_files()}
    shutil.rmtree(target, ignore_errors=True)
    for name, text in texts.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod((SOURCE / name).stat().st_mode & 0o777)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", type=Path, default=TARGET)
    folder = parser.parse_args().target
    write_recipe(folder)
    logger.info("%s files in %s", len(recipe_files()), folder)
