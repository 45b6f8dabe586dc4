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
"""Dataclasses of the options that keep adversarial training stable, all off by default.

``gad/gad.yaml`` carries the same fields with comments; docs/stability.md says what each is for and when not to use it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

from gad_verl.config.checks import (
    AT_LEAST_ONE,
    BELOW_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    require,
    require_choice,
    require_each,
)
from gad_verl.config.custom_code import load_custom
from gad_verl.core.combining import COMBINATIONS, PRODUCT, SUM
from gad_verl.core.gating import GateOptions
from gad_verl.core.pair_loss import PairLossOptions
from gad_verl.core.replay import REPLAY_MODES, REPLAY_ORDERS
from gad_verl.core.reward_shaping import LENGTH_CORRECTIONS, LOGARITHM, PER_TOKEN, WHITENINGS
from gad_verl.core.token_credit import UNITS
from gad_verl.core.trust import HeldOut, TrustOptions
from gad_verl.errors import GadConfigError


def _require_buildable(section: str, build: Callable[[], object]) -> None:
    """What the options of a section make checks itself and names the option first."""
    try:
        build()
    except ValueError as error:
        raise GadConfigError(f"{section}.{error}") from None


@dataclass
class DiscriminatorLossConfig:
    """Loss of the discriminator."""

    kind: str = "bradley_terry"
    temperature: float = 1.0
    label_smoothing: float = 0.0
    score_l2: float = 0.0
    score_centring: float = 0.0
    custom: str | None = None
    gradient_penalty: float = 0.0
    gradient_penalty_distance: float = 0.05
    gradient_penalty_every: int = 1
    gradient_penalty_students: int = 1

    def validate(self) -> None:
        section = "gad.discriminator_loss"
        _require_buildable(section, self.pair_options)
        require_each(section, self, NOT_NEGATIVE, "gradient_penalty", "gradient_penalty_students")
        require_each(section, self, AT_LEAST_ONE, "gradient_penalty_every")
        require(
            0 < self.gradient_penalty_distance <= 1,
            f"{section}.gradient_penalty_distance must be above 0 and at most 1 (a fraction of the size of the "
            f"embeddings); got {self.gradient_penalty_distance}",
        )
        if self.custom is not None:
            require(
                self.pair_options() == PairLossOptions(),
                f"{section}.custom takes the place of kind, temperature, label_smoothing, score_l2 and "
                "score_centring: leave these at their defaults",
            )
            _try_custom_loss(self.custom, f"{section}.custom")

    def pair_options(self) -> PairLossOptions:
        """The part that concerns the pairs."""
        return PairLossOptions(self.kind, self.temperature, self.label_smoothing, self.score_l2, self.score_centring)


def _try_custom_loss(where: str, key: str) -> None:
    """Call a loss of the user on a few scores before a run does."""
    function = load_custom(where, key)
    teacher = torch.linspace(-1, 1, 6).view(2, 1, 3).requires_grad_()
    student = torch.linspace(1, -2, 6).view(2, 1, 3).requires_grad_()
    try:
        losses = function(teacher, student)
        fits = isinstance(losses, torch.Tensor) and losses.shape == teacher.shape
        gradients = torch.autograd.grad(losses.sum(), (teacher, student)) if fits else ()
    except Exception as error:  # whatever the user's function raises
        raise GadConfigError(f"{key}: {where} failed on a few scores: {type(error).__name__}: {error}") from error
    require(fits, f"{key}: {where} must return the loss of each pair, a tensor of the shape of the scores it is given")
    finite = all(bool(torch.isfinite(one).all()) for one in (losses, *gradients))
    require(finite, f"{key}: {where} gave a loss or a gradient that is nan or inf on a few scores between -2 and 1")


@dataclass
class DiscriminatorUpdatesConfig:
    """How often the discriminator learns in the adversarial stage."""

    every_steps: int = 1
    updates_per_step: int = 1
    accuracy_below: float = 1.0
    accuracy_memory: float = 0.0
    frozen: bool = False
    passing_only: bool = False

    def validate(self) -> None:
        _require_buildable("gad.discriminator_updates", self.gate_options)

    def gate_options(self) -> GateOptions:
        """Without ``frozen``."""
        return GateOptions(self.every_steps, self.updates_per_step, self.accuracy_below, self.accuracy_memory)


@dataclass
class ReplayConfig:
    """Past student responses in the discriminator's batches."""

    capacity_steps: int = 0
    mode: str = "add"
    fraction: float = 0.5
    order: str = "uniform"
    recency_rate: float = 0.1
    seed: int = 1

    def validate(self) -> None:
        require_each("gad.replay", self, NOT_NEGATIVE, "capacity_steps", "recency_rate")
        require_choice("replay.mode", self.mode, REPLAY_MODES)
        require_each("gad.replay", self, BELOW_ONE, "fraction")
        require_choice("replay.order", self.order, REPLAY_ORDERS)


HOLD, SUPERVISED = "hold", "supervised"
OTHERWISE = (HOLD, SUPERVISED)


@dataclass
class TrustConfig:
    """Lets the student learn from scores in proportion to what the discriminator knows."""

    held_out_fraction: float = 0.0
    otherwise: str = HOLD
    full_accuracy: float = 0.6
    confidence: float = 2.0
    window: int = 200
    least_prompts: int = 16
    seed: int = 0

    @property
    def enabled(self) -> bool:
        """Whether prompts are held out from the discriminator's training."""
        return self.held_out_fraction > 0

    def validate(self) -> None:
        require_each("gad.trust", self, BELOW_ONE, "held_out_fraction")
        require_choice("trust.otherwise", self.otherwise, OTHERWISE)
        _require_buildable("gad.trust", self.options)

    @property
    def held_out(self) -> HeldOut:
        """The choice of prompts."""
        return HeldOut(self.held_out_fraction, self.seed)

    def options(self) -> TrustOptions:
        """Without the choice of prompts."""
        return TrustOptions(self.full_accuracy, self.confidence, self.window, self.least_prompts)


@dataclass
class SodaConfig:
    """Preferences against one snapshot of the student (``gad.stage=soda``)."""

    snapshot_steps: int | None = None
    beta: float = 0.1

    def validate(self) -> None:
        require_each("gad.soda", self, AT_LEAST_ONE, "snapshot_steps")
        require_each("gad.soda", self, POSITIVE, "beta")

    def steps(self, steps_per_epoch: int) -> int:
        """Steps of the snapshot: one pass over the data where nothing is said."""
        return steps_per_epoch if self.snapshot_steps is None else self.snapshot_steps


@dataclass
class RewardConfig:
    """From the discriminator's score to the student's reward."""

    score_clip: float | None = None
    length_correction: str = "none"
    length_coefficient: float = 0.0
    length_memory: float = 0.9
    whitening: str = "none"
    whitening_memory: float = 0.99
    discriminator_weight: float = 1.0
    task_weight: float = 0.0
    task_combination: str = "sum"
    task_passing: float = 0.5
    group_function: str | None = None
    unfinished_penalty: float = 0.0
    malformed_penalty: float = 0.0
    malformed_pattern: str | None = None
    sequence_weight: float = 1.0
    phrase_weight: float = 0.0
    token_weight: float = 0.0
    phrase_unit: str = "sentence"

    def validate(self) -> None:
        require_each("gad.reward", self, POSITIVE, "score_clip")
        require_choice("reward.length_correction", self.length_correction, LENGTH_CORRECTIONS)
        require_choice("reward.whitening", self.whitening, WHITENINGS)
        require_choice("reward.phrase_unit", self.phrase_unit, UNITS)
        require_each("gad.reward", self, BELOW_ONE, "length_memory", "whitening_memory")
        require_each(
            "gad.reward",
            self,
            NOT_NEGATIVE,
            "discriminator_weight",
            "task_weight",
            "unfinished_penalty",
            "malformed_penalty",
            "sequence_weight",
            "phrase_weight",
            "token_weight",
        )
        has_price = self.length_correction in (PER_TOKEN, LOGARITHM)
        require(
            not has_price or self.length_coefficient > 0,
            f"gad.reward.length_correction={self.length_correction} needs a gad.reward.length_coefficient above 0; got "
            f"{self.length_coefficient}",
        )
        require(
            has_price or self.length_coefficient == 0,
            f"gad.reward.length_coefficient={self.length_coefficient} is a price of length, which "
            f"gad.reward.length_correction={self.length_correction} does not read: set that to {PER_TOKEN} or "
            f"{LOGARITHM}, or leave the coefficient at 0",
        )
        require(
            self.discriminator_weight + self.task_weight > 0,
            "gad.reward.discriminator_weight and gad.reward.task_weight are both 0: there is no reward",
        )
        self._validate_task()
        require(
            self.sequence_weight + self.phrase_weight + self.token_weight > 0,
            "gad.reward.sequence_weight, phrase_weight and token_weight are all 0: there is no reward",
        )
        if self.malformed_pattern is not None:
            try:
                re.compile(self.malformed_pattern)
            except re.error as error:
                require(False, f"gad.reward.malformed_pattern is no regular expression: {error}")
            require(
                self.malformed_penalty > 0,
                "gad.reward.malformed_pattern with gad.reward.malformed_penalty=0 takes nothing off: set the penalty "
                "above 0",
            )

    def _validate_task(self) -> None:
        require_choice("reward.task_combination", self.task_combination, COMBINATIONS)
        asks = f"gad.reward.task_combination={self.task_combination}"
        if self.group_function is not None:
            asks = f"gad.reward.group_function={self.group_function}"
        require(
            self.task_weight > 0 or (self.task_combination == SUM and self.group_function is None),
            f"{asks} with gad.reward.task_weight=0 asks for no reward: set the weight above 0",
        )
        require(
            self.task_combination == SUM or self.discriminator_weight == 1.0,
            f"gad.reward.task_combination={self.task_combination} has no sum to weigh: leave "
            f"gad.reward.discriminator_weight at 1; got {self.discriminator_weight}",
        )
        require(
            self.task_combination != PRODUCT or self.whitening == "none",
            "gad.reward.task_combination=product reads how far a score lies from the teacher's, which "
            f"gad.reward.whitening={self.whitening} takes out: set the whitening to none",
        )
        if self.group_function is not None:
            function = load_custom(self.group_function, "gad.reward.group_function")
            require(callable(function), f"gad.reward.group_function: {self.group_function} cannot be called")

    @property
    def credits_tokens(self) -> bool:
        """Whether tokens or phrases are rewarded."""
        return self.phrase_weight > 0 or self.token_weight > 0


@dataclass
class RecordConfig:
    """The record of a run that ``gad-verl report`` reads."""

    enable: bool = True
    samples_every_steps: int = 10
    samples: int = 4

    def validate(self) -> None:
        require_each("gad.record", self, AT_LEAST_ONE, "samples_every_steps")
        require_each("gad.record", self, NOT_NEGATIVE, "samples")
