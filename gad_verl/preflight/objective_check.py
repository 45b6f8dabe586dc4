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
"""Whether an objective that turns to the teacher's texts fits the rest, and whether it will know enough to move."""

import logging

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.config.checks import require
from gad_verl.config.stability import SUPERVISED
from gad_verl.core.schedule import Phase, StageSchedule
from gad_verl.preflight.options import DIVIDE_BY_SPREAD, KEEP_UNIT
from gad_verl.trainer.unseen import unseen_before

logger = logging.getLogger(__name__)

# Of gad_trainer.yaml and of verl's actor.yaml: whoever has this value has not set one.
COMMON_ACTOR_LR = 1e-6

_KEYS = "gad.trust.otherwise=supervised and gad.supervised_weight above 0 train rollouts and texts in one batch"


def check_objective(config: DictConfig, gad_config: GadConfig) -> None:
    """Check the options of the objective against verl's.

    Raises:
        GadConfigError: Names the keys, the reason and the remedy.
    """
    if gad_config.stage == "soda":
        _check_preferences(config, gad_config)
    if gad_config.stage in ("warmup", "seqkd"):
        _check_rate_of_texts(config, gad_config)
    if gad_config.stage not in ("auto", "gad"):
        return
    turns = gad_config.trust.otherwise == SUPERVISED
    require(
        not turns or gad_config.trust.enabled,
        "gad.trust.otherwise=supervised follows what the discriminator knows of prompts that never train it: set "
        "gad.trust.held_out_fraction above 0",
    )
    _check_what_f_weighs(gad_config)
    estimator = str(config.algorithm.adv_estimator)
    in_nats = not config.algorithm.get("norm_adv_by_std_in_grpo", True)
    require(
        not in_nats or gad_config.reward.whitening != "group",
        "gad.reward.whitening=group divides rewards by the spread of their group, which "
        "algorithm.norm_adv_by_std_in_grpo=False is there to leave alone: set one of them otherwise",
    )
    if turns and not in_nats and estimator not in DIVIDE_BY_SPREAD:
        logger.warning(
            "gad.trust.otherwise=supervised weighs scores in nats, but advantages are divided by the spread of their "
            "group: set algorithm.norm_adv_by_std_in_grpo=False, as gad=recommended does (a configuration that is "
            "composed over it may have set it back)"
        )
    if turns and estimator in DIVIDE_BY_SPREAD:
        logger.warning(
            "gad.trust.otherwise=supervised weighs scores in nats, but algorithm.adv_estimator=%s divides advantages "
            "by their spread, whatever algorithm.norm_adv_by_std_in_grpo is: take one that keeps the unit (%s)",
            estimator,
            ", ".join(KEEP_UNIT),
        )
    if gad_config.uses_texts:
        _check_one_batch(config)
        _say_rates(config, gad_config)


def _check_what_f_weighs(gad_config: GadConfig) -> None:
    """f is what the discriminator knows; the whole policy loss, or its learning rate, has it as a factor."""
    reward = gad_config.reward
    require(
        not gad_config.trust.enabled or reward.discriminator_weight > 0,
        "gad.trust.held_out_fraction above 0 lets scores teach as far as the discriminator knows, and "
        "gad.reward.discriminator_weight=0 leaves it out of the reward: set gad=paper (without trust)",
    )
    if gad_config.trust.enabled and reward.task_weight > 0:
        logger.warning(
            "gad.reward.task_weight=%g: f weighs the whole reward, so that this part too teaches only as far as the "
            "discriminator knows; for the rest %s. With gad=paper it always teaches",
            reward.task_weight,
            "the texts teach" if gad_config.turns_to_texts else "the student waits",
        )


def _check_rate_of_texts(config: DictConfig, gad_config: GadConfig) -> None:
    """A stage without scores has one rate; that of verl's key, where somebody has set it, is not passed over."""
    common, texts = config.actor_rollout_ref.actor.optim.lr, gad_config.warmup.actor_lr
    require(
        texts is None or common in (texts, COMMON_ACTOR_LR),
        f"actor_rollout_ref.actor.optim.lr={common:g} has no effect in stage {gad_config.stage}, whose rate is "
        f"gad.warmup.actor_lr={texts}: set that one, or gad.warmup.actor_lr=null to have verl's",
    )


def _check_preferences(config: DictConfig, gad_config: GadConfig) -> None:
    """What the loss of preferences needs of verl's settings."""
    actor, batch = config.actor_rollout_ref.actor, config.data.train_batch_size
    require(
        actor.use_kl_loss or config.algorithm.use_kl_in_reward,
        "gad.stage=soda compares the student with a reference, which verl builds for a KL loss: set "
        "actor_rollout_ref.actor.use_kl_loss=True (its coefficient is not read)",
    )
    require(
        actor.ppo_mini_batch_size >= batch,
        "gad.stage=soda reads the log-probabilities of a step's pairs once, before its update: set "
        f"actor_rollout_ref.actor.ppo_mini_batch_size={batch} (data.train_batch_size); got {actor.ppo_mini_batch_size}",
    )
    require(
        not gad_config.curriculum.enabled or gad_config.curriculum.mode == "order",
        f"gad.stage=soda takes the snapshot in one pass over all rows, and gad.curriculum.mode="
        f"{gad_config.curriculum.mode} draws some: set it to none or order",
    )


def _check_one_batch(config: DictConfig) -> None:
    """What verl cannot do with rows of two kinds in one batch."""
    model, actor, rollout = (config.actor_rollout_ref[name] for name in ("model", "actor", "rollout"))
    require(
        not model.get("use_fused_kernels", False) or rollout.temperature == 1.0,
        f"{_KEYS}. Texts are learned at temperature 1, rollouts at actor_rollout_ref.rollout.temperature="
        f"{rollout.temperature}, and verl's fused kernels take one temperature for all rows: set "
        "actor_rollout_ref.model.use_fused_kernels=False, or the temperature to 1",
    )
    replay = OmegaConf.select(actor, "megatron.router_replay.mode", default="disabled")
    require(
        actor.strategy != "megatron" or replay == "disabled",
        f"{_KEYS}. A text has no recorded experts: set actor_rollout_ref.actor.megatron.router_replay.mode=disabled",
    )
    require(
        not actor.get("use_prefix_grouper", False),
        f"{_KEYS}. verl's prefix grouper wants groups of rollouts alone: set "
        "actor_rollout_ref.actor.use_prefix_grouper=False",
    )
    require(
        not OmegaConf.select(config, "distillation.enabled", default=False),
        f"{_KEYS}. verl's own distillation wants the teacher's log-probabilities of every row: set "
        "distillation.enabled=False",
    )


def _say_rates(config: DictConfig, gad_config: GadConfig) -> None:
    common = config.actor_rollout_ref.actor.optim.lr
    named = {
        "gad.adversarial.actor_lr": gad_config.adversarial.actor_lr,
        "gad.warmup.actor_lr": gad_config.warmup.actor_lr,
    }
    scores, texts = (common if rate is None else rate for rate in named.values())
    logger.info("learning rates of the student: %g where it learns from scores, %g from texts", scores, texts)
    if gad_config.trust.otherwise == SUPERVISED and texts <= scores:
        logger.warning(
            "the student learns from texts at %g (gad.warmup.actor_lr), from scores at %g (gad.adversarial.actor_lr). "
            "SeqKD's rate is commonly several times that of GAD: where the discriminator knows nothing, the student "
            "would learn hardly anything",
            texts,
            scores,
        )
    if None not in named.values() and common not in named.values():
        logger.warning(
            "actor_rollout_ref.actor.optim.lr=%g has no effect: %s name the rates of both stages",
            common,
            " and ".join(f"{key}={rate:g}" for key, rate in named.items()),
        )


# Teacher texts with which GAD gained over SeqKD in examples/studies/discriminator_knowledge.py; with half of them, not.
ENOUGH_TEXTS = 500


def check_texts(gad_config: GadConfig, rows: int, schedule: StageSchedule) -> None:
    """Say where a run has so few teacher texts that GAD brought nothing in the study of how many it takes.

    Args:
        rows: Of the training data.
        schedule: Stages of the run.
    """
    if not gad_config.has_discriminator or schedule.phase(schedule.total_steps) is not Phase.ADVERSARIAL:
        return
    if rows < ENOUGH_TEXTS:
        logger.warning(
            "%d training rows: in a study where the truth is known, GAD gained over SeqKD of as many updates with %d "
            "teacher texts, and with %d it did not (docs/studies.md). Ask the teacher for answers to more prompts "
            "(gad-verl teacher), or train SeqKD alone (gad.stage=seqkd)",
            rows,
            ENOUGH_TEXTS,
            ENOUGH_TEXTS // 2,
        )


def check_unseen(config: DictConfig, gad_config: GadConfig) -> None:
    """Say where prompts are held out that have trained the discriminator before: it would be asked what it has seen.

    Raises:
        GadCheckpointError: If what it was begun with is damaged.
    """
    now = gad_config.trust.held_out
    if not gad_config.has_discriminator or not gad_config.trust.enabled:
        return
    before, folder = unseen_before(config)
    if before is None or before.also_by(now) == now:
        return
    kept = (
        f"gad.trust.held_out_fraction={before.fraction:g} gad.trust.seed={before.seed} as then"
        if before.fraction
        else "none was held out then"
    )
    logger.warning(
        "gad.trust.held_out_fraction=%g gad.trust.seed=%d holds out prompts that have trained the discriminator of %s "
        "(%s): where one of them comes again, f says that the discriminator knows more than it does. Nothing is wrong "
        "where every prompt of this run is new; else begin with a discriminator that was not trained on them",
        now.fraction,
        now.seed,
        folder,
        kept,
    )


def check_evidence(config: DictConfig, gad_config: GadConfig, rows: int, schedule: StageSchedule) -> None:
    """Say where too few prompts are held out for the student to learn from scores early in the adversarial stage.

    Args:
        rows: Of the training data.
        schedule: Stages of the run.
    """
    trust = gad_config.trust
    if not trust.enabled or schedule.phase(schedule.total_steps) is not Phase.ADVERSARIAL:
        return
    before = schedule.warmup_steps if schedule.stage == "auto" else 0
    tenth = max(1, (schedule.total_steps - before) // 10)
    seen = min(rows, (before + tenth) * config.data.train_batch_size)
    expected, needed = trust.held_out_fraction * seen, 1.5 * trust.least_prompts
    # Where all the rows are surely too few, the check of the options has said so.
    if expected < needed and trust.held_out_fraction * rows >= 0.5 * trust.least_prompts:
        share = needed / seen
        remedy = f"hold out {share:.2f} of them" if share <= 0.5 else "take more prompts a step or a longer warmup"
        logger.warning(
            "the first tenth of the adversarial stage ends after %d different prompts, of which "
            "gad.trust.held_out_fraction=%g holds out about %.0f; gad.trust.least_prompts=%d must have been seen "
            "before the student learns from scores: %s, or lower least_prompts",
            seen,
            trust.held_out_fraction,
            expected,
            trust.least_prompts,
            remedy,
        )
