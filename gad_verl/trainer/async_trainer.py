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
"""What verl's two asynchronous modes have in common for GAD: prompts of several steps are on their way at any time."""

import logging
from abc import abstractmethod
from typing import Any

import torch
from omegaconf import DictConfig
from tensordict import TensorDict

from gad_verl.trainer.gad_trainer import GadTrainer
from gad_verl.trainer.in_flight import PromptsInFlight
from gad_verl.trainer.paused_replicas import PausedReplicas

logger = logging.getLogger(__name__)


class GadAsyncTrainer(GadTrainer):
    """GAD where the rollouts of a step were asked for before it, by weights that may be older."""

    # verl's, which mypy does not see.
    checkpoint_manager: Any
    _restored_tq_prompt_count: int

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        ahead = config.trainer.v1[self.verl_mode].num_warmup_batches
        self.prompts = PromptsInFlight(config.data.train_batch_size, ahead)

    @abstractmethod
    def _pause_rollout(self, manager: Any) -> None:
        """A validation wants the memory of the training's devices. ``manager`` is verl's."""

    @abstractmethod
    def _resume_rollout(self, manager: Any) -> None:
        """It has done with it."""

    # ------------------------------ prompts ------------------------------

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        buffer.refill_fn = self._replace_prompts
        return buffer

    def _replace_prompts(self, count: int) -> None:
        """verl has thrown away so many groups, and wants others."""
        self.watchdog.check()
        self.prompts.replace(count)
        self._add_prompts_to_generate(count)

    @property
    def _num_sessions(self) -> int:
        """Of most prompts; those of the warmup are asked one by one."""
        return self.config.actor_rollout_ref.rollout.n

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        steps, fewer = self.prompts.ask(len(batch)), self.gad_config.warmup_rollout_n
        if fewer is not None:
            phases = [self.schedule.phase(min(step, self.total_training_steps)) for step in steps]
            # A column of the rows: it is saved with them, and read again where a prompt is asked once more.
            counts = [fewer if phase.is_warmup else self._num_sessions for phase in phases]
            batch["__rollout_n__"] = torch.tensor(counts)
        return super()._submit_batch_to_rollout(batch)

    def on_sample_end(self) -> None:
        self.prompts.begin_step()
        super().on_sample_end()

    # ------------------------------ validation, checkpoints ------------------------------

    def _validate(self) -> dict[str, float]:
        manager = self.checkpoint_manager
        self.checkpoint_manager = PausedReplicas(manager, self._pause_rollout, self._resume_rollout)
        try:
            return super()._validate()
        finally:
            self.checkpoint_manager = manager

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        orphans = self.rollouts.clear_orphans()
        self.prompts.resume(self.global_steps, self._restored_tq_prompt_count)
        if self.global_steps:
            logger.info(
                "%d prompts wait for the next steps; %d trajectories of trained steps were cleared",
                self._restored_tq_prompt_count,
                orphans,
            )
