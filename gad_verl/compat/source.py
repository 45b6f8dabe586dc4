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
"""Reads names, members of classes and signatures from Python sources. Imports none of them."""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Signature:
    """Parameters of a function.

    Args:
        positional: Names of those that can be given by place, ``self`` too.
        keywords: Names of those that must be given by name.
        rest: ``*args`` and ``**kwargs``, by their names with the stars.
        optional: Names with a default.
    """

    positional: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()

    @classmethod
    def of(cls, arguments: ast.arguments) -> "Signature":
        """From a syntax tree."""
        positional = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args]]
        keywords = [argument.arg for argument in arguments.kwonlyargs]
        optional = positional[len(positional) - len(arguments.defaults) :]
        pairs = zip(keywords, arguments.kw_defaults, strict=True)
        optional += [keyword for keyword, default in pairs if default is not None]
        rest = [
            stars + argument.arg for stars, argument in (("*", arguments.vararg), ("**", arguments.kwarg)) if argument
        ]
        return cls(tuple(positional), tuple(keywords), tuple(rest), frozenset(optional))

    @classmethod
    def parse(cls, parameters: str) -> "Signature":
        """From text in Python's notation, e.g. ``self, batch, *, metrics``."""
        return cls.of(ast.parse(f"lambda {parameters}: ...", mode="eval").body.args)  # type: ignore[attr-defined]

    def __str__(self) -> str:
        parts = [*self.positional, *[name for name in self.rest if name[1] != "*"]]
        if self.keywords:
            parts += [*([] if len(parts) > len(self.positional) else ["*"]), *self.keywords]
        return f"({', '.join([*parts, *[name for name in self.rest if name[1] == '*']])})"

    def difference(self, wanted: "Signature", exact: bool) -> str | None:
        """What does not fit, in words; None where all does.

        Args:
            wanted: As an override has it, or as a call gives it: names before ``*`` by place, the others by name.
            exact: Whether all parameters must be the same, as for an override; a call may leave optional ones out.
        """
        if exact:
            same = (self.positional, self.keywords, self.rest) == (wanted.positional, wanted.keywords, wanted.rest)
            return None if same else f"takes {self}, not {wanted}"
        takes_any = any(name.startswith("**") for name in self.rest)
        by_place = self.positional[: len(wanted.positional)] == wanted.positional
        known = {*self.positional, *self.keywords}
        unknown = [name for name in wanted.keywords if name not in known and not takes_any]
        needed = known - self.optional - {*wanted.positional, *wanted.keywords}
        if by_place and not unknown and not needed:
            return None
        return f"takes {self}, and is called as {wanted}"


class Module:
    """One source file.

    Args:
        name: Dotted.
        path: Of the file.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path

    @cached_property
    def tree(self) -> ast.Module:
        """Syntax tree."""
        return ast.parse(self.path.read_text(encoding="utf-8"))

    @cached_property
    def names(self) -> dict[str, ast.AST]:
        """What the top level binds, inside conditions and ``try`` too; a definition goes before an assignment."""
        return _bindings(self.tree.body)

    @cached_property
    def stars(self) -> list[str]:
        """Modules from which the top level imports everything."""
        nodes = [node for node in self.tree.body if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]
        return [self.origin(node) for node in nodes]

    @cached_property
    def reads(self) -> tuple[set[str], set[str]]:
        """Names that the file reads from ``self`` or ``cls``, and all that it reads: variables and attributes.

        Attributes of an imported package do not count: ``ray.init`` is no call of a method ``init``.
        """
        own: set[tuple[str, str]] = set()
        others: set[tuple[str, str]] = set()
        variables: set[str] = set()
        packages: set[str] = set()
        for node in _walk(self.tree):
            if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Store):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                (own if owner in ("self", "cls") else others).add((owner, node.attr))
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                variables.add(node.id)
            elif isinstance(node, ast.Import):
                packages |= set(_bound(node))
        own_names = {name for _, name in own}
        return own_names, own_names | variables | {name for owner, name in others if owner not in packages}

    def origin(self, node: ast.ImportFrom) -> str:
        """Module that an import of this file takes its names from."""
        if not node.level:
            return node.module or ""
        folders = self.name.split(".")
        keep = len(folders) - node.level + (self.path.name == "__init__.py")
        return ".".join([*folders[:keep], *([node.module] if node.module else [])])


@dataclass(frozen=True)
class Found:
    """Where a name is defined.

    Args:
        module: File of the definition.
        name: Dotted name in it; a class before its member.
        node: The definition: of a function, a class, an import from elsewhere, or an assignment.
    """

    module: Module
    name: str
    node: ast.AST


class Sources:
    """Packages as sources; files are read when they are asked for.

    Args:
        folders: Folder of each top-level package.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        self._modules: dict[str, Module | None] = {}
        self._found: dict[tuple[str, str], Found | None] = {}
        self._members: dict[ast.ClassDef, dict[str, ast.AST]] = {}

    def module(self, name: str) -> Module | None:
        """A module; None where there is none."""
        if name not in self._modules:
            top, *rest = name.split(".")
            self._modules[name] = None
            if top in self.folders:
                path = self.folders[top].joinpath(*rest)
                for candidate in (path.with_suffix(".py") if rest else path, path / "__init__.py"):
                    if candidate.is_file():
                        self._modules[name] = Module(name, candidate)
                        break
        return self._modules[name]

    def find(self, module: str, dotted: str) -> Found | None:
        """A name of a module, ``Class.member`` too, where it is defined: imports and base classes are followed."""
        if (module, dotted) not in self._found:
            first, *rest = dotted.split(".")
            found = self._resolve(module, first)
            for name in rest:
                found = found and self.member(found, name)
            self._found[module, dotted] = found
        return self._found[module, dotted]

    def _resolve(self, module: str, name: str) -> Found | None:
        file = self.module(module)
        if file is None:
            return None
        node = file.names.get(name)
        if isinstance(node, ast.ImportFrom):
            wanted = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
            # A package may import its own submodule.
            if (file.origin(node), wanted) != (module, name):
                return self._resolve(file.origin(node), wanted) or Found(file, name, node)
            node = None
        if node is None:
            # A submodule, or what ``from x import *`` brings.
            inner = self.module(f"{module}.{name}")
            stars = (self._resolve(other, name) for other in file.stars)
            return Found(inner, "", inner.tree) if inner else next(filter(None, stars), None)
        return Found(file, name, node)

    def member(self, found: Found, name: str) -> Found | None:
        """Member of a class (of its instances too), or name of a module."""
        if isinstance(found.node, ast.Module):
            return self._resolve(found.module.name, name)
        for kind in self.lineage(found):
            node = self.members(kind.node).get(name)
            if node is not None:
                return Found(kind.module, f"{kind.name}.{name}", node)
        return None

    def lineage(self, found: Found) -> list[Found]:
        """A class and its bases in the order of a look-up, as far as their sources are known."""
        kinds = list(self._above(found))
        # What stands above several classes comes behind all of them.
        nodes = [kind.node for kind in kinds]
        return [kind for at, kind in enumerate(kinds) if kind.node not in nodes[at + 1 :]]

    def _above(self, found: Found) -> Iterator[Found]:
        if isinstance(found.node, ast.ClassDef):
            yield found
            for base in found.node.bases:
                dotted = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
                # A base of the same name is one that an import brings under ``try``.
                if dotted != found.node.name and (above := self.find(found.module.name, dotted)) is not None:
                    yield from self._above(above)

    def members(self, node: ast.AST) -> dict[str, ast.AST]:
        """What a class body binds, and what its methods assign to ``self``; of anything but a class nothing."""
        if not isinstance(node, ast.ClassDef):
            return {}
        if node not in self._members:
            members = _bindings(node.body)
            for method in _statements(node.body):
                for child in _walk(method) if isinstance(method, _Function) else ():
                    if _is_stored_on_self(child):
                        members.setdefault(child.attr, child)
            self._members[node] = members
        return self._members[node]

    def signature(self, found: Found) -> Signature | None:
        """Parameters of a function, or of what makes an object of a class; None where the source does not tell."""
        if isinstance(found.node, _Function):
            return Signature.of(found.node.args)
        if not isinstance(found.node, ast.ClassDef):
            return None
        maker = self.member(found, "__init__")
        if maker is not None:
            made = self.signature(maker)
            return made and Signature(made.positional[1:], made.keywords, made.rest, made.optional)
        fields: dict[str, ast.AnnAssign] = {}
        for kind in reversed(self.lineage(found)):
            fields |= {name: node for name, node in self.members(kind.node).items() if isinstance(node, ast.AnnAssign)}
        optional = frozenset(name for name, node in fields.items() if node.value is not None)
        return Signature(tuple(fields), optional=optional) if fields else None


def imports(tree: ast.AST, name: str) -> bool:
    """Whether code brings a name into its own scope by ``from x import name``."""
    return any(
        isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names) for node in ast.walk(tree)
    )


def package_folder(package: str) -> Path | None:
    """Folder of an installed top-level package; does not import it."""
    loaded = sys.modules.get(package)
    spec = importlib.util.find_spec(package) if loaded is None else None
    folders = getattr(loaded, "__path__", None) or (spec and spec.submodule_search_locations) or ()
    return next((Path(folder) for folder in folders if Path(folder, "__init__.py").is_file()), None)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, in no order; in half the time of ``ast.walk``, which is most of the check at start."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        for value in vars(node).values():
            if isinstance(value, ast.AST):
                waiting.append(value)
            elif isinstance(value, list):
                waiting += [child for child in value if isinstance(child, ast.AST)]


def _is_stored_on_self(node: ast.AST) -> TypeGuard[ast.Attribute]:
    if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
        return False
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def _bindings(body: list[ast.stmt]) -> dict[str, ast.AST]:
    bound: dict[str, ast.AST] = {}
    for node in _statements(body):
        for name in _bound(node):
            if name not in bound or (
                isinstance(node, _Function | ast.ClassDef) and not isinstance(bound[name], _Function | ast.ClassDef)
            ):
                bound[name] = node
    return bound


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
    if isinstance(node, _Function | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0]
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
