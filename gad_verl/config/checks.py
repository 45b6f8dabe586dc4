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

from gad_verl.errors import GadConfigError


def require(condition: bool, message: str) -> None:
    """Raise :class:`GadConfigError` with the message unless the condition holds."""
    if not condition:
        raise GadConfigError(message)


def require_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """``gad.<key>`` must be one of the choices."""
    require(value in choices, f"gad.{key} must be one of {', '.join(choices)}; got {value!r}")
