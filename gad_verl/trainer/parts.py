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
"""The parts of a run that need its workers, put together."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tensordict import TensorDict

from gad_verl.config import GadConfig
from gad_verl.config.custom_code import load_custom
from gad_verl.config.modes import updates_of_step
from gad_verl.core import Phase
from gad_verl.core.trust import HeldOut
from gad_verl.data.builders import answer_encoder, has_own_tokenizer
from gad_verl.data.image_prompts import PROCESSORS, ImagePrompts, image_prompts
from gad_verl.data.tools import call_reader
from gad_verl.data.trajectories import trajectory_builder
from gad_verl.trainer.checkpoints import GadState, HasState, discriminator_shape
from gad_verl.trainer.discriminator_step import DiscriminatorTraining
from gad_verl.trainer.encoding import Encoding
from gad_verl.trainer.estimators import WITHOUT_SIBLINGS
from gad_verl.trainer.group_rewards import GROUP_FUNCTION_KEY, group_rewards
from gad_verl.trainer.held_out_texts import HeldOutTexts
from gad_verl.trainer.metrics import score_metrics, thinking_metrics
from gad_verl.trainer.objective import Objective
from gad_verl.trainer.off_policy import OffPolicy
from gad_verl.trainer.preference import PreferenceStep
from gad_verl.trainer.reward_options import reward_options
from gad_verl.trainer.rewards import Rewards
from gad_verl.trainer.scored import Observer, StepInfo
from gad_verl.trainer.snapshot import Snapshot
from gad_verl.trainer.step import GadStep
from gad_verl.trainer.student_stages import StudentStages
from gad_verl.trainer.student_update import AdversarialUpdate
from gad_verl.trainer.supervised import SupervisedStep
from gad_verl.trainer.task_rewards import task_rewards
from gad_verl.trainer.thinking import ThinkingRows
from gad_verl.trainer.trajectory_encoding import TrajectoryEncoding
from gad_verl.trainer.unseen import unseen

if TYPE_CHECKING:
    from gad_verl.trainer.gad_trainer import GadTrainer

DISCRIMINATOR = "discriminator"
DISCRIMINATOR_POOL = "discriminator_pool"


class ColocatedReward:
    """verl's reward loop manager, seen as one whose reward is computed after the rollout: that opens the reward stage.

    With ``reward_loop_worker_handles`` None, verl's step and validation let the rollout sleep and call
    ``_compute_reward_colocate`` (trainer_base.py).
    """

    reward_loop_worker_handles = None

    def __init__(self, manager: Any) -> None:
        self.manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self.manager, name)


@dataclass(frozen=True)
class Parts:
    """What a step consists of.

    Args:
        step: From rollouts to rewards.
        supervised: The student's supervised steps.
        student_update: Its update of the adversarial stage.
        preference: Its update of SODA; None in other stages.
        stages: Learning rates, losses, the KL reference.
        stateful: All parts that remember something, by their names in a checkpoint.
        discriminator_shape: Sizes of the discriminator; None in SeqKD.
        held_out: Prompts that never train it, nor have before this run; None where that is not known.
    """

    step: GadStep
    supervised: SupervisedStep
    student_update: AdversarialUpdate
    preference: PreferenceStep | None
    stages: StudentStages
    stateful: dict[str, HasState]
    discriminator_shape: dict[str, Any] | None
    held_out: HeldOut | None

    def learn_from_data(self, batch: TensorDict, info: StepInfo) -> dict[str, Any]:
        """A step without rollouts, by its phase; returns metrics."""
        if info.phase is Phase.PREFERENCE:
            assert self.preference is not None
            return self.preference.train(batch, info)
        return self.supervised.train(self.step.rows_of_data(batch, info))

    def state(self, step: int, has_critic: bool, has_transfer_queue: bool = False) -> GadState:
        """What a checkpoint says of itself, after at least one step."""
        assert self.stages.entered is not None
        return GadState(
            step=step,
            stage=self.stages.entered,
            has_discriminator=self.discriminator_shape is not None,
            kl_reference=self.stages.kl_reference,
            discriminator_shape=self.discriminator_shape,
            has_critic=has_critic,
            schedule=self.stages.schedule,
            has_transfer_queue=has_transfer_queue,
            held_out=self.held_out,
        )


def build_parts(trainer: "GadTrainer") -> Parts:
    """Put the parts together once verl has set up its workers.

    Args:
        trainer: Read here and known to none of the parts.
    """
    config, gad, group = trainer.config, trainer.gad_config, trainer.discriminator
    student, manager, pad = trainer.actor_rollout_wg, trainer.reward_loop_manager, trainer.tokenizer.pad_token_id
    rollouts, trust, guardian, log = trainer.rollouts, trainer.trust, trainer.guardian, trainer.log
    objective = Objective(gad, trust)
    prompts = _image_prompts(trainer)
    encoding = _encoding(trainer, prompts)
    updates = updates_of_step(config)
    training = None if group is None else DiscriminatorTraining(group, gad, updates, prompts)
    options = reward_options(gad.reward, guardian.turns("length_penalty"))
    asked, where = partial(task_rewards, manager, pad, rollouts), gad.reward.group_function
    if where is not None:
        asked = partial(group_rewards, load_custom(where, GROUP_FUNCTION_KEY), where, rollouts, encoding)
    siblings = config.actor_rollout_ref.rollout.n > 1 and config.algorithm.adv_estimator not in WITHOUT_SIBLINGS
    rewards = Rewards(gad.reward, options, rollouts, encoding, asked, gad.thinking.unclosed_penalty, siblings)
    texts = HeldOutTexts()
    reference = trainer.ref_policy_wg if trainer.use_reference_policy else None
    stages = StudentStages(config, gad, trainer.schedule, student, group, reference, guardian, objective, texts, log)
    apart = None if trainer.ref_in_actor else reference
    supervised = SupervisedStep(student, config, encoding.student.eos_token_id, apart)
    preference = snapshot = None
    if gad.stage == "soda":
        snapshot = Snapshot(trainer.folders.root)
        preference = PreferenceStep(gad, rollouts, encoding, snapshot, supervised, stages)
    stateful: dict[str, HasState | None] = {
        "guardian": guardian,
        "trust": trust,
        "rewards": rewards,
        "stages": stages,
        "discriminator": training,
        "held_out_texts": texts,
        "snapshot": snapshot,
    }
    shape = None
    if group is not None:
        shape = discriminator_shape(group.hf_config, gad.discriminator_num_layers, config.discriminator.model)
    off_policy = None if trainer.verl_mode == "sync" else OffPolicy(gad.off_policy, trust)
    observers = _observers(trainer, encoding, off_policy)
    readers = (trust, rewards, guardian, observers, log, supervised, texts)
    passing_only = gad.discriminator_updates.passing_only
    return Parts(
        step=GadStep(rollouts, encoding, training, *readers, gad.uses_texts, preference, passing_only, off_policy),
        supervised=supervised,
        student_update=AdversarialUpdate(objective, stages, supervised),
        preference=preference,
        stages=stages,
        stateful={name: part for name, part in stateful.items() if part is not None},
        discriminator_shape=shape,
        held_out=None if group is None else unseen(config, gad),
    )


def _observers(trainer: "GadTrainer", encoding: Encoding, off_policy: OffPolicy | None) -> list[Observer]:
    """Who looks at the scores of a step, as far as the configuration asks for it."""
    gad, mix = trainer.gad_config, trainer.rollouts.teachers
    observers: list[Observer] = [score_metrics]
    if off_policy is not None:
        observers.append(off_policy.observe)
    if gad.thinking.hides:
        observers.append(thinking_metrics)
    if isinstance(encoding, TrajectoryEncoding):
        observers.append(encoding.metrics)
    if mix.mode != "cycle":
        observers.append(lambda step: mix.metrics([group.teachers for group in step.rollouts.groups]))
    if gad.curriculum.enabled:
        observers.append(trainer.data.observe)
    if trainer.trust is not None:
        observers.append(trainer.trust.observe)
    if gad.record.enable:
        observers.append(trainer.log.observer(encoding))
    return observers


def _image_prompts(trainer: "GadTrainer") -> ImagePrompts | None:
    """Of a student with eyes whose rows may have images; the check before the run has refused them of any other."""
    processor = trainer.processor
    if type(processor).__name__ not in PROCESSORS:
        return None
    return image_prompts(trainer.config, trainer.tokenizer, processor)


def _encoding(trainer: "GadTrainer", prompts: ImagePrompts | None) -> Encoding:
    config, gad, group = trainer.config, trainer.gad_config, trainer.discriminator
    other = group.tokenizer if group is not None and has_own_tokenizer(config, gad) else None
    encoder = answer_encoder(config, gad, trainer.tokenizer, other)
    if gad.trajectory.enable:
        trainer.rollouts.reads_masks = True
        builder = trajectory_builder(config, gad, encoder.student)
        return TrajectoryEncoding(builder, call_reader(config, trainer.tokenizer), gad.trajectory.scores_turns)
    trainer.rollouts.thoughts = thoughts = encoder.thoughts
    rows = None
    if thoughts is not None:
        rows = ThinkingRows(thoughts, gad.thinking.warmup, config.data.max_response_length)
    return Encoding(encoder.student, encoder.reader, rows, prompts)


def place_discriminator(manager: Any, gad: GadConfig, spawn: Callable[[Any], None]) -> None:
    """Give the discriminator its resource pool, and start its processes as soon as verl has made the pools.

    That is before the student's are started: the processes import verl while student and rollout are set up.

    Args:
        manager: verl's ``ResourcePoolManager``; its creation of pools is replaced.
        gad: The section ``gad``.
        spawn: Starts the processes on a pool.
    """
    manager.mapping[DISCRIMINATOR] = "global_pool"
    if not gad.has_discriminator:
        return
    if gad.discriminator_n_gpus_per_node > 0:
        pool = [gad.discriminator_n_gpus_per_node] * gad.discriminator_nnodes
        manager.resource_pool_spec[DISCRIMINATOR_POOL] = pool
        manager.mapping[DISCRIMINATOR] = DISCRIMINATOR_POOL
    create_pools = manager.create_resource_pool

    def create_and_spawn() -> None:
        create_pools()
        spawn(manager.get_resource_pool(DISCRIMINATOR))

    manager.create_resource_pool = create_and_spawn
