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
"""verl's actor-rollout-reference worker with what GAD's stages need."""

from functools import partial

from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.utils.losses import sft_loss

from gad_verl.workers.stage import begin_stage, resume_stage

SUPERVISED_LOSS = "supervised"
POLICY_LOSS = "policy"


class StudentWorker(ActorRolloutRefWorker):
    """The stock worker; the methods below are called by GAD's trainer only."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def use_loss(self, name: str) -> None:
        """Train by ``supervised`` (cross-entropy, verl's ``sft_loss``) or ``policy`` (verl's ``ppo_loss``).

        Raises:
            ValueError: If the name is none of them.
        """
        if name == SUPERVISED_LOSS:
            self.actor.set_loss_fn(partial(sft_loss, config=None))
        elif name == POLICY_LOSS:
            self.actor.set_loss_fn(self.loss_fn)
        else:
            raise ValueError(f"loss must be {SUPERVISED_LOSS!r} or {POLICY_LOSS!r}; got {name!r}")

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def begin_stage(self, lr: float, total_steps: int, reset_optimizer: bool) -> None:
        """See :func:`gad_verl.workers.stage.begin_stage`; the schedule starts anew with the optimizer."""
        begin_stage(self.actor.engine, lr, total_steps, reset_optimizer, restart_schedule=reset_optimizer)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def resume_stage(self, total_steps: int) -> None:
        """See :func:`gad_verl.workers.stage.resume_stage`."""
        resume_stage(self.actor.engine, total_steps)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_student_weights(self, path: str) -> None:
        """Save the student's weights alone, outside every rotation of checkpoints."""
        manager = self.actor.engine.checkpoint_manager
        contents, paths = manager.checkpoint_save_contents, list(manager.previous_saved_paths)
        manager.checkpoint_save_contents = ["model"]
        try:
            self.actor.save_checkpoint(path, None, 0, None)
        finally:
            manager.checkpoint_save_contents, manager.previous_saved_paths = contents, paths

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_reference_weights(self, path: str) -> None:
        """Load weights written by :meth:`save_student_weights` into the reference of the KL loss."""
        manager = self.ref.engine.checkpoint_manager
        contents = manager.checkpoint_load_contents
        manager.checkpoint_load_contents = ["model"]
        try:
            self.ref.load_checkpoint(path, None, False)
        finally:
            manager.checkpoint_load_contents = contents
