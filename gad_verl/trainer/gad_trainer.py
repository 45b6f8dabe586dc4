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
"""Where GAD meets verl: the one class that overrides verl's trainer.

Each override is a few lines: what verl does in that stage, and a call of the part of :mod:`gad_verl.trainer` that does
what GAD does in it. The parts know nothing of this class. verl's own modes are thin classes over it
(:mod:`gad_verl.trainer.modes`). What is overridden is listed in :mod:`gad_verl.compat.uses`.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer

from gad_verl.core import Phase
from gad_verl.data.thinking import settled_config
from gad_verl.discriminator.worker_group import DiscriminatorGroup
from gad_verl.guardian import Guardian
from gad_verl.trainer import checkpoints, metrics_file
from gad_verl.trainer.checkpoints import DISCRIMINATOR_FOLDER, CheckpointFolders
from gad_verl.trainer.ending import Ending
from gad_verl.trainer.metrics import drop_policy_metrics, phase_metrics, seqkd_metrics
from gad_verl.trainer.parts import ColocatedReward, build_parts, place_discriminator
from gad_verl.trainer.rollouts import VALIDATION, KVBatchMeta, Rollouts
from gad_verl.trainer.run_log import RunLog
from gad_verl.trainer.scored import StepInfo
from gad_verl.trainer.stop_file import StopFile
from gad_verl.trainer.training_data import TrainingData
from gad_verl.trainer.trust import StudentTrust
from gad_verl.trainer.watchdog import Watchdog, actors_of, watched
from gad_verl.workers.folders import remove_everywhere
from gad_verl.workers.student import StudentWorker

logger = logging.getLogger(__name__)


class GadTrainer(PPOTrainer):
    """GAD on a trainer of verl. Configured by ``gad_trainer.yaml``."""

    # The mode of verl whose semantics a subclass has; verl compares with the literal.
    verl_mode: str
    student_worker: type[StudentWorker] = StudentWorker
    # verl's, which mypy does not see.
    steps_per_epoch: int
    total_training_steps: int
    reward_loop_manager: Any
    train_dataloader_it: Any

    def __init__(self, config: DictConfig) -> None:
        self.gad_config = gad = settled_config(config)
        # While verl sets the trainer up, each finished component becomes one more attribute.
        self.watchdog = Watchdog(gad.watchdog, partial(actors_of, self), progress=lambda: len(vars(self)))
        teachers = gad.teachers.build()
        self.data = TrainingData(config, gad, teachers, self.watchdog.beat)
        self.rollouts = Rollouts(gad.teacher_key, gad.teachers.column, teachers, self.verl_mode != "sync")
        self.folders = CheckpointFolders(config.trainer, gad.keep_checkpoints, gad.save_minutes)
        self.guardian = Guardian(gad.guardian)
        self.log = RunLog(gad.record)
        self.trust = StudentTrust(gad.trust, self.log) if gad.trust.enabled else None
        stop_file = StopFile.of_run(gad, self.folders.root)
        self.ending = Ending(self.guardian, stop_file, config.trainer.save_freq > 0, self.log)
        super().__init__(config)
        self.discriminator: DiscriminatorGroup | None = None
        self._replicas_asleep = self._training_began = False

    @property
    def trainer_mode(self) -> str:
        """verl assigns the registered name and compares it with literals; a subclass has semantics of its own."""
        return self.verl_mode

    @trainer_mode.setter
    def trainer_mode(self, _: str) -> None: ...

    # ------------------------------ set-up ------------------------------

    def init(self) -> None:
        self.folders.begin()
        self.watchdog.start()
        self.watchdog.explain(super().init)

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        self.watchdog.watch_buffer(buffer, self.gad_config.replay_poll_interval_s)
        return buffer

    @property
    def train_dataset(self) -> Any:
        """verl's attribute; the data may be replaced between two passes."""
        return self.data.dataset

    @train_dataset.setter
    def train_dataset(self, dataset: Any) -> None:
        self.data.dataset = dataset

    @property
    def train_dataloader(self) -> Any:
        return self.data.loader

    @train_dataloader.setter
    def train_dataloader(self, loader: Any) -> None:
        self.data.loader = loader

    def _init_dataloader(self) -> None:
        with self.data.reading():
            super()._init_dataloader()
        self.data.take_over(self.steps_per_epoch, self.total_training_steps, self.tokenizer, self.processor)
        self.steps_per_epoch = self.data.steps_per_epoch
        schedule = self.gad_config.build_schedule(self.total_training_steps, self.steps_per_epoch)
        self.schedule = self.data.begun.check(schedule)
        logger.info("stages: %s", self.schedule)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in self.role_worker_mapping:
            if "actor" in str(role) or str(role) == "ref":
                self.role_worker_mapping[role] = ray.remote(self.student_worker)
        place_discriminator(self.resource_pool_manager, self.gad_config, self._spawn_discriminator)

    def _spawn_discriminator(self, pool: Any) -> None:
        self.discriminator = DiscriminatorGroup(self.config, self.gad_config, pool, self.schedule)

    def _setup(self) -> None:
        super()._setup()
        self.reward_loop_manager = ColocatedReward(self.reward_loop_manager)
        # Attributes that are new are signs of life for the watchdog; here are long stretches without one.
        self.watchdog.beat("load_discriminator")
        if self.discriminator is not None:
            self.discriminator.load_model()
        self.parts = build_parts(self)
        if self.folders.resumed is not None:
            self._resume_parts(self.folders.resumed)

    def get_reward_handles(self) -> Any:
        """No rule-based reward while the rollouts stream: the reward is the discriminator's score."""
        return None

    # ------------------------------ the run ------------------------------

    def fit(self, agent_loop_manager: Any) -> None:
        file = metrics_file.file_logger_path(self.config, self.folders.root, self.global_steps)
        self._logged_before = metrics_file.lines_until(file, self.global_steps, self.folders.root)
        config = OmegaConf.to_container(self.config, resolve=True)
        self.log.open(self.folders.root, self.global_steps or None, config, file)
        finished = False
        try:
            self.watchdog.explain(metrics_file.told_to_verl(file)(super().fit), agent_loop_manager)
            finished = self.ending.asked is None
        finally:
            self.log.close(finished)
            self.watchdog.stop()
        self.ending.confirm()

    def on_validate_begin(self) -> None:
        self._restore_logged_lines()
        super().on_validate_begin()

    def on_train_begin(self) -> None:
        self._restore_logged_lines()
        self._training_began = True
        super().on_train_begin()

    def _restore_logged_lines(self) -> None:
        """Write what a resumed run had logged before: verl's file logger begins an empty file."""
        metrics_file.restore(self.logger, self._logged_before)
        self._logged_before = []

    # ------------------------------ the step ------------------------------

    @property
    def phase(self) -> Phase:
        return self.schedule.phase(max(1, self.global_steps))

    def _info(self, num_sessions: int) -> StepInfo:
        before = max(1, self.global_steps) - 1
        update = before * self.parameter_sync_step + self.local_trigger_step + 1
        return StepInfo(self.global_steps, self.phase, before // self.steps_per_epoch, num_sessions, update)

    @property
    def _num_sessions(self) -> int:
        """Rollouts of a prompt; fewer where the warmup asks for fewer, since only the discriminator reads them."""
        if self.phase is Phase.SNAPSHOT:
            return 1
        fewer = self.gad_config.warmup_rollout_n
        return fewer if fewer is not None and self.phase.is_warmup else self.config.actor_rollout_ref.rollout.n

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        metrics.update(phase_metrics(self.phase))
        generates = self.phase.generates
        batch = super().step(metrics, timing_raw) if generates else self._step_on_data(metrics, timing_raw)
        metrics.update(self.data.metrics())
        # Before verl saves: what is decided by this step's metrics belongs to its checkpoint.
        self._decide_by(metrics)
        return batch

    def _decide_by(self, metrics: dict) -> None:
        for event in self.data.take_events():
            self.log.event(**event)
        self.ending.judge(self.global_steps, self.phase, metrics)
        if self.gad_config.guardian.enable:
            metrics.update(self.guardian.metrics())
        is_saved_by_verl = self._is_due(self.config.trainer.save_freq)
        save = self.ending.ends_after(self.global_steps, self.total_training_steps)
        if save is not None:
            # verl's loop ends behind its last step.
            self.total_training_steps = self.global_steps
        if not is_saved_by_verl and (self.folders.is_time if save is None else save):
            self._save_checkpoint()

    def _is_due(self, frequency: int) -> bool:
        """Whether verl does after this step what it does every so many steps and at the end."""
        return frequency > 0 and (self.global_steps >= self.total_training_steps or self.global_steps % frequency == 0)

    def _fetch_one_gen_batch(self) -> TensorDict:
        if self.data.reloads and self.train_dataloader_it is None:
            self.train_dataloader_it = self.data.batches()
        return super()._fetch_one_gen_batch()

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        self.data.begin_draw(self.global_steps)
        batch = super()._next_train_batch(num_prompts)
        self.data.end_draw()
        return batch

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        if self._num_sessions != self.config.actor_rollout_ref.rollout.n:
            tu.assign_non_tensor_data(batch, "__rollout_n__", self._num_sessions)
        self.rollouts.note_asked(batch)
        return super()._submit_batch_to_rollout(batch)

    def on_sample_end(self) -> None:
        super().on_sample_end()
        self._replicas_asleep = True
        self.parts.stages.enter(self.global_steps)

    def on_step_end(self) -> None:
        """Wake the rollout with the new weights, where anybody will ask it."""
        self.watchdog.beat("update_weights")
        if not self.phase.generates and not self._is_due(self.config.trainer.test_freq):
            return
        super().on_step_end()
        self._replicas_asleep = False

    @watched
    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        if self.parts.step.is_in_flight:
            self.parts.step.receive_scores(metrics)
            with marked_timer("wait_discriminator_step", timing_raw, color="brown"):
                self.parts.step.finish(metrics)
        return batch

    @watched
    def _compute_reward_colocate(self, batch: KVBatchMeta, metrics: dict | None = None) -> KVBatchMeta:
        if batch.partition_id == VALIDATION:
            sessions = self.config.actor_rollout_ref.rollout.val_kwargs.n
            has_truth = "reward_model" in self.val_dataset.dataframe.column_names
            self.parts.step.validate(batch, self._info(sessions), has_truth)
        else:
            self.parts.step.begin(batch, self._info(self._num_sessions), {} if metrics is None else metrics)
        return batch

    @watched
    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        return super()._balance_batch(batch, metrics, *args, **kwargs) if self._learns_from_scores else batch

    @watched
    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return super()._compute_old_log_prob(batch, metrics) if self._learns_from_scores else batch

    @watched
    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return super()._compute_ref_log_prob(batch, metrics) if self._learns_from_scores else batch

    @watched
    def _compute_values(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return super()._compute_values(batch, metrics) if self._learns_from_scores else batch

    @watched
    def _update_critic(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return super()._update_critic(batch, metrics) if self._learns_from_scores else batch

    @watched
    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self._learns_from_scores:
            self.parts.step.receive_scores(metrics)
            return super()._compute_advantage(batch, metrics)
        # verl's metrics read these fields; the numbers made from them are dropped again (_compute_metrics).
        names = ["advantages", "returns", *(["values"] if self.use_critic else [])]
        self.rollouts.write_no_advantages(batch, names)
        return batch

    @property
    def _learns_from_scores(self) -> bool:
        # What the discriminator knows is known once its scores are there; a critic learns from every step.
        always = self.use_critic or self.parts.step.is_in_flight
        return self.phase is Phase.ADVERSARIAL and (always or not self.parts.student_update.rests)

    @watched
    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is Phase.ADVERSARIAL:
            by_scores = partial(super()._update_actor, batch, metrics)
            rows = self.parts.step.supervised_rows
            self.parts.student_update.run(self.global_steps, rows, len(batch), metrics, by_scores)
            return batch
        if self.phase.trains_student_supervised:
            metrics.update(self.parts.supervised.train(self.parts.step.supervised_rows))
        return batch

    def _step_on_data(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """Cross-entropy or preferences, straight from the data: nothing is generated."""
        if not self._replicas_asleep:
            self.checkpoint_manager.sleep_replicas()
            self._replicas_asleep = True
        self.parts.stages.enter(self.global_steps)
        batch = self._next_train_batch()
        with marked_timer("update_actor", timing_raw, color="red"):
            metrics.update(self.parts.learn_from_data(batch, self._info(0)))
        return self.rollouts.without_rollouts(list(batch["uid"]), self.global_steps)

    # ------------------------------ what is logged ------------------------------

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        if not self.phase.generates:
            metrics.update(seqkd_metrics(timing_raw, global_steps, epoch))
            return
        super()._compute_metrics(batch, metrics, timing_raw, global_steps=global_steps, epoch=epoch)
        if not self._learns_from_scores:
            drop_policy_metrics(metrics)

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict, rollout_data_dir: str) -> None:
        if self.phase.generates:
            super()._log_rollout_data(batch, timing_raw, rollout_data_dir)

    @watched
    def _validate(self) -> dict[str, float]:
        self.parts.step.begin_validation(self.global_steps)
        metrics = super()._validate() | self.parts.step.validation_metrics()
        self._replicas_asleep = False
        # What verl validates before a resumed run goes on was judged when that step was made, if it was to be.
        if self.folders.resumed is None or self._training_began:
            self.ending.judge(self.global_steps, self.phase, metrics)
            # It comes after the step's checkpoint, to which the judgement belongs.
            if (folder := self.folders.of_step(self.global_steps)).is_dir():
                checkpoints.save_parts(folder, self.parts.stateful)
        return metrics

    # ------------------------------ checkpoints ------------------------------

    def _load_checkpoint(self) -> None:
        """Resume from a complete checkpoint only; what belongs to GAD's parts is loaded once they exist."""
        self.folders.find()
        super()._load_checkpoint()
        self.data.resume(self.global_steps)

    def _resume_parts(self, folder: Path) -> None:
        self.watchdog.beat("resume")
        state = checkpoints.read_state(folder)
        if state.has_discriminator and self.discriminator is not None:
            self.discriminator.load(folder / DISCRIMINATOR_FOLDER)
        self.parts.stages.resume(state, folder.parent)
        checkpoints.load_parts(folder, self.parts.stateful)
        logger.info("resumed from %s in stage %s", folder, state.stage)

    @watched
    def _save_checkpoint(self) -> None:
        """Discriminator and state first, verl's tracker last: a checkpoint that is tracked is whole."""
        if not self.ending.may_save:
            return
        folder = self.folders.begin_save(self.global_steps)
        self.data.save(folder)
        if self.discriminator is not None:
            self.discriminator.save(folder / DISCRIMINATOR_FOLDER, self.global_steps)
        self.parts.state(self.global_steps, self.use_critic, self.verl_mode != "sync").write(folder)
        checkpoints.save_parts(folder, self.parts.stateful)
        with self.folders.without_rotation():
            super()._save_checkpoint()
        old = self.folders.finish(self.global_steps)
        if old:
            remove_everywhere([one for one in (self.actor_rollout_wg, self.discriminator) if one is not None], old)
            logger.info("removed old checkpoints: %s", ", ".join(map(str, old)))
