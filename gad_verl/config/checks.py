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
"""Checks that every section of the configuration uses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gad_verl.errors import GadConfigError


@dataclass(frozen=True)
class Range:
    """What a number may be.

    Args:
        wanted: In words, for the message.
        holds: Whether a number is in the range; False for nan.
    """

    wanted: str
    holds: Callable[[float], bool]


POSITIVE = Range("positive", lambda value: value > 0)
NOT_NEGATIVE = Range("not negative", lambda value: value >= 0)
AT_LEAST_ONE = Range("at least 1", lambda value: value >= 1)
BELOW_ONE = Range("at least 0 and below 1", lambda value: 0 <= value < 1)


def require(condition: bool, message: str) -> None:
    """Raise :class:`GadConfigError` with the message unless the condition holds."""
    if not condition:
        raise GadConfigError(message)


def require_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """``gad.<key>`` must be one of the choices."""
    require(value in choices, f"gad.{key} must be one of {', '.join(choices)}; got {value!r}")


def require_each(section: str, config: Any, allowed: Range, *names: str) -> None:
    """Fields of a section must be in a range, or null where they may be.

    Args:
        section: Its key, for the message.
        config: Its dataclass.
        allowed: The range.
        names: The fields.
    """
    for name in names:
        value = getattr(config, name)
        null = "null or " if "None" in str(type(config).__annotations__[name]) else ""
        require(value is None or allowed.holds(value), f"{section}.{name} must be {null}{allowed.wanted}; got {value}")
