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
"""Holds the list of what is used of verl against sources: those that are installed, or the tree of another verl."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gad_verl.compat.source import Found, Signature, Sources, imports, package_folder
from gad_verl.compat.use import IMPLEMENTED, OVERRIDDEN, REPLACED, VerlUse
from gad_verl.compat.uses import MEGATRON_USES, PACKAGES, VERL_USES
from gad_verl.errors import GadCompatError


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the list says.

    Args:
        use: Entry of the list.
        name: Which of its names, without parameters; empty where it is the module itself.
        problem: In words.
        is_gone: Whether a source lacks the name. What is made while a module is imported no source shows.
    """

    use: VerlUse
    name: str
    problem: str
    is_gone: bool = False

    def __str__(self) -> str:
        return f"{'.'.join(filter(None, (self.use.module, self.name)))} {self.problem} ({self.use.why})"


def findings(sources: Sources, uses: tuple[VerlUse, ...]) -> list[Finding]:
    """Where the sources are not as the list says.

    Args:
        sources: Packages; entries of other packages are passed over, but for what verl reads of them.
        uses: The list.
    """
    gone: dict[str, list[VerlUse]] = {}
    for use in uses:
        if use.package in sources.folders and sources.module(use.module) is None:
            gone.setdefault(use.module, []).append(use)
    lost = [
        Finding(VerlUse(module, "", "; ".join(dict.fromkeys(use.why for use in lost))), "", "is gone", is_gone=True)
        for module, lost in gone.items()
    ]
    return lost + [finding for use in uses if use.module not in gone for finding in _findings_of(sources, use)]


def _findings_of(sources: Sources, use: VerlUse) -> Iterator[Finding]:
    if use.package in sources.folders:
        for name, parameters in use.parts:
            found = sources.find(use.module, name)
            if found is None:
                yield Finding(use, name, "is gone", is_gone=True)
            elif parameters is not None:
                yield from _changed(sources, use, name, parameters, found)
        if use.how == IMPLEMENTED:
            yield from _new_duties(sources, use)
    if use.how in (OVERRIDDEN, REPLACED):
        yield from _unread(sources, use)


def _changed(sources: Sources, use: VerlUse, name: str, parameters: str, found: Found) -> Iterator[Finding]:
    signature = sources.signature(found)
    if signature is None:
        if not isinstance(found.node, ast.ImportFrom):
            yield Finding(use, name, "is no function any more")
        return
    difference = signature.difference(Signature.parse(parameters), exact=use.how in (OVERRIDDEN, IMPLEMENTED))
    if difference is not None:
        yield Finding(use, name, difference)


def _unread(sources: Sources, use: VerlUse) -> Iterator[Finding]:
    """Overrides and replacements that verl passes by."""
    module, _, function = (use.read_in or use.module).partition(":")
    inside = sources.find(module, function) if function else None
    file = sources.module(module)
    for name, _ in use.parts:
        last = name.rsplit(".", 1)[-1]
        is_gone = use.package in sources.folders and sources.find(use.module, name) is None
        if last.startswith("__") or is_gone:
            continue
        if function:
            is_read = inside is not None and imports(inside.node, last)
        else:
            is_read = file is not None and last in file.reads[bool(use.read_in)]
        if not is_read:
            yield Finding(use, name, f"is no longer read in {use.read_in or use.module}")


def _new_duties(sources: Sources, use: VerlUse) -> Iterator[Finding]:
    """Abstract methods that the list does not know."""
    known = {name for name, _ in use.parts}
    for kind in sorted({name.split(".")[0] for name in known if "." in name}):
        found = sources.find(use.module, kind)
        for name, node in sources.members(found.node).items() if found else ():
            decorators = [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", ())]
            if f"{kind}.{name}" not in known and any(text.endswith("abstractmethod") for text in decorators):
                yield Finding(use, f"{kind}.{name}", "is a new abstract method")


@cache
def installed_sources() -> Sources:
    """The installed packages of the list."""
    folders = {package: package_folder(package) for package in PACKAGES}
    return Sources({package: folder for package, folder in folders.items() if folder is not None})


def tree_findings(path: Path, uses: tuple[VerlUse, ...] = VERL_USES + MEGATRON_USES) -> list[str]:
    """Hold the list against the sources of another verl, without importing it.

    Packages beside verl (``transfer_queue``) are looked up as they are installed here, if they are.

    Args:
        path: A checkout of verl, or the folder of the package itself.
        uses: The list.

    Returns:
        One line for each module, name or signature that is missing or has changed, and for each override or
        replacement that this verl no longer reads; empty where all is as the list says.

    Raises:
        GadCompatError: If there is no verl at ``path``.
    """
    folder = next((folder for folder in (path / "verl", path) if (folder / "__init__.py").is_file()), None)
    if folder is None or not (folder / "trainer").is_dir():
        raise GadCompatError(f"{path} holds no verl: give a checkout (a folder with verl/ in it) or the package itself")
    sources = Sources({**installed_sources().folders, "verl": folder})
    return [str(finding) for finding in findings(sources, uses)]
