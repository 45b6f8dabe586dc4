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
"""Functions and classes of the user that the configuration names. Imports neither torch nor verl."""

import functools
import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from gad_verl.errors import GadConfigError


@functools.cache
def _module_of_file(path: Path) -> ModuleType:
    # Two files of one name in different folders are two modules.
    name = f"gad_own_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a module up by its name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_custom(where: str, key: str) -> Any:
    """What the user has written.

    Args:
        where: ``package.module:name``, or ``/absolute/path/of/file.py:name``. Every process of a run loads it, and each
            may stand in another folder.
        key: Key of the configuration that names it, for messages.

    Raises:
        GadConfigError: If it cannot be found or loaded.
    """
    place, _, name = where.rpartition(":")
    if not place or not name:
        raise GadConfigError(f"{key}: write package.module:name or /path/of/file.py:name; got {where!r}")
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if not path.is_absolute():
            raise GadConfigError(
                f"{key}: the path of {place} must be absolute, since workers may stand in another folder"
            )
        if not path.is_file():
            raise GadConfigError(f"{key}: there is no file {place}")
    try:
        module = _module_of_file(path) if place.endswith(".py") else importlib.import_module(place)
        return getattr(module, name)
    except Exception as error:  # whatever the user's module raises
        raise GadConfigError(f"{key}: {where} cannot be loaded: {type(error).__name__}: {error}") from error
