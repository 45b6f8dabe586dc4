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
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup
from verl.utils import tensordict_utils as tu

from gad_verl.config import GadConfig
from gad_verl.core import bradley_terry_loss, bradley_terry_score_gradients
from gad_verl.discriminator.group_config import build_worker_config
from gad_verl.discriminator.groups import (
    PLACEHOLDER,
    SequenceGroup,
    build_group_batch,
    build_row_batch,
    check_groups,
    padding_group,
)
from gad_verl.discriminator.plan import fits_one_pass, plan_batch
from gad_verl.discriminator.worker import DiscriminatorWorker

logger = logging.getLogger(__name__)

_MESH = "train"

MAX_TOKENS_KEY = "discriminator.ppo_max_token_len_per_gpu"


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
        report: Numbers of the workers: ``loss``, ``memory_peak_gb``, ``busy_s`` (seconds of the slowest rank),
            ``passes`` (1 or 2), ``imbalance`` (tokens of the rank that reads most over the mean) and, of a finished
            update, ``grad_norm``, ``lr``, ``skipped_steps``.
    """

    teacher_scores: torch.Tensor
    student_scores: torch.Tensor
    weights: torch.Tensor
    report: dict[str, float]


class PendingUpdate:
    """An update that runs while the driver does something else.

    Args:
        wait_scores: Waits for the scores. Returns them, and starts the rest of the update: a function that waits for
            it and returns what it reports.
    """

    def __init__(self, wait_scores: Callable[[], tuple[DiscriminatorOutput, Callable[[], dict[str, float]]]]) -> None:
        self._wait_scores = wait_scores
        self._output: DiscriminatorOutput | None = None
        self._wait_rest: Callable[[], dict[str, float]] | None = None

    @property
    def has_scores(self) -> bool:
        """Whether :meth:`scores` was called."""
        return self._output is not None

    def scores(self) -> DiscriminatorOutput:
        """Scores of before the update; returns when they are there, the update itself goes on."""
        if self._output is None:
            self._output, self._wait_rest = self._wait_scores()
        return self._output

    def finish(self) -> dict[str, float]:
        """Wait for the end of the update; the complete report."""
        report = self.scores().report
        rest = self._wait_rest()
        return report | rest | {"busy_s": report["busy_s"] + rest["busy_s"]}


def _report(output: TensorDict) -> dict[str, float]:
    return {name: output[name].max().item() for name in output.keys() if name != "scores"}


class DiscriminatorGroup:
    """A worker group of :class:`gad_verl.discriminator.worker.DiscriminatorWorker` on one resource pool.

    The processes start at once and in the background; :meth:`load_model` gives them the model.

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
        self._passes = gad_config.discriminator_passes
        self._max_tokens: int | None = None
        self._micro_batch_size = engine.micro_batch_size_per_gpu
        if engine.use_dynamic_bsz:
            self._max_tokens = engine.max_token_len_per_gpu * engine.ulysses_sequence_parallel_size
            self._micro_batch_size = 1
        self._workers = RayWorkerGroup(
            resource_pool=pool,
            ray_cls_with_init=RayClassWithInitArgs(
                cls=ray.remote(DiscriminatorWorker), config=worker_config, options=options
            ),
            device_name=config.trainer.device,
            name_prefix="discriminator",
        )
        self._description = f"{worker_config.model_config.path}, {options}"

    def load_model(self) -> None:
        """Build the model in every worker. Where the GPUs are shared, the rollout must be asleep."""
        self._workers.reset()
        logger.info("discriminator ready: %s", self._description)

    @property
    def workers(self) -> list[Any]:
        """Ray actors of the ranks."""
        return self._workers.workers

    def update(self, groups: list[SequenceGroup], num_students: int) -> DiscriminatorOutput:
        """One optimizer step; the scores are those of before it."""
        check_groups(groups, num_students)
        if self._fits_one_pass(groups):
            return self._grouped(self._workers.update, groups, num_students)()
        scored = self.score(groups, num_students)
        loss, gradients = _loss_and_gradients(scored)
        updated = self._by_rows(self._workers.update, groups, num_students, gradients)().report
        report = updated | {"loss": loss, "busy_s": scored.report["busy_s"] + updated["busy_s"]}
        return replace(scored, report=report)

    def begin_update(self, groups: list[SequenceGroup], num_students: int) -> PendingUpdate:
        """Start what :meth:`update` does, without waiting. One at a time."""
        check_groups(groups, num_students)
        if self._fits_one_pass(groups):
            wait_once = self._grouped(self._workers.accumulate, groups, num_students)
            return PendingUpdate(lambda: (wait_once(), self._start_step()))
        wait_scores = self._by_rows(self._workers.score, groups, num_students)

        def second_pass() -> tuple[DiscriminatorOutput, Callable[[], dict[str, float]]]:
            scored = wait_scores()
            loss, gradients = _loss_and_gradients(scored)
            wait_gradients = self._by_rows(self._workers.accumulate, groups, num_students, gradients)
            wait_step = self._start_step()

            def wait_rest() -> dict[str, float]:
                accumulated, step = wait_gradients().report, wait_step()
                return accumulated | step | {"loss": loss, "busy_s": accumulated["busy_s"] + step["busy_s"]}

            return scored, wait_rest

        return PendingUpdate(second_pass)

    def _start_step(self) -> Callable[[], dict[str, float]]:
        """Start the optimizer step; the workers run it after the gradients."""
        futures = self._workers.apply()

        def wait() -> dict[str, float]:
            ranks = ray.get(futures)
            return {name: max(rank[name] for rank in ranks) for name in ranks[0]}

        return wait

    def score(self, groups: list[SequenceGroup], num_students: int) -> DiscriminatorOutput:
        """Scores without an update."""
        check_groups(groups, num_students)
        self._fits_one_pass(groups)
        scored = self._by_rows(self._workers.score, groups, num_students)()
        return replace(scored, report=scored.report | {"loss": _loss_and_gradients(scored)[0]})

    def _fits_one_pass(self, groups: list[SequenceGroup]) -> bool:
        lengths = [group.row_lengths() for group in groups]
        return fits_one_pass(
            [sum(rows) for rows in lengths],
            max(max(rows) for rows in lengths),
            self._max_tokens,
            self._passes,
            MAX_TOKENS_KEY,
        )

    def _grouped(self, call: Any, groups: list[SequenceGroup], num_students: int) -> Callable[[], DiscriminatorOutput]:
        """Start a call on whole groups."""
        plan = plan_batch(
            [group.row_lengths() for group in groups], data_parallel_size(self._workers, _MESH), self._micro_batch_size
        )
        future = call(build_group_batch(plan.padded(groups, padding_group(num_students)), num_students))

        def wait() -> DiscriminatorOutput:
            output = future.get()
            scores = plan.restored(output["scores"].view(-1, num_students + 1))
            report = _report(output) | {"passes": 1.0, "imbalance": plan.imbalance}
            return _output(groups, scores, report)

        return wait

    def _by_rows(
        self, call: Any, groups: list[SequenceGroup], num_students: int, gradients: torch.Tensor | None = None
    ) -> Callable[[], DiscriminatorOutput]:
        """Start a call on single sequences: no group has to fit anywhere."""
        rows = [row for group in groups for row in group.rows()]
        per_micro_batch = self._micro_batch_size * (1 if self._passes == "two" else num_students + 1)
        if self._max_tokens is not None:
            per_micro_batch = 1
        plan = plan_batch([[len(row)] for row in rows], data_parallel_size(self._workers, _MESH), per_micro_batch)
        if gradients is not None:
            padding = gradients.new_zeros(())
            gradients = torch.stack(plan.padded(list(gradients.flatten()), padding))
        data = build_row_batch(plan.padded(rows, PLACEHOLDER), gradients)
        if self._max_tokens is None:
            tu.assign_non_tensor(data, micro_batch_size_per_gpu=per_micro_batch)
        future = call(data)

        def wait() -> DiscriminatorOutput:
            output = future.get()
            scores = plan.restored(output["scores"]).view(-1, num_students + 1)
            report = _report(output) | {"passes": 2.0, "imbalance": plan.imbalance}
            return _output(groups, scores, report)

        return wait

    def begin_stage(self, lr: float, total_steps: int) -> None:
        """Learning rate of a stage."""
        self._workers.begin_stage(lr, total_steps)

    def save(self, folder: Path, step: int) -> None:
        """Save weights, optimizer, schedule and RNG of every rank; rotates nothing."""
        self._workers.save_checkpoint(str(folder), None, step, None)

    def load(self, folder: Path) -> None:
        """Load what :meth:`save` wrote."""
        self._workers.load_checkpoint(str(folder), None, False)


def _output(groups: list[SequenceGroup], scores: torch.Tensor, report: dict[str, float]) -> DiscriminatorOutput:
    weights = torch.tensor([group.pair_weights() for group in groups], dtype=torch.float32)
    return DiscriminatorOutput(scores[:, 0], scores[:, 1:], weights, report)


def _loss_and_gradients(scored: DiscriminatorOutput) -> tuple[float, torch.Tensor]:
    """Loss of the batch, and its gradient with respect to every score, (G, n + 1)."""
    arguments = (scored.teacher_scores, scored.student_scores, scored.weights)
    teacher, student = bradley_terry_score_gradients(*arguments)
    return bradley_terry_loss(*arguments).item(), torch.cat([teacher.unsqueeze(1), student], dim=1)
