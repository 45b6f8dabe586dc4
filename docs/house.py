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
"""Measures the package from its sources: rooms (folders), what they import of each other, sizes. Imports none of it.

    python docs/house.py                figures of the working tree
    python docs/house.py --tree FOLDER  of another checkout, e.g. one from before a rebuilding
    python docs/house.py picture        draws docs/rooms.svg, which docs/architecture.md shows

A code line is a line with a token of code: no docstring, comment, licence header or blank line.
"""

import argparse
import ast
import io
import json
import sys
import tokenize
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "gad_verl"
PICTURE = "docs/rooms.svg"
TOOLS = "tools"
LONG_FILE_LINES = 400
LONG_FUNCTION_LINES = 60
# Base classes of verl's V1 trainer.
_VERL_TRAINERS = ("PPOTrainer", "PPOTrainerSync", "PPOTrainerColocateAsync", "PPOTrainerSeparateAsync")
# Rooms whose files a training process loads; what they import belongs to training too.
_TRAINING_ROOMS = ("trainer", "workers", "preflight", "rollout")
# From the ground up, which is also an order to read them in: a room imports nothing of one that stands behind it.
ORDER = (
    "errors",
    "core",
    "compat",
    "record",
    "guardian",
    "config",
    "data",
    "workers",
    "discriminator",
    "trainer",
    "preflight",
    "rollout",
    "cpu",
    "plugin",
    # What people run before and after a training; no training imports any of it.
    "tools",
    "tools/api",
    "tools/data",
    "tools/estimate",
    "tools/report",
    "tools/export",
    "tools/teacher",
    "tools/evaluation",
    "tools/doctor",
    "tools/commands",
    "cli",
)


def code_line_numbers(source: str) -> set[int]:
    """Numbers of the lines that hold code."""
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                skipped |= set(range(first.lineno, first.end_lineno + 1))
    empty = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in empty:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return lines - skipped


@dataclass(frozen=True)
class SourceFile:
    """One file of the package.

    Args:
        path: Relative to the package's folder.
        source: Its text.
    """

    path: Path
    source: str

    @property
    def module(self) -> str:
        """Dotted name."""
        parts = [PACKAGE, *self.path.with_suffix("").parts]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """Folder below the package, at most two deep below ``tools``; a file at the top is a room of its own."""
        folders = self.path.parts[:-1]
        if not folders:
            return self.path.stem
        return "/".join(folders[:2]) if folders[0] == TOOLS else folders[0]

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.source)

    @cached_property
    def code_lines(self) -> int:
        """Number of code lines."""
        return len(code_line_numbers(self.source))

    @property
    def num_lines(self) -> int:
        """All lines."""
        return self.source.count("\n")

    def imports(self, modules: Iterable[str]) -> set[str]:
        """Modules of the package that it imports, inside functions too; not those for type checkers alone."""
        known = set(modules)
        found: set[str] = set()
        for node in _running(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name in known}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in known:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (inner & known) or {node.module}
        return found - {self.module}


def _running(tree: ast.AST) -> Iterable[ast.AST]:
    """All nodes but those below ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _running(node)


class House:
    """The package as rooms and arrows.

    Args:
        root: A checkout.
        room_of: The room of a file.
    """

    def __init__(self, root: Path, room_of: Callable[[SourceFile], str] = lambda file: file.room) -> None:
        self._room_of = room_of
        folder = root / PACKAGE
        paths = sorted(folder.rglob("*.py"))
        self.files = [SourceFile(path.relative_to(folder), path.read_text(encoding="utf-8")) for path in paths]
        self._by_module = {file.module: file for file in self.files}

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Modules that each module imports."""
        return {file.module: file.imports(self._by_module) for file in self.files}

    @cached_property
    def arrows(self) -> dict[tuple[str, str], set[tuple[str, str]]]:
        """From room to room, with the modules that make each arrow. The package's own face draws none."""
        found: dict[tuple[str, str], set[tuple[str, str]]] = {}
        for module, others in self.imports.items():
            for other in others:
                rooms = (self._room_of(self._by_module[module]), self._room_of(self._by_module[other]))
                if rooms[0] != rooms[1] and "__init__" not in rooms:
                    found.setdefault(rooms, set()).add((module, other))
        return found

    @property
    def rooms(self) -> list[str]:
        """Names of the rooms."""
        return sorted({self._room_of(file) for file in self.files} - {"__init__"})

    def circles(self) -> list[list[str]]:
        """Rooms that reach each other by their arrows."""
        return _components({room: {b for a, b in self.arrows if a == room} for room in self.rooms})

    def file_circles(self) -> list[list[str]]:
        """Modules that reach each other by their imports."""
        return _components(self.imports)

    def floors(self) -> dict[str, int]:
        """Each room stands above all that it imports; rooms of one circle share a floor."""
        below = {room: {b for a, b in self.arrows if a == room} for room in self.rooms}
        for circle in self.circles():
            for room in circle:
                below[room] -= set(circle)
        floors: dict[str, int] = {}

        def floor(room: str) -> int:
            if room not in floors:
                floors[room] = 1 + max((floor(other) for other in below[room]), default=0)
            return floors[room]

        return {room: floor(room) for room in self.rooms}

    def upward(self) -> list[str]:
        """Arrows from a room to one that stands behind it in ``ORDER``, with the modules that make them."""
        place = {room: number for number, room in enumerate(ORDER)}
        return [
            f"{a} -> {b}: {', '.join(sorted(module for module, _ in modules))}"
            for (a, b), modules in sorted(self.arrows.items())
            if place.get(b, len(place)) > place.get(a, len(place))
        ]

    @property
    def loose_modules(self) -> list[str]:
        """Files at the top of the package."""
        return [room for room in self.rooms if any(str(file.path) == f"{room}.py" for file in self.files)]

    @property
    def long_files(self) -> list[str]:
        """Files with more than ``LONG_FILE_LINES`` lines."""
        return [f"{file.path} {file.num_lines}" for file in self.files if file.num_lines > LONG_FILE_LINES]

    def closure(self, rooms: Iterable[str]) -> list[SourceFile]:
        """Files of some rooms and all that they import."""
        wanted = [file.module for file in self.files if file.room in set(rooms)]
        seen: set[str] = set()
        while wanted:
            module = wanted.pop()
            if module not in seen:
                seen.add(module)
                wanted += self.imports[module]
        return [self._by_module[module] for module in sorted(seen)]

    def mixins(self) -> list[str]:
        """Classes of ours that add to verl's trainer beside another one of ours, so that their order matters.

        A trainer that is registered with verl may have one class of ours above it, and that one none.
        """
        bases = {
            node.name: (file, [base.id for base in node.bases if isinstance(base, ast.Name)])
            for file in self.files
            for node in ast.walk(file.tree)
            if isinstance(node, ast.ClassDef)
        }

        def is_trainer(name: str) -> bool:
            return name in _VERL_TRAINERS or any(is_trainer(base) for base in bases.get(name, (None, []))[1])

        found = set()
        for _, above in bases.values():
            ours = [base for base in above if base in bases and is_trainer(base)]
            if len(ours) > 1:
                found |= {f"{bases[base][0].module}.{base}" for base in ours}
        return sorted(found)

    def long_functions(self, room: str) -> list[str]:
        """Functions of a room with more than ``LONG_FUNCTION_LINES`` lines, docstring included."""
        found = []
        for file in self.files:
            for node in ast.walk(file.tree):
                if file.room == room and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = node.end_lineno - node.lineno + 1
                    if lines > LONG_FUNCTION_LINES:
                        found.append(f"{file.path}:{node.name} {lines}")
        return found

    def figures(self) -> dict[str, object]:
        """All of it."""
        training = self.closure(_TRAINING_ROOMS)
        return {
            "files": len(self.files),
            "code_lines": sum(file.code_lines for file in self.files),
            "training_files": len(training),
            "training_code_lines": sum(file.code_lines for file in training),
            "rooms": len(self.rooms),
            "arrows": len(self.arrows),
            "floors": max(self.floors().values()),
            "circles_of_rooms": self.circles(),
            "circles_of_files": self.file_circles(),
            "upward_arrows": self.upward(),
            "loose_modules": self.loose_modules,
            "mixins": self.mixins(),
            "files_over_400_lines": self.long_files,
            "trainer_functions_over_60_lines": self.long_functions("trainer"),
        }


def _components(below: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components with more than one member."""
    reach: dict[str, set[str]] = {}
    for start in below:
        seen: set[str] = set()
        wanted = list(below[start])
        while wanted:
            name = wanted.pop()
            if name not in seen:
                seen.add(name)
                wanted += below.get(name, ())
        reach[start] = seen
    circles = {tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in below if a in reach[a]}
    return [list(circle) for circle in sorted(circles)]


def picture(root: Path) -> str:
    """The rooms of a checkout and their arrows as SVG; all rooms of ``tools`` are one box."""
    # Beside this file, which may be loaded without its folder.
    from room_picture import RoomPicture

    house = House(root, lambda file: file.room.partition("/")[0])
    tools = {file.room.partition("/")[2] for file in house.files if file.room.startswith(f"{TOOLS}/")}
    return RoomPicture(house.floors(), house.arrows, sorted(tools)).svg()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("figures", "picture"), default="figures", help="default: figures")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1], help="a checkout")
    arguments = parser.parse_args()
    if arguments.what == "picture":
        (arguments.tree / PICTURE).write_text(picture(arguments.tree), encoding="utf-8")
    else:
        sys.stdout.write(json.dumps(House(arguments.tree).figures(), indent=2) + "\n")


if __name__ == "__main__":
    main()
