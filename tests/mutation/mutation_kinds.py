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
"""Mutants of a source file, made from its syntax tree: one small change each, which a test should notice.

What is changed:

- comparison: ``<`` to ``<=`` and ``>=`` (and so on), ``==`` to ``!=``, ``in`` to ``not in``, ``is`` to ``is not``
- arithmetic: ``+`` to ``-``, ``*`` to ``/``, ``//``, ``%`` and ``**`` to ``*``, ``&`` to ``|`` and back; ``+=`` to
  ``-=``; ``-x`` and ``~x`` to ``x``
- boolean: ``and`` to ``or`` and back, one operand left out, ``not x`` to ``x``
- number: ``n`` to ``n + 1`` and to 0
- truth: ``True`` to ``False`` and back
- string: another string
- statement: a call, ``raise``, ``assert``, ``del``, ``break``, ``continue``, bare ``return`` or an assignment left out
  (``pass``)
- return: ``return x`` to ``return None``
- condition: of ``if``, ``x if c else y`` and comprehensions to ``True`` and ``False``, of ``while`` to ``False``
- branches: ``if c: a else: b`` to ``if not c``
- loop: a ``for`` over nothing
- arguments: two neighbours exchanged; one left out that has a default
- function: ``min`` to ``max``, ``any`` to ``all`` and back, ``sorted(x)`` to ``list(x)``

What is not changed, since no test could or should notice it:

- docstrings; annotations, type variables, ``cast``; names with two underscores on both sides such as ``__all__``
- calls of a logger, whole; what is printed or warned of (the call itself is left out, though)
- ``raise`` but as a whole: its message is for people; so is what an exception is made with elsewhere
- strings of three words or more, and the inside of f-strings (an f-string that is no message changes as a whole)
- ``zip(strict=...)`` and ``encoding=...``
- bodies of abstract methods and overloads; what stands under ``if TYPE_CHECKING`` and ``if __name__ == "__main__"``
- an assignment to a local name is left out only where the name had a value before; other changes would be a NameError
- the operands of ``min``, ``max`` and the like are not exchanged; ``+`` of texts does not become ``-``; a condition
  does not become False, and a loop not empty, where leaving out the only statement under it does the same
- a change after which the file is no Python, or is the text that it was
"""

import ast
import hashlib
import re
from dataclasses import dataclass

from mutation_edits import Edits
from mutation_texts import (
    Signatures,
    called_name,
    has_no_body,
    is_dunder,
    is_log_call,
    is_never_run_here,
    is_prose,
    is_text,
    makes_text,
)

_COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: (r"<", ("<=", ">=")),
    ast.LtE: (r"<=", ("<", ">")),
    ast.Gt: (r">", (">=", "<=")),
    ast.GtE: (r">=", (">", "<")),
    ast.Eq: (r"==", ("!=",)),
    ast.NotEq: (r"!=", ("==",)),
    ast.Is: (r"is", ("is not",)),
    ast.IsNot: (r"is\s+not", ("is",)),
    ast.In: (r"in", ("not in",)),
    ast.NotIn: (r"not\s+in", ("in",)),
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
# Exchanging the arguments does nothing, or makes no sense.
_KEEP_ORDER = set(
    "min max maximum minimum gcd isclose allclose equal isinstance issubclass getattr setattr hasattr zip "
    "logical_and logical_or add mul".split()
)
_TYPES = {"cast", "TypeVar", "NewType", "ParamSpec", "NamedTuple", "getLogger"}
_UNTESTED_KEYWORDS = {"strict", "encoding"}


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        file: Path from the root, with slashes.
        line: First changed line, from 1.
        statements: First lines of the statements that run where the change is.
        place: Function or class around it, ``module`` at the top.
        kind: What was changed; see the table above.
        start: First changed byte of the file.
        end: Byte after the last one.
        new: What stands there instead.
        id: Hash of the file's content and the change: an edited file has other mutants.
    """

    file: str
    line: int
    statements: tuple[int, ...]
    place: str
    kind: str
    start: int
    end: int
    new: str
    id: str

    def apply(self, text: str) -> str:
        """The file's text with the change."""
        data = text.encode()
        return (data[: self.start] + self.new.encode() + data[self.end :]).decode()


def make_mutants(file: str, text: str, signatures: Signatures) -> list[Mutant]:
    """All mutants of a file, in the order of its lines; the same file gives the same ones.

    Args:
        file: Path from the root.
        text: Its content.
        signatures: Which parameters have defaults.
    """
    edits = Edits(text)
    _Maker(edits, signatures).visit(ast.parse(text))
    content = hashlib.sha256(text.encode()).hexdigest()
    mutants = {}
    for change in edits.changes:
        key = f"{file} {content} {change.start} {change.end} {change.new}"
        made = Mutant(
            file, change.line, (change.statement,), change.place, change.kind, change.start, change.end, change.new,
            hashlib.sha256(key.encode()).hexdigest()[:16],
        )  # fmt: skip
        mutants.setdefault(made.id, made)
    return sorted(mutants.values(), key=lambda mutant: (mutant.start, mutant.end, mutant.new))


def is_python(text: str) -> bool:
    """Whether a changed file can be compiled at all."""
    try:
        compile(text, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


class _Maker(ast.NodeVisitor):
    """Walks a tree and collects changes as pieces of the text to put in."""

    def __init__(self, edits: Edits, signatures: Signatures) -> None:
        self._edits = edits
        self._signatures = signatures
        # Names of the function around, and where they get their first value.
        self._first_value: dict[str, int] = {}

    # ------------------------------ statements ------------------------------

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            before, self._edits.statement = self._edits.statement, node.lineno
            self._visit_statement(node)
            self._edits.statement = before
        else:
            super().visit(node)

    def _visit_statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Expr) and (isinstance(node.value, ast.Constant) or is_log_call(node.value)):
            return
        if self._may_go(node):
            self._edits.replace("statement", node, "pass")
        if not isinstance(node, ast.Raise | ast.Assert):
            super().visit(node)

    def _may_go(self, node: ast.stmt) -> bool:
        """Whether a statement can be left out so that the rest still makes sense."""
        match node:
            case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign():
                return True
            case ast.Raise() | ast.Assert() | ast.Delete() | ast.Break() | ast.Continue() | ast.Return(value=None):
                return True
            case ast.Assign(targets=[target]) | ast.AnnAssign(target=target, value=ast.expr()):
                if isinstance(target, ast.Name):
                    return self._first_value.get(target.id, node.lineno) < node.lineno
                return isinstance(target, ast.Attribute | ast.Subscript)
        return False

    def _alone(self, body: list[ast.stmt]) -> bool:
        return len(body) == 1 and self._may_go(body[0])

    def visit_Assign(self, node: ast.Assign) -> None:
        if not (isinstance(node.targets[0], ast.Name) and is_dunder(node.targets[0].id)):
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        old, new = _ARITHMETIC.get(type(node.op), ("", ""))
        if old and not is_text(node.value):
            self._edits.replace_between("arithmetic", node.target, node.value, re.escape(old) + "=", new + "=")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            self._edits.replace("return", node.value, "None")
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if is_never_run_here(node.test):
            return
        self._edits.replace("condition", node.test, "True")
        if node.orelse or not self._alone(node.body):
            self._edits.replace("condition", node.test, "False")
        if node.orelse:
            self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        for new in ("True", "False"):
            self._edits.replace("condition", node.test, new)
        self._negate(node.test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        # A comparison or `not` is turned round by its own rule.
        if not isinstance(test, ast.Compare | ast.UnaryOp):
            self._edits.replace("branches", test, f"(not ({self._edits.text(test)}))")

    def visit_While(self, node: ast.While) -> None:
        self._edits.replace("condition", node.test, "False")
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        if not self._alone(node.body):
            self._edits.replace("loop", node.iter, "()")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            for new in ("True", "False"):
                self._edits.replace("condition", test, new)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._edits.place.append(node.name)
        for part in (*node.decorator_list, *node.keywords, *node.body):
            self.visit(part)
        self._edits.place.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        before, self._first_value = self._first_value, _first_values(node)
        self._edits.place.append(node.name)
        defaults = [default for default in (*node.args.defaults, *node.args.kw_defaults) if default is not None]
        body = [] if has_no_body(node) else node.body
        for part in (*node.decorator_list, *defaults, *body):
            self.visit(part)
        self._edits.place.pop()
        self._first_value = before

    visit_AsyncFunctionDef = visit_FunctionDef

    # ------------------------------ expressions ------------------------------

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            pattern, others = _COMPARISONS[type(operator)]
            for other in others:
                self._edits.replace_between("comparison", left, right, pattern, other)
            left = right
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        old, new = _ARITHMETIC.get(type(node.op), ("", ""))
        if old and not is_text(node.left) and not is_text(node.right):
            self._edits.replace_between("arithmetic", node.left, node.right, re.escape(old), new)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for at, (left, right) in enumerate(zip(node.values, node.values[1:], strict=False)):
            if at == 0:
                self._edits.replace_between("boolean", left, right, rf"\b{old}\b", new)
        for left_out in node.values:
            rest = [f"({self._edits.text(value)})" for value in node.values if value is not left_out]
            self._edits.replace("boolean", node, f"({f' {old} '.join(rest)})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        kind = "boolean" if isinstance(node.op, ast.Not) else "arithmetic"
        self._edits.replace(kind, node, f"({self._edits.text(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._edits.replace("truth", node, str(not value))
        elif isinstance(value, int | float):
            for new in (value + 1, type(value)(0)):
                if new != value:
                    self._edits.replace("number", node, repr(new))
        elif isinstance(value, str) and not is_prose(value):
            self._edits.replace("string", node, repr(value + "_mutant"))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        # Python 3.11 gives wrong places inside an f-string.
        constant = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        if not is_prose(constant):
            self._edits.replace("string", node, repr("mutant"))

    def visit_Call(self, node: ast.Call) -> None:
        name = called_name(node)
        if is_log_call(node) or name in _TYPES:
            return
        if isinstance(node.func, ast.Name) and name in _FUNCTIONS:
            # list() has no other arguments; those of sorted() are left out one by one.
            if name != "sorted" or not node.keywords:
                self._edits.replace("function", node.func, _FUNCTIONS[name])
        if makes_text(node):
            return
        self._exchange_arguments(node, name)
        self._leave_out_arguments(node, name)
        self.visit(node.func)
        for part in (*node.args, *(word.value for word in node.keywords if word.arg not in _UNTESTED_KEYWORDS)):
            self.visit(part)

    def _exchange_arguments(self, node: ast.Call, name: str) -> None:
        if name in _KEEP_ORDER:
            return
        for left, right in zip(node.args, node.args[1:], strict=False):
            first, second = self._edits.text(left), self._edits.text(right)
            if first != second and not isinstance(left, ast.Starred) and not isinstance(right, ast.Starred):
                between = self._edits.between(left, right)
                self._edits.add(
                    "arguments", self._edits.span(left)[0], self._edits.span(right)[1], second + between + first
                )

    def _leave_out_arguments(self, node: ast.Call, name: str) -> None:
        parts = sorted([*node.args, *node.keywords], key=self._edits.span)
        for at, part in enumerate(parts):
            if isinstance(part, ast.keyword):
                may_go = part.arg not in {None, *_UNTESTED_KEYWORDS} and self._signatures.may_lack(name, part.arg)
            else:
                is_last = part is node.args[-1] and not isinstance(part, ast.Starred)
                may_go = is_last and self._signatures.may_lack_place(name, len(node.args) - 1)
            if not may_go:
                continue
            if at + 1 < len(parts):
                start, end = self._edits.span(part)[0], self._edits.span(parts[at + 1])[0]
            elif at:
                start, end = self._edits.span(parts[at - 1])[1], self._edits.span(part)[1]
            else:
                start, end = self._edits.span(part)[0], self._edits.span(node)[1] - 1
            self._edits.add("arguments", start, end, "")


def _first_values(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, int]:
    """Line at which each local name first has a value; 0 for parameters."""
    lines: dict[str, int] = {}
    for part in ast.walk(node):
        if isinstance(part, ast.arg):
            lines[part.arg] = 0
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            lines[part.id] = min(part.lineno, lines.get(part.id, part.lineno))
    return lines
