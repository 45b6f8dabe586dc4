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
"""How the house stands: which room may import which, read from the syntax trees (``docs/house.py``)."""

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

TRAINING = (
    *("core", "config", "compat", "data", "discriminator", "trainer", "workers", "guardian", "record"),
    *("preflight", "cpu", "rollout"),
)


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", ROOT / "docs" / "house.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module
    spec.loader.exec_module(module)
    return module


house = _load()


def imported(file: Any) -> Iterator[str]:
    """Modules that a file names, in functions and for type checkers too, and by a string."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Without its dots a relative import would pass for one of another package.
            yield f"{'.' * node.level}{node.module or ''}"
            if not node.level:
                yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "gad_verl")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield node.args[0].value if isinstance(node.args[0], ast.Constant) else ast.unparse(node.args[0])


def strangers_of_core(building: Any) -> list[str]:
    """What ``core`` imports besides tensors, the standard library and itself."""
    allowed = {"torch", "numpy", *sys.stdlib_module_names}
    own = ("gad_verl.errors", "gad_verl.core")
    return [
        f"{file.path}: {name}"
        for file in building.files
        if file.room == "core"
        for name in imported(file)
        if name.split(".")[0] not in allowed and not name.startswith(own)
    ]


def tools_in_training(building: Any) -> list[str]:
    """What a training would load of the tools."""
    return [
        f"{file.path}: {name}"
        for file in building.files
        if file.room in TRAINING
        for name in imported(file)
        if f"{name}.".startswith("gad_verl.tools.")
    ]


def relative_imports(building: Any) -> list[str]:
    """Imports that the figures would not see."""
    return [f"{file.path}: {name}" for file in building.files for name in imported(file) if name.startswith(".")]


CHECKS: dict[str, Callable[[Any], list]] = {
    "core": strangers_of_core,
    "tools": tools_in_training,
    "relative": relative_imports,
    "rooms": lambda building: building.circles(),
    "files": lambda building: building.file_circles(),
    "upward": lambda building: building.upward(),
    "loose": lambda building: sorted(set(building.loose_modules) ^ {"cli", "plugin", "errors"}),
    "long": lambda building: building.long_files,
    "order": lambda building: sorted(set(building.rooms) ^ set(house.ORDER)),
}


@pytest.fixture(scope="module")
def ours() -> Any:
    return house.House(ROOT)


@pytest.mark.parametrize("what", CHECKS)
def test_the_house_is_in_order(ours: Any, what: str) -> None:
    assert CHECKS[what](ours) == []


# ------------------------------ the checks see what they are for ------------------------------


def build(root: Path, files: dict[str, str]) -> Any:
    """A small house in order, with some files more or others."""
    rooms = {f"{room}/__init__.py" if room not in ("cli", "plugin", "errors") else f"{room}.py" for room in house.ORDER}
    for name, code in (dict.fromkeys(rooms, "") | {"__init__.py": ""} | files).items():
        path = root / "gad_verl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    return house.House(root)


GOOD = {
    "core/a.py": "import math\nimport numpy as np\nfrom torch import nn\nfrom gad_verl.errors import GadError\n"
    "from gad_verl.core.b import b\n",
    "core/b.py": "",
    "trainer/a.py": "from gad_verl.core import a\nimport verl\n",
    "tools/data/a.py": "from gad_verl.trainer.a import x\n",
}


def test_a_house_in_order_passes(tmp_path: Path) -> None:
    building = build(tmp_path, GOOD)
    assert {what: check(building) for what, check in CHECKS.items()} == dict.fromkeys(CHECKS, [])


BAD = {
    "a package in core": ({"core/a.py": "import omegaconf"}, {"core": ["core/a.py: omegaconf"]}),
    "in a function": ({"core/a.py": "def f():\n    from verl.utils import x"}, {"core": ["core/a.py: verl.utils"]}),
    "for type checkers": (
        {"core/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ray"},
        {"core": ["core/a.py: ray"]},
    ),
    "by a string": (
        {"core/a.py": "import importlib\nimportlib.import_module('verl')"},
        {"core": ["core/a.py: verl"]},
    ),
    "another room in core": (
        {"core/a.py": "from gad_verl.config import x"},
        {"core": ["core/a.py: gad_verl.config"], "upward": ["core -> config: gad_verl.core.a"]},
    ),
    "the face of the package in core": (
        {"core/a.py": "from gad_verl import Phase"},
        {"core": ["core/a.py: gad_verl", "core/a.py: gad_verl.Phase"]},
    ),
    "tools in training": (
        {"guardian/a.py": "def f():\n    from gad_verl.tools.api import x"},
        {"tools": ["guardian/a.py: gad_verl.tools.api"], "upward": ["guardian -> tools/api: gad_verl.guardian.a"]},
    ),
    "tools by the package": (
        {"record/a.py": "from gad_verl import tools"},
        {"tools": ["record/a.py: gad_verl.tools"], "upward": ["record -> tools: gad_verl.record.a"]},
    ),
    "a circle of rooms": (
        {"data/a.py": "from gad_verl.config.a import x", "config/a.py": "from gad_verl.data import b"},
        {"rooms": [["config", "data"]], "upward": ["config -> data: gad_verl.config.a"]},
    ),
    "a circle of files": (
        {"data/a.py": "from gad_verl.data import b", "data/b.py": "import gad_verl.data.a"},
        {"files": [["gad_verl.data.a", "gad_verl.data.b"]]},
    ),
    "a relative import": ({"data/a.py": "from . import b"}, {"relative": ["data/a.py: ."]}),
    "a loose module": ({"extra.py": ""}, {"loose": ["extra"], "order": ["extra"]}),
    "a new room": ({"attic/__init__.py": ""}, {"order": ["attic"]}),
    "a long file": ({"data/a.py": "\n" * 401}, {"long": ["data/a.py 401"]}),
}


@pytest.mark.parametrize("what", BAD)
def test_each_check_sees_what_it_is_for(tmp_path: Path, what: str) -> None:
    files, expected = BAD[what]
    building = build(tmp_path, files)
    assert {name: check(building) for name, check in CHECKS.items()} == dict.fromkeys(CHECKS, []) | expected
