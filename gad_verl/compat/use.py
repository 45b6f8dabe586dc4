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
"""How an entry of the list of what is used of verl is written."""

import re
from dataclasses import dataclass
from functools import cached_property

USED = "used"
OVERRIDDEN = "overridden"
REPLACED = "replaced"
IMPLEMENTED = "implemented"


@dataclass(frozen=True)
class VerlUse:
    """Names of one module or class that are used for one purpose.

    Args:
        place: ``module`` or ``module:Class``; of an import the module that it names, of a member the class that defines
            it.
        names: Separated by blanks; members of a class are also what its methods assign to ``self``. Parameters follow
            in parentheses: all of them for a method that is overridden; for a call those that are given, before ``*``
            by place and after it by name. Without names, the module or class alone.
        why: What for.
        how: USED (read, called); OVERRIDDEN or, at run time, REPLACED: verl must go on reading the name, or what
            depends on it goes dead without a word; IMPLEMENTED: of an interface, which must not ask for more.
        read_in: Where verl reads what is OVERRIDDEN or REPLACED: a module, or ``module:function`` that imports the
            name into its own scope. By default the same module, from ``self``.
    """

    place: str
    names: str
    why: str
    how: str = USED
    read_in: str = ""

    @property
    def module(self) -> str:
        """Dotted name of the module."""
        return self.place.split(":")[0]

    @property
    def package(self) -> str:
        """Top-level package."""
        return self.place.split(".")[0]

    @cached_property
    def parts(self) -> list[tuple[str, str | None]]:
        """Dotted names in the module, each with its parameters; None where these do not matter."""
        kind = self.place.partition(":")[2]
        found = re.findall(r"([\w.]+)(\([^)]*\))?", self.names)
        prefix = f"{kind}." if kind else ""
        parts = [(prefix + name, parameters[1:-1] if parameters else None) for name, parameters in found]
        return parts or ([(kind, None)] if kind else [])
