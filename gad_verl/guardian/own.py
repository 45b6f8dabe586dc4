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
"""Rules that the user has written (``gad.guardian.own_rules``)."""

from typing import TYPE_CHECKING

from gad_verl.config.custom_code import load_own
from gad_verl.errors import GadConfigError
from gad_verl.guardian.rule import Rule

if TYPE_CHECKING:
    from gad_verl.config.guardian import GuardianConfig

_KEY = "gad.guardian.own_rules"


def own_rule_classes(config: "GuardianConfig") -> list[type[Rule]]:
    """The user's rules, loaded.

    Raises:
        GadConfigError: If one cannot be loaded, is no rule, or takes a name that is taken.
    """
    names = set(config.rules())
    classes = []
    for where in config.own_rules:
        rule = load_own(where, _KEY)
        if not isinstance(rule, type) or not issubclass(rule, Rule) or getattr(rule, "__abstractmethods__", None):
            raise GadConfigError(
                f"{_KEY}: {where} must be a subclass of gad_verl.guardian.rule.Rule with read, finding and remedy"
            )
        name = getattr(rule, "name", None)
        if not isinstance(name, str):
            raise GadConfigError(f"{_KEY}: {where} needs a class attribute name")
        if name in names:
            raise GadConfigError(f"{_KEY}: {where} takes the name {name!r}, which another rule has")
        names.add(name)
        classes.append(rule)
    return classes
