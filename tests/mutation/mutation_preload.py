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
"""Loads once, in the parent of all runs, what the tests import and what is not to be changed."""

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from mutation_loader import Forbidden


def modules_to_preload(modules: list[str], imports: list[tuple[str, str]], targets: set[str]) -> list[str]:
    """Of the modules a run has loaded, those that can be loaded without loading a target, in the same order.

    Args:
        modules: Names of the loaded modules, the first loaded first.
        imports: Pairs of modules: the first imports the second while it is loaded.
        targets: Modules that are to be changed: they and what imports them is left for the forked processes.
    """
    importers: dict[str, set[str]] = {}
    for importer, imported in imports:
        importers.setdefault(imported, set()).add(importer)
    left_out, open_names = set(targets), list(targets)
    while open_names:
        name = open_names.pop()
        # A package that loads a target cannot be avoided by what lies in it.
        inside = {module for module in modules if module.startswith(f"{name}.")}
        for other in (importers.get(name, set()) | inside) - left_out:
            left_out.add(other)
            open_names.append(other)
    return [name for name in modules if name not in left_out]


def preload(modules: list[str], targets: set[str], log: Path) -> list[str]:
    """Import modules; what they say on the way goes to a file.

    Args:
        modules: Their names. What cannot be imported is left out: the tests import it themselves.
        targets: Modules that must not be loaded.
        log: File for what the modules print.

    Returns:
        The targets that were asked for all the same, by a plugin say: the forked processes load them first.
    """
    forbidden = Forbidden(targets)
    sys.meta_path.insert(0, forbidden)
    with _printing_to(log):
        for module in modules:
            try:
                importlib.import_module(module)
            except Exception:
                continue
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
    sys.meta_path.remove(forbidden)
    # The collector would touch, and so copy, the memory that forked processes share.
    gc.collect()
    gc.freeze()
    return forbidden.asked


@contextlib.contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for kept, fd in zip(saved, (1, 2), strict=True):
                os.dup2(kept, fd)
                os.close(kept)
