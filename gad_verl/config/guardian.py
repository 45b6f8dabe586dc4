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
"""The section ``gad.guardian``. The fields of a rule stand with the rule (``gad_verl.guardian.rules``)."""

from dataclasses import dataclass, field, fields

from gad_verl.config.custom_code import load_custom
from gad_verl.errors import GadConfigError
from gad_verl.guardian.knobs import LimitsConfig
from gad_verl.guardian.rule import Rule
from gad_verl.guardian.rules.discriminator import OscillationConfig, SaturatedConfig, WeakConfig
from gad_verl.guardian.rules.diversity import CollapseConfig, NoSpreadConfig, RepetitionConfig
from gad_verl.guardian.rules.end_of_text import EndOfTextConfig
from gad_verl.guardian.rules.length import LengthConfig, ScoreLengthConfig
from gad_verl.guardian.rules.numbers import NonfiniteConfig, SkippedConfig
from gad_verl.guardian.rules.policy import EntropyConfig, KlConfig
from gad_verl.guardian.rules.stopping import (
    IndistinguishableConfig,
    NoImprovementConfig,
    OverfittedConfig,
    UntrustedConfig,
)
from gad_verl.guardian.settings import POLICIES, RuleConfig, Section, chosen, limited

_KEY = "gad.guardian."


@dataclass
class GuardianConfig(Section):
    """Everything under ``gad.guardian``. A section of a rule has the rule's name.

    Raises:
        GadConfigError: From :meth:`validate`, naming the key and the remedy.
    """

    enable: bool = True
    policy: str = chosen("warn", *POLICIES)
    window: int = limited(20, 2)
    count: int = limited(15, 1, "window")
    custom_rules: list[str] = field(default_factory=list)
    baseline: int = limited(10, 1)
    saturated: SaturatedConfig = field(default_factory=SaturatedConfig)
    weak: WeakConfig = field(default_factory=WeakConfig)
    oscillation: OscillationConfig = field(default_factory=OscillationConfig)
    no_spread: NoSpreadConfig = field(default_factory=NoSpreadConfig)
    length: LengthConfig = field(default_factory=LengthConfig)
    score_length: ScoreLengthConfig = field(default_factory=ScoreLengthConfig)
    repetition: RepetitionConfig = field(default_factory=RepetitionConfig)
    collapse: CollapseConfig = field(default_factory=CollapseConfig)
    kl: KlConfig = field(default_factory=KlConfig)
    entropy: EntropyConfig = field(default_factory=EntropyConfig)
    nonfinite: NonfiniteConfig = field(default_factory=NonfiniteConfig)
    skipped: SkippedConfig = field(default_factory=SkippedConfig)
    end_of_text: EndOfTextConfig = field(default_factory=EndOfTextConfig)
    untrusted: UntrustedConfig = field(default_factory=UntrustedConfig)
    overfitted: OverfittedConfig = field(default_factory=OverfittedConfig)
    indistinguishable: IndistinguishableConfig = field(default_factory=IndistinguishableConfig)
    no_improvement: NoImprovementConfig = field(default_factory=NoImprovementConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def sections(self) -> dict[str, Section]:
        """Every section below this one by its name."""
        found = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: section for name, section in found.items() if isinstance(section, Section)}

    def rules(self) -> dict[str, RuleConfig]:
        """The section of each rule by its name."""
        return {name: section for name, section in self.sections().items() if isinstance(section, RuleConfig)}

    def section_of(self, name: str) -> RuleConfig:
        """The section of a rule; an empty one for a custom rule."""
        return self.rules().get(name, RuleConfig())

    def policy_of(self, name: str) -> str:
        """The policy that holds for a rule; a custom rule has no section and takes that of all."""
        return self.section_of(name).policy or self.policy

    def validate(self, key: str = _KEY) -> None:
        """Check every field of every section."""
        super().validate(key)
        for name, section in self.sections().items():
            section.validate(f"{key}{name}.")

    def custom_rule_classes(self) -> list[type[Rule]]:
        """The rules that the user has written (``custom_rules``), loaded.

        Raises:
            GadConfigError: If one cannot be loaded, is no rule, or takes a name that is taken.
        """
        key = f"{_KEY}custom_rules"
        names, classes = set(self.rules()), []
        for where in self.custom_rules:
            rule = load_custom(where, key)
            if not isinstance(rule, type) or not issubclass(rule, Rule) or getattr(rule, "__abstractmethods__", None):
                raise GadConfigError(
                    f"{key}: {where} must be a subclass of gad_verl.guardian.rule.Rule with read, finding and remedy"
                )
            name = getattr(rule, "name", None)
            if not isinstance(name, str):
                raise GadConfigError(f"{key}: {where} needs a class attribute name")
            if name in names:
                raise GadConfigError(f"{key}: {where} takes the name {name!r}, which another rule has")
            names.add(name)
            classes.append(rule)
        return classes
