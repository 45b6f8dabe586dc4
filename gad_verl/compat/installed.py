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
"""The check at start-up: the installed verl against the list, and which versions are taken at all."""

import importlib
import importlib.metadata

from packaging.version import Version

from gad_verl.compat.tree import Finding, findings, installed_sources
from gad_verl.compat.use import VerlUse
from gad_verl.compat.uses import PACKAGES, VERL_USES, VLLM_USES
from gad_verl.errors import GadCompatError

VERL_AT_LEAST = "0.9.1"
VERL_BELOW = "0.10"


def unread_uses(uses: tuple[VerlUse, ...] = VERL_USES) -> list[str]:
    """Where the sources of the installed verl are not as the list says; one line each. Imports nothing."""
    return [str(finding) for finding in findings(installed_sources(), uses)]


def check(uses: tuple[VerlUse, ...] = VERL_USES, quick: bool = False) -> None:
    """Raise unless the installed verl has everything that is used, and as it is used.

    Args:
        uses: What is used.
        quick: Read verl's source and import only where a name seems to be missing. Importing verl's trainer and engines
            takes seconds, and the process that starts a run needs neither. Else every module is imported, which shows
            what stands in the way of that.

    Raises:
        GadCompatError: Names the version found and wanted, and what is missing or has changed.
    """
    try:
        found = importlib.metadata.version("verl")
    except importlib.metadata.PackageNotFoundError:
        raise GadCompatError(f"verl is not installed: pip install 'verl>={VERL_AT_LEAST},<{VERL_BELOW}'") from None
    wanted = f"verl>={VERL_AT_LEAST},<{VERL_BELOW}"
    if not Version(VERL_AT_LEAST) <= Version(found) < Version(VERL_BELOW):
        raise GadCompatError(f"gad_verl works with {wanted}, but verl {found} is installed: pip install '{wanted}'")
    sources = installed_sources()
    # verl's trainer imports one of them and does not declare it.
    lines = [f"the package {package} is not installed" for package in PACKAGES if package not in sources.folders]
    lines += [str(finding) for finding in findings(sources, uses) if not (finding.is_gone and _is_made(finding))]
    if not quick:
        lines += _not_importable(uses)
    if lines:
        raise GadCompatError(
            f"verl {found} is not as gad_verl uses it (wanted: {wanted}, unmodified):\n  " + "\n  ".join(lines)
        )


def _is_made(finding: Finding) -> bool:
    """Whether a name that no source shows is there once its module is imported."""
    try:
        value = importlib.import_module(finding.use.module)
        for name in finding.name.split(".") if finding.name else ():
            value = getattr(value, name)
    except (ImportError, AttributeError):
        return False
    return True


def _not_importable(uses: tuple[VerlUse, ...]) -> list[str]:
    lines = []
    for module, why in {use.module: use.why for use in uses if use not in VLLM_USES}.items():
        try:
            if module.split(".")[0] in PACKAGES:
                importlib.import_module(module)
        except Exception as error:
            # What a module raises where it does not like what else is installed.
            lines.append(f"{module} cannot be imported: {type(error).__name__}: {error} ({why})")
    return lines
