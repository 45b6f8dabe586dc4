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
"""Names that a module of an installed package defines, read from its source instead of imported."""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path


def find_source(module: str) -> Path | None:
    """The source file of a module, or None. Imports its top-level package at most."""
    top, *rest = module.split(".")
    package = sys.modules.get(top)
    if package is None:
        spec = importlib.util.find_spec(top)
        folders = [] if spec is None else spec.submodule_search_locations or []
    else:
        folders = getattr(package, "__path__", [])
    for folder in folders:
        path = Path(folder, *rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def read_names(source: Path) -> set[str]:
    """Names at the top level of a file, imported ones too, and ``Class.member`` for the members of its classes.

    Members that a class inherits are not found.
    """
    tree = ast.parse(source.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in _statements(tree.body):
        names = set(_bound(node))
        found |= names
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for child in _statements(node.body) for name in _bound(child)}
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, those inside conditions, try and with blocks too."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from _statements(getattr(node, name, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _bound(node: ast.stmt) -> Iterator[str]:
    """Names that a statement binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0]
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
