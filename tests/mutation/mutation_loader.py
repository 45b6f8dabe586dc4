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
"""Puts a changed text in the place of a module's file, at import; no file on disk changes."""

import ast
import sys
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

_HIT = "__mutation_hit__"


def module_name(root: Path, file: Path) -> str:
    """``package.room.module`` of a file under ``root``; a package for its ``__init__.py``."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class _Loader(SourceFileLoader):
    """Runs a given code object as the module; its source is still said to be the file."""

    def __init__(self, name: str, path: str, code: CodeType, names: dict[str, Any]) -> None:
        super().__init__(name, path)
        self._code = code
        self._names = names

    def get_code(self, fullname: str) -> CodeType:
        return self._code

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self._names)
        super().exec_module(module)


class Replaced(MetaPathFinder):
    """Finds the modules that have been given another code, before all other finders.

    Attributes:
        wanted_by: Pairs of a module and the replaced one that was first loaded while the former was: it may be by an
            import hook, of which the module itself knows nothing.
    """

    def __init__(self) -> None:
        self._modules: dict[str, tuple[Path, CodeType, dict[str, Any]]] = {}
        self.wanted_by: set[tuple[str, str]] = set()

    def add(self, name: str, file: Path, code: CodeType, names: dict[str, Any] | None = None) -> None:
        """Give a module another code.

        Args:
            name: Full name of the module.
            file: Where its source lies.
            code: What runs instead of the file's code.
            names: What stands in the module before it runs.
        """
        self._modules[name] = (file, code, names or {})

    def install(self) -> "Replaced":
        """From now on in this process and those forked from it."""
        sys.meta_path.insert(0, self)
        return self

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname not in self._modules:
            return None
        self.wanted_by.update((module, fullname) for module in being_loaded())
        file, code, names = self._modules[fullname]
        folders = [str(file.parent)] if file.name == "__init__.py" else None
        loader = _Loader(fullname, str(file), code, names)
        return spec_from_file_location(fullname, str(file), loader=loader, submodule_search_locations=folders)


def being_loaded() -> Iterator[str]:
    """Names of the modules that are being loaded, the innermost first."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_load_unlocked":
            yield frame.f_locals["spec"].name
        frame = frame.f_back


class Forbidden(MetaPathFinder):
    """Keeps modules out of a process, and remembers which were asked for."""

    def __init__(self, names: set[str]) -> None:
        self._names = names
        self.asked: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname in self._names:
            if fullname not in self.asked:
                self.asked.append(fullname)
            raise ImportError(f"{fullname} is to be mutated: it must not be loaded yet", name=fullname)


def with_hits(text: str, path: Path, hit: Callable[[int], None]) -> tuple[CodeType, dict[str, Any]]:
    """The code of a text that calls ``hit`` with the first line of each statement before it runs, and its names.

    Calls in the code cost less than a tracing function: what is not of the text runs as fast as ever.
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
                setattr(node, field, _counted(body))
    return compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True), {_HIT: hit}


def _counted(body: list[ast.stmt]) -> list[ast.stmt]:
    counted: list[ast.stmt] = []
    for at, statement in enumerate(body):
        is_docstring = at == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if not (is_docstring or is_future):
            call = ast.Call(ast.Name(_HIT, ast.Load()), [ast.Constant(statement.lineno)], [])
            counted.append(ast.copy_location(ast.Expr(call), statement))
        counted.append(statement)
    return counted
