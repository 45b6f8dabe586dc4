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
"""How the fields of a rule are declared: default and range in one line, beside the rule."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from gad_verl.errors import GadConfigError

POLICIES = ("off", "warn", "adapt", "stop")


def limited(default: float, low: float, high: float | str = math.inf) -> Any:
    """A field that is a number.

    Args:
        default: Its default.
        low: Lowest value.
        high: Highest value, or the name of the field that holds it.
    """
    return field(default=default, metadata={"range": (low, high)})


def chosen(default: str | None, *choices: str) -> Any:
    """A field that takes one of some words; None is taken where it is the default's type."""
    return field(default=default, metadata={"choices": choices})


@dataclass
class Section:
    """Fields that know what they may hold."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            # YAML 1.1 reads a bare off as False.
            if "off" in entry.metadata.get("choices", ()) and getattr(self, entry.name) == "False":
                setattr(self, entry.name, "off")

    def validate(self, key: str) -> None:
        """Check each field.

        Args:
            key: Of the section, with its dot, such as ``gad.guardian.kl.``.

        Raises:
            GadConfigError: Names the key and what it may hold.
        """
        for entry in fields(self):
            value = getattr(self, entry.name)
            if "range" in entry.metadata:
                low, high = entry.metadata["range"]
                high = getattr(self, high) if isinstance(high, str) else high
                if not low <= value <= high:
                    upper = "" if high == math.inf else f" and at most {high:g}"
                    raise GadConfigError(f"{key}{entry.name} must be at least {low:g}{upper}; got {value}")
            choices = entry.metadata.get("choices")
            if choices and value is not None and value not in choices:
                raise GadConfigError(f"{key}{entry.name} must be one of {', '.join(choices)}; got {value!r}")


@dataclass
class RuleConfig(Section):
    """What every rule has: a policy of its own; None takes ``gad.guardian.policy``."""

    policy: str | None = chosen(None, *POLICIES)
