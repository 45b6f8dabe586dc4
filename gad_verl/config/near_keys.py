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
"""Names that were meant: keys of the configuration near to one that does not exist."""

import difflib
from collections.abc import Collection

_MOST = 3
_ALIKE, _SOMEWHAT_ALIKE = 0.84, 0.7


def near_keys(key: str, known: Collection[str]) -> list[str]:
    """Keys that may have been meant, the likeliest first.

    Args:
        key: Dotted, such as ``gad.warmup_step``.
        known: All keys that hold a value, dotted.

    Returns:
        Those that are spelled nearly so; else those of the same names in another section; else what is somewhat alike.
    """
    keys = list(known)
    found = difflib.get_close_matches(key, keys, _MOST, _ALIKE)
    names = key.split(".")
    for first in range(len(names)):
        if found:
            break
        # The whole key in a section, then without its first names; the shortest is nearest to the top.
        ending = "." + ".".join(names[first:])
        found = sorted((one for one in keys if one.endswith(ending)), key=lambda one: (one.count("."), one))[:_MOST]
    return found or difflib.get_close_matches(key, keys, _MOST, _SOMEWHAT_ALIKE)


def did_you_mean(key: str, known: Collection[str]) -> str:
    """A sentence with :func:`near_keys`, after a blank; empty where nothing is near."""
    found = near_keys(key, known)
    return f" Did you mean {' or '.join(found)}?" if found else ""
