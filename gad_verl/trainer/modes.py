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
"""The trainer modes of gad_verl: for each of verl's a thin class over the one that holds the overrides."""

import logging
from typing import Any

from verl.trainer.ppo.v1 import trainer_separate_async
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from gad_verl.config.modes import COLOCATE_ASYNC, SEPARATE_ASYNC, SYNC
from gad_verl.core import Phase
from gad_verl.trainer import estimators  # noqa: F401  registers the estimator gad_process with verl
from gad_verl.trainer.async_trainer import GadAsyncTrainer
from gad_verl.trainer.gad_trainer import GadTrainer
from gad_verl.trainer.mini_steps import combined
from gad_verl.trainer.rollouts import KVBatchMeta
from gad_verl.workers.student import DetachedStudentWorker


@register_trainer(SYNC)
class GadTrainerSync(GadTrainer, PPOTrainerSync):
    """verl's ``sync``: rollout and training in turns on the same machines."""

    verl_mode = "sync"


@register_trainer(COLOCATE_ASYNC)
class GadTrainerColocateAsync(GadAsyncTrainer, PPOTrainerColocateAsync):
    """verl's ``colocate_async``: in turns too, but nobody waits for the slowest rollouts, which go on in the next."""

    verl_mode = "colocate_async"

    def _pause_rollout(self, manager: Any) -> None:
        if self.config.actor_rollout_ref.rollout.free_cache_engine:
            manager.abort_replicas()
            manager.sleep_replicas()

    def _resume_rollout(self, manager: Any) -> None:
        if self.config.actor_rollout_ref.rollout.free_cache_engine:
            manager.update_weights(self.global_steps)
            manager.resume_generation_replicas()


@register_trainer(SEPARATE_ASYNC)
class GadTrainerSeparateAsync(GadAsyncTrainer, PPOTrainerSeparateAsync):
    """verl's ``separate_async``: the rollout has machines of its own and never waits for the training."""

    verl_mode = "separate_async"
    student_worker = DetachedStudentWorker

    def _setup(self) -> None:
        self._of_updates: list[dict] = []
        # verl gives its logger an argument of print's there, which is an error where the line is to be shown.
        level = trainer_separate_async.logger.level
        trainer_separate_async.logger.setLevel(logging.WARNING)
        try:
            super()._setup()
        finally:
            trainer_separate_async.logger.setLevel(level)

    # The rollout's own machines are left alone by a validation; what was lent by the training is wanted back.

    def _pause_rollout(self, manager: Any) -> None:
        if self._enable_hybrid_replicas:
            self.remove_replicas_from_balancer()
            manager.abort_replicas(reject_request=True)
            manager.sleep_replicas()

    def _resume_rollout(self, manager: Any) -> None:
        if self._enable_hybrid_replicas:
            manager.update_weights(self.global_steps)
            manager.resume_generation_replicas()
            self.add_replicas_to_balancer()

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        self._of_updates.append(dict(metrics))
        return batch

    def _decide_by(self, metrics: dict) -> None:
        metrics.update(combined(self._of_updates))
        self._of_updates = []
        super()._decide_by(metrics)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """verl's compares all updates of a step with its first weights, which the first update that computes it saves:
        it may be one that learns from no scores."""
        learns = self._learns_from_scores
        if self.phase is Phase.ADVERSARIAL and self.local_trigger_step == 0 and not learns:
            self.actor_rollout_wg.save_model_to_cpu(0)
        return super()._compute_old_log_prob(batch, metrics)
