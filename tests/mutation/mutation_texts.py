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
"""What in a syntax tree is text for people or has no effect on a run, and which parameters have defaults."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_LOG_METHODS = {"debug", "info", "warning", "warn", "error", "exception", "critical", "fatal", "log"}
_LOGGER = re.compile(r"log(ger|ging)?$", re.IGNORECASE)
_NO_BODY = {"abstractmethod", "overload"}


def called_name(node: ast.Call) -> str:
    """Last part of what is called: ``f`` of ``a.b.f(x)``; empty where it has no name."""
    return last_name(node.func)


def last_name(node: ast.expr) -> str:
    """Last part of a dotted name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def is_log_call(node: ast.expr) -> bool:
    """Whether this is ``logger.info(...)`` or the like."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    return node.func.attr in _LOG_METHODS and bool(_LOGGER.search(last_name(node.func.value)))


def makes_text(node: ast.Call) -> bool:
    """Whether the arguments are words for people: of an exception, a warning, ``print``."""
    name = called_name(node)
    return name in {"print", "warn"} or name.endswith(("Error", "Exception", "Warning", "Exit", "Interrupt"))


def is_text(node: ast.expr) -> bool:
    """Whether an operand is a text or a list by its looks, so that arithmetic on it would only be a TypeError."""
    if isinstance(node, ast.BinOp):
        return is_text(node.left) or is_text(node.right)
    return isinstance(node, ast.JoinedStr | ast.List | ast.ListComp | ast.Tuple) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def is_prose(text: str) -> bool:
    """Whether a string is a sentence rather than a key, a name or a mark."""
    return len(text.split()) >= 3


def is_dunder(name: str) -> bool:
    """Whether a name is one of Python's own, as ``__all__``."""
    return name.startswith("__") and name.endswith("__")


def is_never_run_here(test: ast.expr) -> bool:
    """Whether a condition is ``TYPE_CHECKING`` or ``__name__ == "__main__"``."""
    if isinstance(test, ast.Compare):
        return last_name(test.left) == "__name__"
    return last_name(test) == "TYPE_CHECKING"


def has_no_body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is only declared."""
    return any(last_name(decorator) in _NO_BODY for decorator in node.decorator_list)


class Signatures:
    """Which arguments of the package's own functions and classes may be left out.

    Names are looked up without their modules. Where a name stands for several things, an argument may be left out if
    it may be for one of them. What the package does not define (torch, verl) is taken to have defaults for arguments
    given by keyword, and for none given by place.
    """

    def __init__(self, files: list[Path]) -> None:
        self._optional: dict[str, set[str | int]] = {}
        for file in files:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    self._optional.setdefault(node.name, set()).update(_optional_of_function(node))
                elif isinstance(node, ast.ClassDef):
                    self._optional.setdefault(node.name, set()).update(_optional_of_class(node))

    def may_lack(self, name: str, keyword: str) -> bool:
        """Whether a call of ``name`` without this keyword is a call that Python accepts, as far as known."""
        return keyword in self._optional.get(name, {keyword})

    def may_lack_place(self, name: str, place: int) -> bool:
        """The same for the argument at a place, from 0, ``self`` not counted."""
        return place in self._optional.get(name, set())


def _optional_of_function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str | int]:
    arguments = [*node.args.posonlyargs, *node.args.args]
    is_method = bool(arguments) and arguments[0].arg in {"self", "cls"}
    first = len(arguments) - len(node.args.defaults)
    optional: set[str | int] = {argument.arg for argument in arguments[first:]}
    optional.update(at - is_method for at in range(first, len(arguments)))
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if default is not None:
            optional.add(argument.arg)
    return optional


def _optional_of_class(node: ast.ClassDef) -> set[str | int]:
    """Of ``__init__``, or of the fields of a dataclass."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return _optional_of_function(part)
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]
    optional: set[str | int] = set()
    for at, field in enumerate(fields):
        if field.value is not None:
            optional.update({field.target.id, at})
    return optional


def python_files(root: Path, paths: list[Path]) -> Iterator[Path]:
    """The Python files that are named or lie in the named folders, sorted, without repetition."""
    found: set[Path] = set()
    for path in paths:
        path = (root / path).resolve()
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; paths are read from {root}")
        found.update(path.rglob("*.py") if path.is_dir() else [path])
    yield from sorted(file for file in found if "__pycache__" not in file.parts)
