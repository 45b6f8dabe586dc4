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
"""Dataclasses behind ``gad.guardian``. ``gad/gad.yaml`` carries the same fields with comments.

Where each threshold comes from stands in docs/guardian.md and in the docstrings of ``gad_verl.guardian.rules``.
"""

from dataclasses import dataclass, field, fields

from gad_verl.config.checks import require, require_choice

POLICIES = ("off", "warn", "adapt", "stop")
DIRECTIONS = ("up", "down")


def _as_policy(policy: str | None) -> str | None:
    """YAML 1.1 reads a bare off as False."""
    return "off" if policy == "False" else policy


def _check_policy(key: str, policy: str | None) -> None:
    if policy is not None:
        require_choice(f"guardian.{key}", policy, POLICIES)


def _check_range(key: str, value: float, low: float, high: float = float("inf")) -> None:
    upper = "" if high == float("inf") else f" and at most {high:g}"
    require(low <= value <= high, f"gad.guardian.{key} must be at least {low:g}{upper}; got {value}")


@dataclass
class RuleConfig:
    """What every rule has: a policy of its own; None takes ``gad.guardian.policy``."""

    policy: str | None = None

    def __post_init__(self) -> None:
        self.policy = _as_policy(self.policy)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of each field that is a number."""
        return {}

    def validate(self, name: str) -> None:
        """Check the policy and the numbers; ``name`` is the rule's."""
        _check_policy(f"{name}.policy", self.policy)
        for key, (low, high) in self.ranges().items():
            _check_range(f"{name}.{key}", getattr(self, key), low, high)


@dataclass
class SaturatedConfig(RuleConfig):
    """The discriminator is too strong."""

    accuracy: float = 0.9
    fraction: float = 0.5

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"accuracy": (0.5, 1.0), "fraction": (0.0, 1.0)}


@dataclass
class WeakConfig(RuleConfig):
    """The discriminator is too weak."""

    accuracy: float = 0.6

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"accuracy": (0.0, 1.0)}


@dataclass
class OscillationConfig(RuleConfig):
    """The discriminator's accuracy swings."""

    deviation: float = 0.15

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"deviation": (0.0, 0.5)}


@dataclass
class NoSpreadConfig(RuleConfig):
    """Groups whose responses all score the same."""

    fraction: float = 0.1

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"fraction": (0.0, 1.0)}


@dataclass
class LengthConfig(RuleConfig):
    """Responses grow or shrink against the teacher's."""

    highest: float = 1.5
    lowest: float = 0.5
    growth: float = 1.25

    def ranges(self) -> dict[str, tuple[float, float]]:
        inf = float("inf")
        return {"highest": (1.0, inf), "lowest": (0.0, 1.0), "growth": (1.0, inf)}


@dataclass
class ScoreLengthConfig(RuleConfig):
    """The score follows the length."""

    correlation: float = 0.8

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"correlation": (0.0, 1.0)}


@dataclass
class RepetitionConfig(RuleConfig):
    """Responses go round in circles."""

    excess: float = 0.2

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"excess": (0.0, 1.0)}


@dataclass
class CollapseConfig(RuleConfig):
    """Responses become the same."""

    self_bleu: float = 0.9
    distinct_fall: float = 0.5

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"self_bleu": (0.0, 1.0), "distinct_fall": (0.0, 1.0)}


@dataclass
class KlConfig(RuleConfig):
    """The student is far from its reference."""

    highest: float = 1.0

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"highest": (0.0, float("inf"))}


@dataclass
class EntropyConfig(RuleConfig):
    """The student's entropy leaves its band."""

    fall: float = 0.2
    rise: float = 3.0

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"fall": (0.0, 1.0), "rise": (1.0, float("inf"))}


@dataclass
class NonfiniteConfig(RuleConfig):
    """Losses, gradients or scores that are nan or inf."""

    policy: str | None = "stop"
    window: int = 10
    count: int = 3

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"window": (1, float("inf")), "count": (1, self.window)}


@dataclass
class SkippedConfig(RuleConfig):
    """Updates of the discriminator that were left out."""

    window: int = 20
    count: int = 2

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"window": (1, float("inf")), "count": (1, self.window)}


@dataclass
class EndOfTextConfig(RuleConfig):
    """Whether a text ends by itself tells the sides apart."""

    difference: float = 0.2
    accuracy: float = 0.85

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"difference": (0.0, 1.0), "accuracy": (0.0, 1.0)}


@dataclass
class IndistinguishableConfig(RuleConfig):
    """Early stopping: teacher and student cannot be told apart on held-out prompts."""

    margin: float = 0.1
    validations: int = 3
    once_apart: float = 0.65

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"margin": (0.0, 0.5), "validations": (1, float("inf")), "once_apart": (0.5, 1.0)}


@dataclass
class NoImprovementConfig(RuleConfig):
    """Early stopping: a validation metric has not become better."""

    metric: str | None = None
    direction: str = "up"
    patience: int = 5
    delta: float = 0.0

    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"patience": (1, float("inf")), "delta": (0.0, float("inf"))}

    def validate(self, name: str) -> None:
        super().validate(name)
        require_choice(f"guardian.{name}.direction", self.direction, DIRECTIONS)
        require(
            self.metric is None or bool(self.metric),
            f"gad.guardian.{name}.metric must name a metric of the validation, or be null",
        )


@dataclass
class LimitsConfig:
    """How far the policy ``adapt`` may turn each knob; the neutral value is 1 (0 for the penalty)."""

    discriminator_lr_factor: float = 0.1
    actor_lr_factor: float = 0.1
    discriminator_every: int = 8
    discriminator_steps: int = 4
    length_penalty: float = 1.0

    def validate(self, name: str) -> None:
        for key in ("discriminator_lr_factor", "actor_lr_factor"):
            value = getattr(self, key)
            require(0 < value <= 1, f"gad.guardian.{name}.{key} must be above 0 and at most 1; got {value}")
        for key in ("discriminator_every", "discriminator_steps"):
            _check_range(f"{name}.{key}", getattr(self, key), 1)
        _check_range(f"{name}.length_penalty", self.length_penalty, 0)


@dataclass
class GuardianConfig:
    """Everything under ``gad.guardian``.

    Raises:
        GadConfigError: From :meth:`validate`, naming the key and the remedy.
    """

    enable: bool = True
    policy: str = "warn"
    window: int = 20
    count: int = 15
    own_rules: list[str] = field(default_factory=list)
    baseline: int = 10
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
    indistinguishable: IndistinguishableConfig = field(default_factory=IndistinguishableConfig)
    no_improvement: NoImprovementConfig = field(default_factory=NoImprovementConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def __post_init__(self) -> None:
        self.policy = _as_policy(self.policy) or self.policy

    def rules(self) -> dict[str, RuleConfig]:
        """The section of each rule by its name."""
        sections = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: section for name, section in sections.items() if isinstance(section, RuleConfig)}

    def policy_of(self, name: str) -> str:
        """The policy that holds for a rule; a rule of the user has no section and takes that of all."""
        own = self.section_of(name).policy
        return self.policy if own is None else own

    def section_of(self, name: str) -> RuleConfig:
        """The section of a rule; an empty one for a rule of the user."""
        return self.rules().get(name, RuleConfig())

    def validate(self) -> None:
        """Check every field."""
        _check_policy("policy", self.policy)
        for name in ("window", "baseline"):
            _check_range(name, getattr(self, name), 2 if name == "window" else 1)
        _check_range("count", self.count, 1, self.window)
        for name, section in self.rules().items():
            section.validate(name)
        self.limits.validate("limits")
