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
from typing import Any

import torch
from tensordict import TensorDict
from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from gad_verl.core import LossWeights
from gad_verl.workers.adapter import (
    FrozenAdapter,
    adapter_config,
    save_adapter_config,
    send_whole_adapters,
    trains_adapters_alone,
)
from gad_verl.workers.joint_update import StudentTraining, TextRows, weighted_sft_loss
from gad_verl.workers.megatron_stage import checkpoint_manager, is_forward_only_megatron, load_forward_only
from gad_verl.workers.rollout_names import send_names_of_files
from gad_verl.workers.row_gradients import row_gradient_loss
from gad_verl.workers.stage import begin_stage, note_rates, reset_moments, resume_stage

SUPERVISED_LOSS = "supervised"
POLICY_LOSS = "policy"
ROW_GRADIENT_LOSS = "row_gradient"
_OWN_ROLLOUT = "hf"


class StudentWorker(ActorRolloutRefWorker):
    """The stock worker; the methods below are called by GAD's trainer only.

    Under LoRA there is no second model for the KL reference: the warmed-up student is kept as a copy of its adapter,
    which takes the place of the live one while the reference's log-probabilities are computed.
    """

    actor_worker_cls = StudentTraining
    _reference_adapter: FrozenAdapter | None = None

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        """verl's; under LoRA the rollout gets every weight of the adapter. Rollouts but our own read names of files."""
        super().init_model()
        if "actor" not in self.role:
            # The reference of a student that shares no worker with the rollout has one of its own.
            return
        note_rates(self.actor.engine)
        if self.config.rollout.name != _OWN_ROLLOUT:
            send_names_of_files(self.actor.engine)
        if adapter_config(self.actor.engine) is not None:
            send_whole_adapters(self.actor.engine)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def use_loss(self, name: str, weight: float = 1.0) -> None:
        """Train by ``supervised`` (cross-entropy, verl's ``sft_loss``), ``policy`` (verl's ``ppo_loss``) or
        ``row_gradient`` (:mod:`gad_verl.workers.row_gradients`).

        Args:
            name: Which.
            weight: Of the supervised loss.

        Raises:
            ValueError: If the name is none of them.
        """
        if name == SUPERVISED_LOSS:
            self.actor.set_loss_fn(partial(weighted_sft_loss, weight))
        elif name == POLICY_LOSS:
            self.actor.set_loss_fn(self.loss_fn)
        elif name == ROW_GRADIENT_LOSS:
            self.actor.set_loss_fn(row_gradient_loss)
        else:
            raise ValueError(f"loss must be {SUPERVISED_LOSS}, {POLICY_LOSS} or {ROW_GRADIENT_LOSS}; got {name!r}")

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def learn_also_from(self, texts: TensorDict) -> TensorDict:
        """Let teacher's texts join the mini-batches of the next update (:mod:`gad_verl.workers.joint_update`).

        Args:
            texts: See :func:`gad_verl.trainer.supervised.build_text_rows`.

        Returns:
            The number of rows that came, (1,) a rank: verl collects what a method of this kind returns.
        """
        weights = LossWeights(tu.get(texts, "policy_weight"), tu.get(texts, "texts_weight"))
        self.actor.hold(TextRows(texts, tu.get(texts, "num_mini_batches"), weights))
        return tu.get_tensordict({"rows": torch.tensor([len(texts)])})

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_actor(self, data: TensorDict) -> TensorDict | None:
        """verl's; texts that wait take part and are gone afterwards."""
        try:
            return super().update_actor(data)
        finally:
            self.actor.hold(None)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def begin_stage(self, lr: float, total_steps: int, restart_schedule: bool) -> None:
        """See :func:`gad_verl.workers.stage.begin_stage`."""
        begin_stage(self.actor.engine, lr, total_steps, restart_schedule)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def reset_moments(self) -> None:
        """See :func:`gad_verl.workers.stage.reset_moments`."""
        reset_moments(self.actor.engine)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def resume_stage(self, total_steps: int) -> None:
        """See :func:`gad_verl.workers.stage.resume_stage`."""
        resume_stage(self.actor.engine, total_steps)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_student_weights(self, path: str) -> None:
        """Save the student's weights alone, outside every rotation of checkpoints; under LoRA the adapter alone."""
        engine = self.actor.engine
        manager = checkpoint_manager(engine)
        contents, paths = manager.checkpoint_save_contents, list(manager.previous_saved_paths)
        settings = manager.checkpoint_config
        manager.checkpoint_save_contents = ["model"]
        if adapter_config(engine) is not None and trains_adapters_alone(engine):
            manager.checkpoint_config = {"save_lora_only": True}
        try:
            self.save_checkpoint(path, None, 0, None)
        finally:
            manager.checkpoint_save_contents, manager.previous_saved_paths = contents, paths
            manager.checkpoint_config = settings

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_reference_weights(self, path: str) -> None:
        """Load weights written by :meth:`save_student_weights` into the reference of the KL loss."""
        if "actor" not in self.role or adapter_config(self.actor.engine) is None:
            _load_weights(self.ref, path)
            return
        live = FrozenAdapter(self.actor.engine)
        _load_weights(self.actor, path)
        self._reference_adapter = FrozenAdapter(self.actor.engine)
        live.restore()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_checkpoint(self, local_path: str, *args: Any, **kwargs: Any) -> None:
        """verl's checkpoint, and under LoRA the configuration of the adapter beside it."""
        super().save_checkpoint(local_path, *args, **kwargs)
        save_adapter_config(self.actor.engine, local_path)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_log_prob(self, data: TensorDict) -> TensorDict | None:
        """verl's; where it asks for the model without adapter as the reference, the warmed-up adapter answers."""
        if self._reference_adapter is None or not tu.get(data, key="no_lora_adapter", default=False):
            return super().compute_log_prob(data)
        tu.assign_non_tensor(data, no_lora_adapter=False)
        with self._reference_adapter.in_place():
            return super().compute_log_prob(data)


class DetachedStudentWorker(StudentWorker, DetachActorWorker):
    """A student beside whose rollout it goes on training: with verl's copies of the weights of a step's begin."""


def _load_weights(worker: TrainingWorker, path: str) -> None:
    """Load the weights of a checkpoint and nothing else of it."""
    if is_forward_only_megatron(worker.engine):
        load_forward_only(worker.engine, path)
        return
    manager = checkpoint_manager(worker.engine)
    contents = manager.checkpoint_load_contents
    manager.checkpoint_load_contents = ["model"]
    try:
        worker.load_checkpoint(path, None, False)
    finally:
        manager.checkpoint_load_contents = contents
