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
"""Dataclasses behind the key ``gad`` of the configuration. ``gad/gad.yaml`` carries the same fields with comments."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from gad_verl.config.checks import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, require, require_choice, require_each
from gad_verl.config.data import RELOAD_CHOICES, CurriculumConfig, TeacherMixConfig
from gad_verl.config.guardian import GuardianConfig
from gad_verl.config.near_keys import did_you_mean
from gad_verl.config.off_policy import OffPolicyConfig
from gad_verl.config.renamed import check_renamed
from gad_verl.config.stability import (
    SUPERVISED,
    DiscriminatorLossConfig,
    DiscriminatorUpdatesConfig,
    RecordConfig,
    ReplayConfig,
    RewardConfig,
    SodaConfig,
    TrustConfig,
)
from gad_verl.config.thinking import HIDDEN, ThinkingConfig
from gad_verl.config.trajectory import TrajectoryConfig
from gad_verl.core.schedule import STAGES, Phase, StageSchedule
from gad_verl.core.token_credit import TURN
from gad_verl.errors import GadConfigError

OVERLONG_CHOICES = ("cut", "drop", "error")
KL_REFERENCES = ("warmed_up", "initial")
PASS_CHOICES = ("auto", "one", "two")
SHARE_CHOICES = ("auto", "never", "always")
HEAD_CHOICES = ("auto", "fresh", "load")


@dataclass
class StageOptimConfig:
    """Learning rates of one stage; None takes the rate of the ``optim`` section of the model concerned."""

    actor_lr: float | None = None
    discriminator_lr: float | None = None

    def validate(self, key: str) -> None:
        require_each(f"gad.{key}", self, NOT_NEGATIVE, "actor_lr", "discriminator_lr")


@dataclass
class WatchdogConfig:
    """Ends a run whose workers died or hang, with the reason."""

    enable: bool = True
    check_interval_s: float = 10.0
    stage_timeout_s: float = 3600.0

    def validate(self) -> None:
        require_each("gad.watchdog", self, POSITIVE, "check_interval_s")
        require(
            self.stage_timeout_s > self.check_interval_s,
            f"gad.watchdog.stage_timeout_s ({self.stage_timeout_s}) must exceed gad.watchdog.check_interval_s "
            f"({self.check_interval_s})",
        )


@dataclass
class GadConfig:
    """Everything under the key ``gad``. See ``gad_verl/config/gad/gad.yaml`` for the meaning of each field.

    Raises:
        GadConfigError: From :meth:`validate`, naming the key and the remedy.
    """

    stage: str = "auto"
    discriminator_only_steps: int = 10
    discriminator_only_updates: int = 1
    warmup_steps: int | None = None
    warmup_epochs: float | None = 1.0
    warmup_rollout_n: int | None = None
    warmup: StageOptimConfig = field(default_factory=StageOptimConfig)
    adversarial: StageOptimConfig = field(default_factory=StageOptimConfig)
    reset_optimizer_at_switch: bool = True
    supervised_weight: float = 0.0
    kl_reference: str = "warmed_up"
    teacher_key: str = "teacher_response"
    teacher_overlong: str = "cut"
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)
    trajectory: TrajectoryConfig = field(default_factory=TrajectoryConfig)
    max_answer_length: int | None = None
    teachers: TeacherMixConfig = field(default_factory=TeacherMixConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    reload_data: str = "never"
    discriminator_head: str = "auto"
    discriminator_num_layers: int | None = None
    discriminator_n_gpus_per_node: int = 0
    discriminator_nnodes: int = 1
    discriminator_overlap: bool = True
    discriminator_passes: str = "auto"
    discriminator_share_prompt: str = "auto"
    discriminator_seed: int = 1
    keep_checkpoints: int | None = None
    save_minutes: float | None = None
    stop_file: str | None = None
    replay_poll_interval_s: float = 0.5
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)
    discriminator_loss: DiscriminatorLossConfig = field(default_factory=DiscriminatorLossConfig)
    discriminator_updates: DiscriminatorUpdatesConfig = field(default_factory=DiscriminatorUpdatesConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)
    soda: SodaConfig = field(default_factory=SodaConfig)
    off_policy: OffPolicyConfig = field(default_factory=OffPolicyConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    guardian: GuardianConfig = field(default_factory=GuardianConfig)
    record: RecordConfig = field(default_factory=RecordConfig)

    @property
    def has_discriminator(self) -> bool:
        """Whether the run trains a discriminator."""
        return self.stage not in ("seqkd", "soda")

    @property
    def compares_with_reference(self) -> bool:
        """Whether log-probabilities of the student, and of a reference if there is one, are read before its updates."""
        return self.stage in ("auto", "gad", "soda")

    @property
    def turns_to_texts(self) -> bool:
        """Whether the student of the adversarial stage learns from texts as far as the discriminator does not know."""
        return self.trust.enabled and self.trust.otherwise == SUPERVISED

    @property
    def uses_texts(self) -> bool:
        """Whether the student may learn from the teacher's texts in the adversarial stage."""
        return self.turns_to_texts or self.supervised_weight > 0

    def validate(self) -> None:
        """Check every field by itself and against the others."""
        require_choice("stage", self.stage, STAGES)
        require_choice("teacher_overlong", self.teacher_overlong, OVERLONG_CHOICES)
        require_choice("kl_reference", self.kl_reference, KL_REFERENCES)
        require_choice("discriminator_head", self.discriminator_head, HEAD_CHOICES)
        not_negative = ("discriminator_only_steps", "discriminator_n_gpus_per_node", "warmup_steps", "warmup_epochs")
        require_each("gad", self, NOT_NEGATIVE, *not_negative, "supervised_weight")
        counts = (
            "discriminator_only_updates",
            "discriminator_nnodes",
            "discriminator_num_layers",
            "keep_checkpoints",
            "warmup_rollout_n",
            "max_answer_length",
        )
        require_each("gad", self, AT_LEAST_ONE, *counts)
        require_each("gad", self, POSITIVE, "replay_poll_interval_s", "save_minutes")
        require_choice("discriminator_passes", self.discriminator_passes, PASS_CHOICES)
        require_choice("discriminator_share_prompt", self.discriminator_share_prompt, SHARE_CHOICES)
        require(bool(self.teacher_key), "gad.teacher_key must name the column of the teacher texts")
        if self.stage == "auto":
            require(
                self.warmup_steps is not None or self.warmup_epochs is not None,
                "gad.stage=auto needs gad.warmup_steps or gad.warmup_epochs (0 skips the warmup)",
            )
        require(
            not self.discriminator_updates.passing_only or self.reward.task_weight > 0,
            "gad.discriminator_updates.passing_only trains on answers that pass a check, and there is none: set "
            "gad.reward.task_weight above 0",
        )
        self._validate_thinking()
        self._validate_trajectory()
        self.teachers.validate()
        self.curriculum.validate(self.stage)
        require_choice("reload_data", self.reload_data, RELOAD_CHOICES)
        self.warmup.validate("warmup")
        self.adversarial.validate("adversarial")
        self.watchdog.validate()
        for section in (
            self.discriminator_loss,
            self.discriminator_updates,
            self.replay,
            self.trust,
            self.soda,
            self.off_policy,
            self.reward,
            self.guardian,
            self.record,
        ):
            section.validate()

    def _validate_thinking(self) -> None:
        self.thinking.validate()
        require(
            self.max_answer_length is None or self.thinking.hides,
            f"gad.max_answer_length={self.max_answer_length} is read with gad.thinking.mode=hidden alone, where "
            "data.max_response_length holds the thoughts too: set data.max_response_length, or the mode",
        )
        require(
            not self.thinking.hides or not self.reward.credits_tokens,
            "gad.thinking.mode=hidden with gad.reward.phrase_weight or gad.reward.token_weight: the discriminator "
            "reads no thoughts, so it has no score for their tokens. Set both weights to 0",
        )

    def _validate_trajectory(self) -> None:
        self.trajectory.validate()
        on, reward = self.trajectory.enable, self.reward
        named = "gad.trajectory.enable=True"
        require(
            not on or self.thinking.mode != HIDDEN,
            f"{named} with gad.thinking.mode=hidden: thoughts are not hidden in trajectories; set the mode to off",
        )
        require(
            not on or self.stage != "soda",
            f"{named} with gad.stage=soda: the snapshot holds single answers, no trajectories; take another stage",
        )
        require(
            not on or self.teacher_overlong != "drop",
            f"{named} with gad.teacher_overlong=drop: trajectories that are too long are cut as rollouts are, or end "
            "the check before the run; set it to cut or error",
        )
        require(
            not on or reward.token_weight == 0,
            f"{named} with gad.reward.token_weight={reward.token_weight}: of a trajectory turns are rewarded, not "
            "tokens; set it to 0 (gad.reward.phrase_weight with phrase_unit=turn)",
        )
        require(
            not (on and reward.phrase_weight > 0 and reward.phrase_unit != TURN),
            f"{named} with gad.reward.phrase_unit={reward.phrase_unit}: of a trajectory turns are rewarded; set it to "
            f"{TURN}, or gad.reward.phrase_weight to 0",
        )
        require(
            on or reward.phrase_unit != TURN,
            f"gad.reward.phrase_unit={TURN} is read with {named} alone; set it to sentence or phrase",
        )

    def longest_answer(self, max_response_length: int) -> int:
        """Tokens of the longest answer: without thoughts, where the student hides them.

        Args:
            max_response_length: ``data.max_response_length``.
        """
        return max_response_length if self.max_answer_length is None else self.max_answer_length

    def resolve_warmup_steps(self, steps_per_epoch: int) -> int:
        """Warmup steps: ``warmup_steps`` where given, else ``warmup_epochs`` times the steps of an epoch."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return round((self.warmup_epochs or 0.0) * steps_per_epoch)

    def build_schedule(self, total_steps: int, steps_per_epoch: int) -> StageSchedule:
        """Phases of a run; one that goes on without a warmup has no discriminator-only steps either.

        Raises:
            ValueError: If the stages do not fit into the run.
        """
        warmup_steps = self.resolve_warmup_steps(steps_per_epoch)
        return StageSchedule(
            stage=self.stage,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            discriminator_only_steps=0 if self.stage == "auto" and warmup_steps == 0 else self.discriminator_only_steps,
            snapshot_steps=self.soda.steps(steps_per_epoch) if self.stage == "soda" else 0,
        )

    def discriminator_updates_of(self, schedule: StageSchedule) -> int:
        """Optimizer steps of the discriminator in a run, the horizon of its learning rate; at least 1.

        What only the run decides (``accuracy_below``, the guardian) is not known here.
        """
        phases = schedule.steps_by_phase()
        updates = self.discriminator_updates
        adversarial = 0 if updates.frozen else -(-phases[Phase.ADVERSARIAL] // updates.every_steps)
        alone = phases[Phase.DISCRIMINATOR_ONLY] * self.discriminator_only_updates
        return max(1, alone + phases[Phase.WARMUP] + adversarial * updates.updates_per_step)


def _without_targets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_targets(item) for key, item in value.items() if key != "_target_"}
    return value


def _keys(section: DictConfig, above: str = "gad") -> Iterator[str]:
    for name in section:
        value = section[name]
        if isinstance(value, DictConfig):
            yield from _keys(value, f"{above}.{name}")
        else:
            yield f"{above}.{name}"


def load_gad_config(config: DictConfig) -> GadConfig:
    """Read and validate the key ``gad`` of a composed configuration.

    Raises:
        GadConfigError: If the key is missing, a field is unknown, renamed or of a wrong type, or a value cannot work.
    """
    section = OmegaConf.select(config, "gad")
    if section is None:
        raise GadConfigError("the configuration has no key 'gad': start with --config-name gad_trainer (or gad_cpu)")
    try:
        plain = _without_targets(OmegaConf.to_container(section, resolve=True))
        check_renamed(plain)
        merged = OmegaConf.merge(OmegaConf.structured(GadConfig), plain)
        gad_config = OmegaConf.to_object(merged)
    except GadConfigError:
        # A ValueError too, with its own words.
        raise
    except OmegaConfBaseException as error:
        key = f"gad.{error.full_key}" if error.full_key else "gad"
        key = key.replace("gad.gad", "gad")
        if isinstance(error, ConfigKeyError):
            known = list(_keys(OmegaConf.structured(GadConfig)))
            raise GadConfigError(f"{key}: no such key.{did_you_mean(key, known)}") from None
        raise GadConfigError(f"{key}: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        raise GadConfigError(f"gad must be a section of fields, not {section!r}: {error}") from None
    assert isinstance(gad_config, GadConfig)
    gad_config.validate()
    return gad_config
