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
"""What a package uses of verl, read from its syntax trees: the other side of the list in ``gad_verl.compat``.

Types are followed as far as a syntax tree tells: imports, annotations, constructors, ``super()``, attributes that verl
assigns. Of objects whose type stays unknown, private names that verl alone defines are found, and assignments to names
of verl's functions.
"""

import ast
import re
from dataclasses import dataclass, field
from functools import cached_property

from seam_types import FUNCTIONS, Types, Value, is_documented, is_self, is_super

from gad_verl.compat import OVERRIDDEN, PACKAGES, REPLACED, USED
from gad_verl.compat.source import Found, Module, Sources

_BY_NAME = ("getattr", "hasattr", "setattr")
# Attributes of verl's trainer that are worker groups: verl takes them from a dictionary, so their type is not seen.
_OPAQUE = ("actor_rollout_wg", "ref_policy_wg", "critic_wg")
# What a class shows of itself to Python, not to verl.
_NOT_VERLS = ("__class__", "__dict__", "__doc__", "__module__", "__name__")


@dataclass
class Use:
    """One name of verl in the code.

    Args:
        name: Module and name, of a member with the class of verl that defines it; ``?.name`` where the object's type is
            unknown.
        how: USED, OVERRIDDEN or REPLACED; the strongest of all places.
        places: Files and lines.
        calls: Place of each call, how many arguments it gives by place (without ``self``; ``ALL`` for ``*arguments``),
            and the names of the others.
    """

    name: str
    how: str = USED
    places: list[str] = field(default_factory=list)
    calls: list[tuple[str, int, frozenset[str]]] = field(default_factory=list)


ALL = 1000
STRENGTH = (USED, OVERRIDDEN, REPLACED)


class Seam:
    """All that one package uses of verl.

    Args:
        sources: The package, verl and what belongs to it.
        package: Name of the package.
    """

    def __init__(self, sources: Sources, package: str) -> None:
        self.types = Types(sources, package)
        self.sources = sources
        self.uses: dict[str, Use] = {}
        # Attributes of objects of unknown types.
        self.untyped: set[str] = set()
        for module in self.types.modules:
            _Reader(self, module).visit(module.tree)

    def add(self, name: str, how: str, module: Module, node: ast.AST) -> Use:
        """Note one place."""
        use = self.uses.setdefault(name, Use(name))
        use.how = max(use.how, how, key=STRENGTH.index)
        folder = self.sources.folders[module.name.split(".")[0]]
        use.places.append(f"{module.path.relative_to(folder)}:{node.lineno}")
        return use


class _Reader(ast.NodeVisitor):
    """Reads one file."""

    def __init__(self, seam: Seam, module: Module) -> None:
        self.seam = seam
        self.types = seam.types
        self.module = module
        self.kind: Found | None = None
        self.function: ast.FunctionDef | None = None
        self.scopes: list[dict[str, Value | None]] = [{}]

    # ------------------------------ expressions ------------------------------

    def value(self, node: ast.AST) -> Value | None:
        """What an expression stands for, as far as it has to do with verl."""
        if isinstance(node, ast.Name):
            for scope in reversed(self.scopes):
                if node.id in scope:
                    return scope[node.id]
            found = self.types.sources.find(self.module.name, node.id)
            return found and Value(found, is_object=False)
        if isinstance(node, ast.Attribute):
            owner = self.value(node.value)
            if owner is not None and is_super(node.value):
                found = self.types.verl_member(owner.found, node.attr)
                return found and Value(found, is_object=False)
            return owner and self.types.type_of(owner.found, node.attr)
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) == "getattr" and isinstance(node.args[1], ast.Constant):
                owner = self.value(node.args[0])
                return owner and self.types.type_of(owner.found, node.args[1].value)
            if is_super(node) and self.kind is not None:
                return Value(self.types.whole(self.kind)[0], is_object=True)
            function = self.value(node.func)
            if function is None or function.is_object:
                return None
            if isinstance(function.found.node, ast.ClassDef):
                return Value(function.found, is_object=True)
            return self.types.annotated(function.found.module, getattr(function.found.node, "returns", None))
        return None

    def _key(self, owner: Value | None, name: str) -> str | None:
        """Full name of a member of something; None where it is none of verl."""
        if owner is None:
            return None
        found = owner.found
        if isinstance(found.node, ast.Module):
            known = self.types.sources.find(found.module.name, name)
            is_name = self.types.is_verl(found) and known is not None and not isinstance(known.node, ast.Module)
            return f"{found.module.name}.{name}" if is_name else None
        if not isinstance(found.node, ast.ClassDef) or name in _NOT_VERLS or is_documented(found):
            return None
        member = self.types.verl_member(found, name)
        return member and f"{member.module.name}.{member.name}"

    def _attribute(self, owner: ast.expr, name: str, is_stored: bool, node: ast.AST) -> str | None:
        how = REPLACED if is_stored else USED
        value = self.value(owner)
        key = self._key(value, name)
        if key is None and self._looks_like_verl(owner, value, name, is_stored):
            key = f"?.{name}"
        if key is not None:
            self.seam.add(key, how, self.module, node)
        elif value is None and not is_self(owner):
            self.seam.untyped.add(name)
        return key

    def _looks_like_verl(self, owner: ast.expr, value: Value | None, name: str, is_stored: bool) -> bool:
        """Whether a name that no type explains is one of verl: by what is known of its owner, and by the name."""
        if is_self(owner) or name in self.types.own_names or name.startswith("__"):
            return False
        if value is not None:
            # A worker group has the methods of its workers.
            is_verls = value.is_object and self.types.is_verl(value.found) and not is_documented(value.found)
            if not is_verls or self.types.sources.member(value.found, name) is not None:
                return False
        else:
            is_verls = isinstance(owner, ast.Attribute) and owner.attr in _OPAQUE
        if name.startswith("_"):
            return name in self.types.verl_private
        # No object of verl reaches the tools.
        if is_stored and name in self.types.verl_attributes and ".tools." not in self.module.name:
            return True
        return (is_stored or is_verls) and name in self.types.verl_functions

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._attribute(node.value, node.attr, isinstance(node.ctx, ast.Store | ast.Del), node)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A module that is named by a string: hooks at its import."""
        is_name = isinstance(node.value, str) and re.fullmatch(r"\w+(\.\w+)+", node.value)
        if is_name and node.value.split(".")[0] in PACKAGES and self.types.sources.module(node.value):
            self.seam.add(node.value, USED, self.module, node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        name = ast.unparse(node.func)
        given = node.args[1] if len(node.args) > 1 else None
        if name in _BY_NAME and not isinstance(given, ast.Constant):
            # Names from a table: those that the function holds.
            held = (child.value for child in ast.walk(self.function or node) if isinstance(child, ast.Constant))
            self.seam.untyped |= {value for value in held if isinstance(value, str) and value.isidentifier()}
        if isinstance(given, ast.Constant) and isinstance(given.value, str):
            if name in _BY_NAME:
                self._attribute(node.args[0], given.value, name == "setattr", node)
            elif name.endswith("patch.object"):
                self._patched(node, given.value)
        function = self.value(node.func)
        if function is not None and not function.is_object and self.types.is_verl(function.found):
            self._called(node)

    def _patched(self, node: ast.Call, name: str) -> None:
        if self._attribute(node.args[0], name, True, node) is None:
            for place in self.module.tree.body:
                for alias in place.names if isinstance(place, ast.Import) else ():
                    if (alias.asname or alias.name) == ast.unparse(node.args[0]):
                        self.seam.add(f"{alias.name}.{name}", REPLACED, self.module, node)

    def _called(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            key = self._key(self.value(node.func.value), node.func.attr)
        elif isinstance(node.func, ast.Name):
            key = self._imported.get(node.func.id)
        else:
            return
        if key is not None and key in self.seam.uses:
            keywords = frozenset(keyword.arg for keyword in node.keywords if keyword.arg is not None)
            # Of ``*arguments`` as many as there are parameters before those that are given by name.
            starred = any(isinstance(argument, ast.Starred) for argument in node.args)
            count = ALL if starred else len(node.args)
            self.seam.uses[key].calls.append((self.seam.uses[key].places[-1], count, keywords))

    # ------------------------------ names ------------------------------

    @cached_property
    def _imported(self) -> dict[str, str]:
        """Local names of what the file imports from verl, with their full names."""
        found = {}
        for node in ast.walk(self.module.tree):
            if isinstance(node, ast.ImportFrom) and self.module.origin(node).split(".")[0] in PACKAGES:
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{self.module.origin(node)}.{alias.name}"
        return found

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            module = self.types.sources.module(alias.name)
            if module is not None and alias.name.split(".")[0] in PACKAGES:
                local = alias.asname or alias.name
                self.scopes[-1][local] = Value(Found(module, "", module.tree), is_object=False)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        origin = self.module.origin(node)
        for alias in node.names:
            found = self.types.sources.find(origin, alias.name)
            if found is not None:
                self.scopes[-1][alias.asname or alias.name] = Value(found, is_object=False)
            is_module = found is not None and isinstance(found.node, ast.Module)
            if origin.split(".")[0] in PACKAGES and not is_module:
                self.seam.add(f"{origin}.{alias.name}", USED, self.module, node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self.kind = self.kind, Found(self.module, node.name, node)
        for name, member in self.types.sources.members(node).items():
            has_value = isinstance(member, FUNCTIONS | ast.Assign) or getattr(member, "value", None) is not None
            if isinstance(member, ast.Attribute) or not has_value or name in _NOT_VERLS:
                continue
            for whole in self.types.whole(self.kind):
                theirs = self.types.verl_member(whole, name)
                if theirs is not None:
                    self.seam.add(f"{theirs.module.name}.{theirs.name}", OVERRIDDEN, self.module, member)
        self.generic_visit(node)
        self.kind = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        scope = {argument.arg: self.types.annotated(self.module, argument.annotation) for argument in arguments}
        if self.kind is not None and arguments and arguments[0].arg in ("self", "cls") and len(self.scopes) == 1:
            scope[arguments[0].arg] = Value(self.types.whole(self.kind)[0], is_object=True)
        for decorator in node.decorator_list:
            self.visit(decorator)
        self.scopes.append(scope)
        outer, self.function = self.function, node
        for statement in [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body]:
            self.visit(statement)
        self.function = outer
        self.scopes.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        targets, values = node.targets[0], node.value
        pairs = [(targets, values)]
        if isinstance(targets, ast.Tuple) and isinstance(values, ast.Tuple):
            pairs = list(zip(targets.elts, values.elts, strict=False))
        for target, value in pairs:
            if isinstance(target, ast.Name):
                self.scopes[-1][target.id] = self.value(value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            self.scopes[-1][node.target.id] = self.types.annotated(self.module, node.annotation)
