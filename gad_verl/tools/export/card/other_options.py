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
"""Options of a run that differ from the published method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gad_verl.tools.export.card.run_facts import RunFacts, without_paths


def other_options(run: RunFacts) -> dict[str, Any]:
    """Keys of ``gad`` that the run set to something else than this version's ``gad=paper``, by their dotted names."""
    section = run.get("gad")
    if not isinstance(section, Mapping):
        return {}
    from omegaconf import OmegaConf

    import gad_verl.config

    path = Path(gad_verl.config.__file__).parent / "gad" / "gad.yaml"
    defaults = _flat(OmegaConf.to_container(OmegaConf.load(path)), "gad")
    found = _flat(section, "gad")
    return {
        name: without_paths(value)
        for name, value in found.items()
        if not name.endswith("_target_") and (name not in defaults or defaults[name] != value)
    }


def _flat(section: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}.{name}")
        else:
            flat[f"{prefix}.{name}"] = value
    return flat
