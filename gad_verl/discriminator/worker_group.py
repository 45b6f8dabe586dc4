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
from gad_verl.config.micro_batch import tokens_per_micro_batch
from gad_verl.config.modes import updates_of_step
from gad_verl.core import StageSchedule
from gad_verl.discriminator.group_config import build_worker_config
from gad_verl.discriminator.groups import (
    DistinctRows,
    GroupLayout,
    SequenceGroup,
    build_group_batch,
    noise_seeds,
    num_pairs,
    padding_group,
    split_group_scores,
)
from gad_verl.discriminator.loss import LossOptions, group_loss, group_score_gradients
from gad_verl.discriminator.plan import BatchPlan, fits_one_pass, plan_batch
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
class UpdateOptions:
    """Of one call.

    Args:
        noise_seed: Seed of the gradient penalty's noise; None means no penalty in this update.
        noisy_students: Student responses of each group that the penalty takes beside the teacher's.
        return_values: Whether the values at every token are returned.
    """

    noise_seed: int | None = None
    noisy_students: int = 1
    return_values: bool = False


_PLAIN = UpdateOptions()


@dataclass(frozen=True)
class DiscriminatorOutput:
    """What the discriminator said of G groups with k teacher and n student responses each.

    Args:
        teacher_scores: (G,); with several teacher responses their weighted mean.
        student_scores: (G, n); meaningless where the weight is 0.
        weights: (G, n), 1 for responses that the discriminator read, 0 for those that it did NOT read: no answer left
            for it, or no trajectory. Which of the two it was, the group's owner knows.
        report: Numbers of the workers: ``loss``, ``memory_peak_gb``, ``busy_s`` (seconds of the slowest rank),
            ``passes`` (1 or 2), ``imbalance`` (tokens of the rank that reads most over the mean) and, of a finished
            update, ``grad_norm``, ``lr``, ``skipped_steps``.
        student_values: Values at every token of each student row (G lists of n), where they were asked for.
    """

    teacher_scores: torch.Tensor
    student_scores: torch.Tensor
    weights: torch.Tensor
    report: dict[str, float]
    student_values: list[list[torch.Tensor]] | None = None

    def first(self, count: int) -> "DiscriminatorOutput":
        """The same of the first ``count`` groups."""
        values = None if self.student_values is None else self.student_values[:count]
        return DiscriminatorOutput(
            self.teacher_scores[:count], self.student_scores[:count], self.weights[:count], self.report, values
        )


@dataclass(frozen=True)
class _Rows:
    """Scores (and values) of all rows of G groups, in the order of the layout."""

    scores: torch.Tensor
    values: list[torch.Tensor] | None
    report: dict[str, float]


class PendingUpdate:
    """An update that runs while the driver does something else.

    Args:
        wait_scores: Waits for the scores. Returns them, and starts the rest of the update: a function that waits for
            it and returns what it reports.
    """

    def __init__(self, wait_scores: Callable[[], tuple[DiscriminatorOutput, Callable[[], dict[str, float]]]]) -> None:
        self._wait_scores = wait_scores
        self._scored: tuple[DiscriminatorOutput, Callable[[], dict[str, float]]] | None = None

    @property
    def has_scores(self) -> bool:
        """Whether :meth:`scores` was called."""
        return self._scored is not None

    def _wait(self) -> tuple[DiscriminatorOutput, Callable[[], dict[str, float]]]:
        if self._scored is None:
            self._scored = self._wait_scores()
        return self._scored

    def scores(self) -> DiscriminatorOutput:
        """Scores of before the update; returns when they are there, the update itself goes on."""
        return self._wait()[0]

    def finish(self) -> dict[str, float]:
        """Wait for the end of the update; the complete report."""
        output, wait_rest = self._wait()
        rest = wait_rest()
        return output.report | rest | {"busy_s": output.report["busy_s"] + rest["busy_s"]}


_NOT_REPORTED = ("scores", "values")


def _report(output: TensorDict) -> dict[str, float]:
    return {name: output[name].max().item() for name in output.keys() if name not in _NOT_REPORTED}


class DiscriminatorGroup:
    """A worker group of :class:`gad_verl.discriminator.worker.DiscriminatorWorker` on one resource pool.

    The processes start at once and in the background; :meth:`load_model` gives them the model.

    Args:
        config: The whole configuration; ``discriminator`` has the keys of verl's critic.
        gad_config: The section ``gad``.
        pool: GPUs.
        schedule: Phases of the run; the learning rate's horizon follows from it.
    """

    def __init__(
        self, config: DictConfig, gad_config: GadConfig, pool: RayResourcePool, schedule: StageSchedule
    ) -> None:
        updates = gad_config.discriminator_updates_of(schedule) * updates_of_step(config)
        worker_config, options = build_worker_config(config, gad_config, updates)
        engine = worker_config.engine_config
        self.hf_config = worker_config.model_config.hf_config
        self.tokenizer = worker_config.model_config.tokenizer
        self._loss: LossOptions = options.loss
        self._passes = gad_config.discriminator_passes
        self._max_tokens: int | None = None
        self._micro_batch_size = engine.micro_batch_size_per_gpu
        if engine.use_dynamic_bsz:
            self._max_tokens = tokens_per_micro_batch(config.discriminator)
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

    def update(
        self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions = _PLAIN
    ) -> DiscriminatorOutput:
        """One optimizer step; the scores are those of before it."""
        layout = self._layout(groups, num_students, options)
        if self._fits_one_pass(groups, layout):
            return _output(groups, layout, self._grouped(self._workers.update, groups, layout, options)())
        scored = self._by_rows(self._workers.score, groups, layout, options)()
        loss, gradients = self._loss_and_gradients(groups, layout, scored.scores)
        updated = self._by_rows(self._workers.update, groups, layout, options, gradients)().report
        report = updated | {"loss": loss, "busy_s": scored.report["busy_s"] + updated["busy_s"]}
        return _output(groups, layout, replace(scored, report=report))

    def begin_update(
        self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions = _PLAIN
    ) -> PendingUpdate:
        """Start what :meth:`update` does, without waiting. One at a time."""
        layout = self._layout(groups, num_students, options)
        if self._fits_one_pass(groups, layout):
            wait_once = self._grouped(self._workers.accumulate, groups, layout, options)
            return PendingUpdate(lambda: (_output(groups, layout, wait_once()), self._start_step()))
        wait_scores = self._by_rows(self._workers.score, groups, layout, options)

        def second_pass() -> tuple[DiscriminatorOutput, Callable[[], dict[str, float]]]:
            scored = wait_scores()
            loss, gradients = self._loss_and_gradients(groups, layout, scored.scores)
            wait_gradients = self._by_rows(self._workers.accumulate, groups, layout, options, gradients)
            wait_step = self._start_step()

            def wait_rest() -> dict[str, float]:
                accumulated, step = wait_gradients().report, wait_step()
                return accumulated | step | {"loss": loss, "busy_s": accumulated["busy_s"] + step["busy_s"]}

            return _output(groups, layout, scored), wait_rest

        return PendingUpdate(second_pass)

    def _start_step(self) -> Callable[[], dict[str, float]]:
        """Start the optimizer step; the workers run it after the gradients."""
        futures = self._workers.apply()

        def wait() -> dict[str, float]:
            ranks = ray.get(futures)
            return {name: max(rank[name] for rank in ranks) for name in ranks[0]}

        return wait

    def score(
        self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions = _PLAIN
    ) -> DiscriminatorOutput:
        """Scores without an update."""
        return self.begin_score(groups, num_students, options).scores()

    def begin_score(
        self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions = _PLAIN
    ) -> PendingUpdate:
        """Start what :meth:`score` does, without waiting."""
        options = replace(options, noise_seed=None)
        layout = self._layout(groups, num_students, options)
        self._fits_one_pass(groups, layout)
        wait = self._by_rows(self._workers.score, groups, layout, options)

        def wait_scores() -> tuple[DiscriminatorOutput, Callable[[], dict[str, float]]]:
            scored = wait()
            report = scored.report | {"loss": self._loss_and_gradients(groups, layout, scored.scores)[0]}
            return _output(groups, layout, replace(scored, report=report)), lambda: {"busy_s": 0.0}

        return PendingUpdate(wait_scores)

    def _layout(self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions) -> GroupLayout:
        has_penalty = options.noise_seed is not None and self._loss.penalty_coefficient > 0
        return GroupLayout.of(groups, num_students, options.noisy_students if has_penalty else None)

    def _fits_one_pass(self, groups: list[SequenceGroup], layout: GroupLayout) -> bool:
        lengths = layout.lengths(groups)
        return fits_one_pass(
            [sum(rows) for rows in lengths],
            max(max(rows) for rows in lengths),
            self._max_tokens,
            self._passes,
            MAX_TOKENS_KEY,
        )

    def _grouped(
        self, call: Any, groups: list[SequenceGroup], layout: GroupLayout, options: UpdateOptions
    ) -> Callable[[], _Rows]:
        """Start a call on whole groups."""
        ranks = data_parallel_size(self._workers, _MESH)
        plan = plan_batch(layout.lengths(groups), ranks, self._micro_batch_size)
        units = plan.padded(groups, padding_group(layout.num_students))
        seeds = noise_seeds(len(groups), layout, options.noise_seed or 0)
        seeds = torch.stack(plan.padded(list(seeds), torch.zeros_like(seeds[0])))
        data = build_group_batch(units, layout.num_students, layout, seeds)
        if options.return_values:
            tu.assign_non_tensor(data, return_values=True)
        future = call(data)

        def wait() -> _Rows:
            output = future.get()
            scores = plan.restored(output["scores"].view(-1, layout.group_size)).flatten()
            report = _report(output) | {"passes": 1.0, "imbalance": plan.imbalance}
            return _Rows(scores, _restored_values(output, plan, layout.group_size), report)

        return wait

    def _by_rows(
        self,
        call: Any,
        groups: list[SequenceGroup],
        layout: GroupLayout,
        options: UpdateOptions,
        gradients: torch.Tensor | None = None,
    ) -> Callable[[], _Rows]:
        """Start a call on single sequences: no group has to fit anywhere."""
        distinct = DistinctRows.of(groups, layout)
        rows = distinct.rows
        per_micro_batch = self._micro_batch_size * (1 if self._passes == "two" else layout.group_size)
        if self._max_tokens is not None:
            per_micro_batch = 1
        plan = plan_batch([[len(row)] for row in rows], data_parallel_size(self._workers, _MESH), per_micro_batch)
        if gradients is not None:
            gradients = torch.stack(plan.padded(list(distinct.summed(gradients)), gradients.new_zeros(())))
        seeds = None
        if layout.noisy_students is not None:
            seeds = noise_seeds(len(groups), layout, options.noise_seed or 0).flatten()[distinct.places]
            seeds = torch.stack(plan.padded(list(seeds), seeds.new_zeros(())))
        data = distinct.batch(plan, gradients, seeds)
        if self._max_tokens is None:
            tu.assign_non_tensor(data, micro_batch_size_per_gpu=per_micro_batch)
        if options.return_values and gradients is None:
            tu.assign_non_tensor(data, return_values=True)
        future = call(data)

        def wait() -> _Rows:
            output = future.get()
            report = _report(output) | {"passes": 2.0, "imbalance": plan.imbalance}
            values = _restored_values(output, plan, 1)
            if values is not None:
                values = [values[at] for at in distinct.take.tolist()]
            return _Rows(plan.restored(output["scores"])[distinct.take], values, report)

        return wait

    def _loss_and_gradients(
        self, groups: list[SequenceGroup], layout: GroupLayout, scores: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        """Loss of the batch, and its gradient with respect to the score of every row, (R,)."""
        row_weight = torch.tensor([layout.weights(group) for group in groups], dtype=torch.float32)
        pairs, noisy = num_pairs(row_weight, layout), layout.noisy_total(groups)
        row_weight = row_weight.flatten()
        loss = group_loss(scores, row_weight, layout, pairs, noisy, self._loss).item()
        return loss, group_score_gradients(scores, row_weight, layout, noisy, self._loss)

    def begin_stage(self, lr: float, total_steps: int) -> None:
        """Learning rate of a stage."""
        self._workers.begin_stage(lr, total_steps)

    def save(self, folder: Path, step: int) -> None:
        """Save weights, optimizer, schedule and RNG of every rank; rotates nothing."""
        self._workers.save_checkpoint(str(folder), None, step, None)

    def load(self, folder: Path) -> None:
        """Load what :meth:`save` wrote."""
        self._workers.load_checkpoint(str(folder), None, False)


def _restored_values(output: TensorDict, plan: BatchPlan, rows_per_unit: int) -> list[torch.Tensor] | None:
    """Values of all rows in the order in which the units of the plan were given."""
    if "values" not in output.keys():
        return None
    rows = list(output["values"].unbind())
    restored: list[torch.Tensor] = [torch.empty(0)] * (rows_per_unit * sum(at is not None for at in plan.order))
    for place, position in enumerate(plan.order):
        if position is not None:
            for row in range(rows_per_unit):
                restored[position * rows_per_unit + row] = rows[place * rows_per_unit + row]
    return restored


def _output(groups: list[SequenceGroup], layout: GroupLayout, rows: _Rows) -> DiscriminatorOutput:
    read = torch.tensor([group.valid_students() for group in groups], dtype=torch.float32)
    teachers, students, _ = split_group_scores(rows.scores, layout)
    if layout.num_teachers > 1:
        shares = torch.tensor([group.padded_teacher_weights(layout.num_teachers) for group in groups])
        teacher = torch.where(shares > 0, teachers * shares, 0.0).sum(dim=1) / shares.sum(dim=1)
    else:
        teacher = teachers.squeeze(1)
    values = None
    if rows.values is not None:
        size, begin, end = layout.group_size, layout.num_teachers, layout.clean_size
        values = [rows.values[at * size + begin : at * size + end] for at in range(len(groups))]
    return DiscriminatorOutput(teacher, students, read, rows.report, values)
