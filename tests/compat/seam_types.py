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
"""What a syntax tree tells of types: imports, annotations, constructors, attributes that a class assigns."""

import ast
import re
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from gad_verl.compat import PACKAGES
from gad_verl.compat.source import Found, Module, Sources

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class Value(NamedTuple):
    """What an expression stands for: a module, class or function itself, or an object of a class."""

    found: Found
    is_object: bool


class Types:
    """The classes of one package and of verl, and which names each of them gives.

    Args:
        sources: The package, verl and what belongs to it.
        package: Name of the package.
    """

    def __init__(self, sources: Sources, package: str) -> None:
        self.sources = sources
        self._assigned_in: dict[ast.ClassDef, dict[str, list[tuple[ast.FunctionDef, ast.stmt]]]] = {}
        folder = sources.folders[package]
        self.modules = []
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            # The list itself names what it speaks of.
            if name.split(".")[1:2] != ["compat"]:
                self.modules.append(sources.module(name) or Module(name, path))

    # ------------------------------ names ------------------------------

    @cached_property
    def own_names(self) -> set[str]:
        """Names that the package itself gives: at the top of its modules, and in and by its classes."""
        names: set[str] = set()
        for module in self.modules:
            names |= set(module.names)
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ClassDef):
                    names |= set(self.sources.members(node))
        return names

    @cached_property
    def _texts(self) -> dict[Path, str]:
        folders = (self.sources.folders[package] for package in PACKAGES)
        return {path: path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py")}

    def _verl_names(self, pattern: str) -> set[str]:
        found = re.compile(pattern, re.MULTILINE)
        # The fields of a configuration are what users set.
        return {name for path, text in self._texts.items() if "config" not in str(path) for name in found.findall(text)}

    @cached_property
    def verl_functions(self) -> set[str]:
        """Names of all functions and methods of verl."""
        return self._verl_names(r"\bdef (\w+)")

    @cached_property
    def verl_attributes(self) -> set[str]:
        """Names of attributes that verl's objects assign to themselves."""
        return self._verl_names(r"\bself\.(\w+)(?:: [^=\n]+)? = ")

    @cached_property
    def verl_private(self) -> set[str]:
        """Names of verl that begin with an underscore: functions, attributes of objects, variables of modules."""
        return self._verl_names(r"(?:\bdef |\bself\.|^)(_[A-Za-z]\w*)")

    # ------------------------------ types ------------------------------

    @cached_property
    def _leaves(self) -> list[list[Found]]:
        """Look-up order of each class of ours above verl's from which no other class of ours derives."""
        kinds = [
            Found(module, name, node)
            for module in self.modules
            for name, node in module.names.items()
            if isinstance(node, ast.ClassDef)
        ]
        orders = [self.sources.lineage(kind) for kind in kinds]
        orders = [order for order in orders if any(self.is_verl(kind) for kind in order)]
        bases = {kind.node for order in orders for kind in order[1:]}
        return [order for order in orders if order[0].node not in bases]

    def whole(self, kind: Found) -> list[Found]:
        """The complete classes that a class is a part of: itself, or those that are made of it and of verl's."""
        found = [order[0] for order in self._leaves if any(part.node is kind.node for part in order)]
        return found or [kind]

    def is_verl(self, found: Found) -> bool:
        """Whether something stands in verl or in what belongs to it."""
        return found.module.name.split(".")[0] in PACKAGES

    def verl_member(self, found: Found, name: str) -> Found | None:
        """Member of a class where verl defines it, behind the overrides of ours."""
        for kind in self.sources.lineage(found):
            if self.is_verl(kind) and name in self.sources.members(kind.node):
                return Found(kind.module, f"{kind.name}.{name}", self.sources.members(kind.node)[name])
        return None

    def annotated(self, module: Module, note: ast.expr | None) -> Value | None:
        """Object of an annotated class."""
        if isinstance(note, ast.Constant) and isinstance(note.value, str):
            note = ast.parse(note.value, mode="eval").body
        if isinstance(note, ast.BinOp):
            return self.annotated(module, note.left) or self.annotated(module, note.right)
        if isinstance(note, ast.Subscript) and ast.unparse(note.value) in ("Optional", "typing.Optional"):
            return self.annotated(module, note.slice)
        if isinstance(note, ast.Name | ast.Attribute):
            found = self.sources.find(module.name, ast.unparse(note)) or self._found_in_functions(module, note)
            if found is not None and isinstance(found.node, ast.ClassDef):
                return Value(found, is_object=True)
        return None

    def _found_in_functions(self, module: Module, note: ast.expr) -> Found | None:
        """A class that a function of the module imports."""
        for node in ast.walk(module.tree) if isinstance(note, ast.Name) else ():
            if isinstance(node, ast.ImportFrom) and any(alias.name == note.id for alias in node.names):
                return self.sources.find(module.origin(node), note.id)
        return None

    def type_of(self, owner: Found, name: str) -> Value | None:
        """What a member of a class or module is."""
        found = self.sources.member(owner, name)
        if found is None or isinstance(found.node, ast.Module | ast.ClassDef):
            return found and Value(found, is_object=False)
        if isinstance(found.node, FUNCTIONS):
            is_property = any("property" in ast.unparse(decorator) for decorator in found.node.decorator_list)
            return self.annotated(found.module, found.node.returns) if is_property else Value(found, is_object=False)
        if isinstance(found.node, ast.AnnAssign):
            return self.annotated(found.module, found.node.annotation)
        for kind in self.sources.lineage(owner) if isinstance(owner.node, ast.ClassDef) else ():
            for method, node in self._assignments(kind.node).get(name, ()):
                value = self._assigned(kind.module, method, node)
                if value is not None:
                    return value
        return None

    def _assignments(self, kind: ast.ClassDef) -> dict[str, list[tuple[ast.FunctionDef, ast.stmt]]]:
        """Statements of a class that assign to ``self``, by name, with their methods."""
        if kind not in self._assigned_in:
            found: dict[str, list[tuple[ast.FunctionDef, ast.stmt]]] = {}
            for method in kind.body:
                for node in ast.walk(method) if isinstance(method, FUNCTIONS) else ():
                    if isinstance(node, ast.Assign | ast.AnnAssign):
                        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                        if isinstance(target, ast.Attribute) and is_self(target.value):
                            found.setdefault(target.attr, []).append((method, node))
            self._assigned_in[kind] = found
        return self._assigned_in[kind]

    def _assigned(self, module: Module, method: ast.FunctionDef, node: ast.stmt) -> Value | None:
        """Type of what a statement of a method assigns."""
        if isinstance(node, ast.AnnAssign):
            return self.annotated(module, node.annotation)
        if isinstance(node.value, ast.Name):
            notes = {argument.arg: argument.annotation for argument in method.args.args}
            return self.annotated(module, notes.get(node.value.id))
        return self.annotated(module, node.value.func) if isinstance(node.value, ast.Call) else None


def is_self(node: ast.AST) -> bool:
    """Whether an expression is ``self``."""
    return isinstance(node, ast.Name) and node.id == "self"


def is_super(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "super"


def is_documented(found: Found) -> bool:
    """Whether a class is one of verl's configuration: its fields are what users set."""
    return "config" in found.module.name.split(".")
