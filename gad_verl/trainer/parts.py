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

from verl.utils.model import get_generation_config

from gad_verl.config import GadConfig
from gad_verl.data.thinking import marks_of, without_thoughts
from gad_verl.data.thoughts import ThoughtReader
from gad_verl.data.tokens import SequenceBuilder, stop_token_ids
from gad_verl.data.tools import call_reader
from gad_verl.data.trajectories import trajectory_builder
from gad_verl.trainer.checkpoints import GadState, HasState, discriminator_shape
from gad_verl.trainer.discriminator_step import DiscriminatorTraining
from gad_verl.trainer.encoding import Encoding
from gad_verl.trainer.held_out_texts import HeldOutTexts
from gad_verl.trainer.metrics import score_metrics, thinking_metrics
from gad_verl.trainer.objective import Objective
from gad_verl.trainer.reward_options import reward_options
from gad_verl.trainer.rewards import Rewards
from gad_verl.trainer.scored import Observer
from gad_verl.trainer.step import GadStep
from gad_verl.trainer.student_stages import StudentStages
from gad_verl.trainer.student_update import AdversarialUpdate
from gad_verl.trainer.supervised import SupervisedStep
from gad_verl.trainer.task_rewards import task_rewards
from gad_verl.trainer.thinking import ThinkingRows
from gad_verl.trainer.trajectory_encoding import TrajectoryEncoding

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
        stages: Learning rates, losses, the KL reference.
        stateful: All parts that remember something, by their names in a checkpoint.
        discriminator_shape: Sizes of the discriminator; None in SeqKD.
    """

    step: GadStep
    supervised: SupervisedStep
    student_update: AdversarialUpdate
    stages: StudentStages
    stateful: dict[str, HasState]
    discriminator_shape: dict[str, Any] | None

    def state(self, step: int, has_critic: bool) -> GadState:
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
    encoding = _encoding(trainer)
    training = None if group is None else DiscriminatorTraining(group, gad)
    options = reward_options(gad.reward, guardian.turns("length_penalty"))
    asked = partial(task_rewards, manager, pad, rollouts)
    rewards = Rewards(gad.reward, options, rollouts, encoding, asked, gad.thinking.unclosed_penalty)
    texts = HeldOutTexts()
    stages = StudentStages(
        config, gad, trainer.schedule, student, group, trainer.use_reference_policy, guardian, objective, texts, log
    )
    stateful: dict[str, HasState | None] = {
        "guardian": guardian,
        "trust": trust,
        "rewards": rewards,
        "stages": stages,
        "discriminator": training,
        "held_out_texts": texts,
    }
    shape = None
    if group is not None:
        shape = discriminator_shape(group.hf_config, gad.discriminator_num_layers, config.discriminator.model)
    supervised = SupervisedStep(student, config, encoding.student.eos_token_id)
    observers = _observers(trainer, encoding)
    readers = (trust, rewards, guardian, observers, log, supervised, texts)
    return Parts(
        step=GadStep(rollouts, encoding, training, *readers, gad.uses_texts),
        supervised=supervised,
        student_update=AdversarialUpdate(objective, stages, supervised),
        stages=stages,
        stateful={name: part for name, part in stateful.items() if part is not None},
        discriminator_shape=shape,
    )


def _observers(trainer: "GadTrainer", encoding: Encoding) -> list[Observer]:
    """Who looks at the scores of a step, as far as the configuration asks for it."""
    gad, mix = trainer.gad_config, trainer.rollouts.teachers
    observers: list[Observer] = [score_metrics]
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


def _encoding(trainer: "GadTrainer") -> Encoding:
    data, model, gad = trainer.config.data, trainer.config.actor_rollout_ref.model, trainer.gad_config
    template_kwargs = dict(data.get("apply_chat_template_kwargs", {}) or {})
    lengths = (data.max_prompt_length, gad.longest_answer(data.max_response_length))
    generation = get_generation_config(model.path, trust_remote_code=model.get("trust_remote_code", False))
    stop_ids = stop_token_ids(trainer.tokenizer, generation)
    student = reader = SequenceBuilder(trainer.tokenizer, *lengths, stop_ids, template_kwargs)
    if gad.trajectory.enable:
        trainer.rollouts.reads_masks = True
        builder = trajectory_builder(trainer.config, gad, student)
        return TrajectoryEncoding(builder, call_reader(trainer.config, trainer.tokenizer), gad.trajectory.scores_turns)
    group = trainer.discriminator
    if group is not None and trainer.config.discriminator.model.path != model.path:
        reader = SequenceBuilder(group.tokenizer, *lengths, None, template_kwargs)
    if not gad.thinking.hides:
        return Encoding(student, reader)
    thoughts = ThoughtReader(student, marks_of(gad.thinking, trainer.tokenizer.chat_template))
    trainer.rollouts.thoughts = thoughts
    rows = ThinkingRows(thoughts, gad.thinking.warmup, data.max_response_length)
    return Encoding(student, without_thoughts(reader), rows)


def place_discriminator(manager: Any, gad: GadConfig, spawn: Callable[[Any], None]) -> None:
    """Give the discriminator its resource pool, and start its processes as soon as verl has made the pools.

    That is before the student's are started: the processes import verl while student and rollout are set up.

    Args:
        manager: verl's ``ResourcePoolManager``; its creation of pools is replaced.
        gad: The section ``gad``.
        spawn: Starts the processes on a pool.
    """
    manager.mapping[DISCRIMINATOR] = "global_pool"
    if gad.stage == "seqkd":
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
