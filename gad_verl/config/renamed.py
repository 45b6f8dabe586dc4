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
"""Keys below ``gad`` that have new names: the old one is refused with the new one, not passed over."""

from collections.abc import Mapping
from typing import Any

from gad_verl.errors import GadConfigError

# Old key below gad, dotted, to the new one.
RENAMED_KEYS = {
    "discriminator_loss.own": "discriminator_loss.custom",
    "guardian.own_rules": "guardian.custom_rules",
}


def check_renamed(section: Any) -> None:
    """Refuse old names.

    Args:
        section: The content of ``gad``, plain.

    Raises:
        GadConfigError: Names the old and the new key.
    """
    for old, new in RENAMED_KEYS.items():
        *path, name = old.split(".")
        place = section
        for key in path:
            place = place.get(key) if isinstance(place, Mapping) else None
        if isinstance(place, Mapping) and name in place:
            raise GadConfigError(f"gad.{old} is now gad.{new}")
