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
"""Compares what the syntax trees of a package use of verl with the list in ``gad_verl.compat``, both ways."""

import ast
from collections.abc import Iterable

from seam import ALL, STRENGTH, Seam, Use
from seam_types import FUNCTIONS

from gad_verl.compat import IMPLEMENTED, OVERRIDDEN, REPLACED, USED, VerlUse
from gad_verl.compat.source import Found, Signature


def _covered(names: Iterable[str]) -> set[str]:
    """Names with all that they contain: a listed member means its class and module too."""
    return {name.rsplit(".", count)[0] for name in names for count in range(name.count(".") + 1)}


def _listed(uses: Iterable[VerlUse]) -> dict[str, tuple[str, str | None]]:
    listed = {}
    for use in uses:
        how = OVERRIDDEN if use.how == IMPLEMENTED else use.how
        listed |= {f"{use.module}.{name}": (how, parameters) for name, parameters in use.parts}
        if not use.names:
            listed[use.module] = (how, None)
    return listed


def compare(seam: Seam, uses: Iterable[VerlUse]) -> list[str]:
    """Entries to add to the list, to remove from it, and to change; one line each."""
    listed = _listed(uses)
    covered = _covered(listed)
    lines: list[str] = []
    # Entries that are used, each with its uses: an object of an unknown type may be any that has the name.
    used: dict[str, list[Use]] = {}
    for use in sorted(seam.uses.values(), key=lambda use: use.name):
        names = [use.name]
        if use.name.startswith("?."):
            names = [name for name in listed if name.rsplit(".", 1)[-1] == use.name[2:]]
        if not names or any(name not in covered for name in names):
            lines.append(f"add {use.name}{_parameters(seam, use)}: {_places(use)}")
            continue
        for name in names:
            used.setdefault(name, []).append(use)
    for name, uses_of in used.items():
        lines += _differing(seam, uses_of, name, listed.get(name))
    # Of objects of unknown types, and of objects that stand in for verl's, the names alone are compared.
    known = {USED: seam.untyped, OVERRIDDEN: set(), REPLACED: seam.types.own_names}
    unused = sorted(
        name for name in set(listed) - _covered(used) if name.rsplit(".", 1)[-1] not in known[listed[name][0]]
    )
    return lines + [f"remove {name}: not used" for name in unused]


def _places(use: Use) -> str:
    return f"{use.how} in {', '.join(sorted(set(use.places))[:3])}"


def _differing(seam: Seam, uses: list[Use], name: str, entry: tuple[str, str | None] | None) -> Iterable[str]:
    typed = [use for use in uses if use.name == name]
    if entry is None and not any(use.calls for use in typed):
        return
    how, parameters = entry or (USED, None)
    strongest = max(uses, key=lambda use: STRENGTH.index(use.how))
    if strongest.how != how and (typed or strongest.how == REPLACED):
        yield f"change {name}: {how} in the list, {_places(strongest)}"
    for use in typed:
        wanted, has = _parameters(seam, use), "" if parameters is None else f"({parameters})"
        if wanted != has:
            yield f"change {name}: parameters {has or 'none'} in the list, {wanted or 'none'} in code, {_places(use)}"


def _parameters(seam: Seam, use: Use) -> str:
    """Parameters as the list should have them; empty where they do not matter."""
    found = _definition(seam, use.name)
    decorators = [ast.unparse(decorator) for decorator in getattr(found and found.node, "decorator_list", [])]
    signature = found and seam.sources.signature(found)
    if signature is None or any("property" in text for text in decorators):
        return ""
    if use.how == OVERRIDDEN:
        return str(signature)
    if not use.calls:
        return ""
    is_bound = isinstance(found.node, FUNCTIONS) and signature.positional[:1] in (("self",), ("cls",))
    keywords = set().union(*(keywords for _, _, keywords in use.calls))
    by_place = max(count for _, count, _ in use.calls) + is_bound
    if by_place >= ALL:
        by_place = next((at for at, name in enumerate(signature.positional) if name in keywords), None)
    named = [name for name in [*signature.positional, *signature.keywords, *sorted(keywords)] if name in keywords]
    named = [name for name in dict.fromkeys(named) if name not in signature.positional[:by_place]]
    return str(Signature(signature.positional[:by_place], tuple(named)))


def _definition(seam: Seam, name: str) -> Found | None:
    parts = name.split(".")
    for at in range(len(parts) - 1, 0, -1) if seam.sources.module(name) is None else ():
        if seam.sources.module(".".join(parts[:at])) is not None:
            return seam.sources.find(".".join(parts[:at]), ".".join(parts[at:]))
    return None
