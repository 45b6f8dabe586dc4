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
"""The driver's side of the discriminator: starts its workers, feeds them groups, returns scores."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from omegaconf import DictConfig
from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup

from gad_verl.config import GadConfig
from gad_verl.discriminator.group_config import build_worker_config
from gad_verl.discriminator.groups import SequenceGroup, build_group_batch, split_group_scores
from gad_verl.discriminator.worker import DiscriminatorWorker

logger = logging.getLogger(__name__)

_MESH = "train"


def data_parallel_size(group: RayWorkerGroup, mesh: str) -> int:
    """Data-parallel ranks of a worker group, as verl's dispatch sees them."""
    if mesh not in group._dispatch_info:
        group._dispatch_info[mesh] = group._query_dispatch_info(mesh)
    return max(group._dispatch_info[mesh]) + 1


@dataclass(frozen=True)
class DiscriminatorOutput:
    """What the discriminator said of G groups with n student responses each.

    Args:
        teacher_scores: (G,).
        student_scores: (G, n); meaningless where the weight is 0.
        weights: (G, n), 0 for failed rollouts.
        report: Numbers of the workers: ``loss``, ``memory_peak_gb`` and, of an update, ``grad_norm``, ``lr``,
            ``skipped_steps``.
    """

    teacher_scores: torch.Tensor
    student_scores: torch.Tensor
    weights: torch.Tensor
    report: dict[str, float]


class DiscriminatorGroup:
    """A worker group of :class:`gad_verl.discriminator.worker.DiscriminatorWorker` on one resource pool.

    Args:
        config: The whole configuration; ``discriminator`` has the keys of verl's critic.
        gad_config: The section ``gad``.
        pool: GPUs.
        total_steps: Horizon of the learning-rate schedule.
    """

    def __init__(self, config: DictConfig, gad_config: GadConfig, pool: RayResourcePool, total_steps: int) -> None:
        worker_config, options = build_worker_config(config, gad_config, total_steps)
        engine = worker_config.engine_config
        self.hf_config = worker_config.model_config.hf_config
        self.tokenizer = worker_config.model_config.tokenizer
        self._max_group_tokens = None
        self._groups_per_micro_batch = engine.micro_batch_size_per_gpu
        if engine.use_dynamic_bsz:
            self._max_group_tokens = engine.max_token_len_per_gpu * engine.ulysses_sequence_parallel_size
            self._groups_per_micro_batch = 1
        self._workers = RayWorkerGroup(
            resource_pool=pool,
            ray_cls_with_init=RayClassWithInitArgs(
                cls=ray.remote(DiscriminatorWorker), config=worker_config, options=options
            ),
            device_name=config.trainer.device,
            name_prefix="discriminator",
        )
        self._workers.reset()
        logger.info("discriminator ready: %s, %s", worker_config.model_config.path, options)

    @property
    def workers(self) -> list[Any]:
        """Ray actors of the ranks."""
        return self._workers.workers

    def update(self, groups: list[SequenceGroup], num_students: int) -> DiscriminatorOutput:
        """One optimizer step; the scores are those of before it."""
        return self._run(groups, num_students, self._workers.update)

    def score(self, groups: list[SequenceGroup], num_students: int) -> DiscriminatorOutput:
        """Scores without an update."""
        return self._run(groups, num_students, self._workers.score)

    def _run(self, groups: list[SequenceGroup], num_students: int, call: Any) -> DiscriminatorOutput:
        data = build_group_batch(
            groups,
            num_students,
            multiple_of=data_parallel_size(self._workers, _MESH) * self._groups_per_micro_batch,
            max_tokens_per_micro_batch=self._max_group_tokens,
        )
        weights = data["pair_weight"].view(-1, num_students + 1)[: len(groups), 1:].clone()
        output = call(data)
        teacher, student = split_group_scores(output["scores"], num_students + 1)
        report = {name: output[name].max().item() for name in output.keys() if name != "scores"}
        if "skipped" in report:
            report["skipped_steps"] = report.pop("skipped")
        return DiscriminatorOutput(teacher[: len(groups)], student[: len(groups)], weights, report)

    def begin_stage(self, lr: float, total_steps: int) -> None:
        """Learning rate of a stage."""
        self._workers.begin_stage(lr, total_steps)

    def save(self, folder: Path, step: int) -> None:
        """Save weights, optimizer, schedule and RNG of every rank; rotates nothing."""
        self._workers.save_checkpoint(str(folder), None, step, None)

    def load(self, folder: Path) -> None:
        """Load what :meth:`save` wrote."""
        self._workers.load_checkpoint(str(folder), None, False)
