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
"""The real discriminator worker with every option of its loss (run by tools/probe_cases.py)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from worker_probe import NUM_STUDENTS, build_worker, full_weights, make_groups

NOISE_SEED = 7


def loss_options() -> dict[str, Any]:
    """Options by the name of a scenario."""
    from gad_verl.core import PairLossOptions
    from gad_verl.discriminator.loss import LossOptions

    return {
        "plain": LossOptions(),
        "cross_entropy": LossOptions(PairLossOptions(kind="cross_entropy", label_smoothing=0.1)),
        "softened": LossOptions(PairLossOptions(temperature=2.0, label_smoothing=0.2)),
        "pinned": LossOptions(PairLossOptions(score_l2=0.1, score_centring=0.3)),
        "penalty": LossOptions(PairLossOptions(), penalty_coefficient=2.0, penalty_distance=0.05),
        "everything": LossOptions(PairLossOptions("cross_entropy", 1.5, 0.05, 0.1, 0.2), 1.0, 0.1),
        "custom": LossOptions(custom=f"{Path(__file__).resolve().parent / 'custom_losses.py'}:squared_hinge"),
    }


def tool_groups() -> list[Any]:
    """Groups with one or two teacher responses, replayed ones with less weight, one that is scored only."""
    groups = make_groups()
    other = make_groups(seed=11)
    groups[0] = replace(
        groups[0], teacher_ids=(*groups[0].teacher_ids, *other[0].teacher_ids), teacher_weights=(0.25, 0.75)
    )
    groups[2] = replace(groups[2], trains=False)
    groups[4] = replace(groups[4], teacher_weights=(0.5,))
    return groups


def run_tools(worker: Any, options: Any, groups: list[Any], world_size: int, form: str) -> dict[str, Any]:
    """One update; the gradient is what plain gradient descent subtracted."""
    import torch.distributed as dist
    from verl.utils import tensordict_utils as tu

    from gad_verl.discriminator.groups import (
        PLACEHOLDER,
        GroupLayout,
        build_group_batch,
        build_row_batch,
        noise_seeds,
        padding_group,
    )
    from gad_verl.discriminator.loss import group_loss, group_score_gradients
    from gad_verl.discriminator.plan import plan_batch
    from gad_verl.discriminator.worker_group import _restored_values

    layout = GroupLayout.of(groups, NUM_STUDENTS, 1 if options.penalty_coefficient > 0 else None)

    def mine(batch: Any) -> Any:
        return tu.chunk_tensordict(batch, world_size)[dist.get_rank()]

    def gathered(output: Any, key: str) -> Any:
        parts: list[Any] = [None] * world_size
        dist.all_gather_object(parts, list(output[key].unbind()))
        return [row for part in parts for row in part]

    worker.reset()
    before = full_weights(worker)
    if form == "one":
        plan = plan_batch([[len(row) for row in layout.rows(group)] for group in groups], world_size)
        padded = plan.padded(groups, padding_group(NUM_STUDENTS))
        seeds = noise_seeds(len(groups), layout, NOISE_SEED)
        seeds = torch.stack(plan.padded(list(seeds), torch.zeros_like(seeds[0])))
        data = mine(build_group_batch(padded, NUM_STUDENTS, layout, seeds))
        tu.assign_non_tensor(data, return_values=True)
        output = worker.update(data)
        scores = torch.stack(gathered(output, "scores"))
        scores = plan.restored(scores.view(-1, layout.group_size)).flatten()
        values = _restored_values({"values": _Rows(gathered(output, "values"))}, plan, layout.group_size)
        loss = output["loss"][0].item()
    else:
        rows = [row for group in groups for row in layout.rows(group)]
        plan = plan_batch([[len(row)] for row in rows], world_size)
        seeds = noise_seeds(len(groups), layout, NOISE_SEED).flatten()
        seeds = torch.stack(plan.padded(list(seeds), torch.zeros((), dtype=torch.long)))
        output = worker.score(mine(build_row_batch(plan.padded(rows, PLACEHOLDER), seeds=seeds)))
        scores = plan.restored(torch.stack(gathered(output, "scores")))
        weights = torch.tensor([layout.weights(group) for group in groups]).flatten()
        noisy = layout.noisy_total(groups)
        loss = group_loss(scores, weights, layout, None, noisy, options).item()
        gradients = group_score_gradients(scores, weights, layout, noisy, options)
        gradients = torch.stack(plan.padded(list(gradients), torch.zeros(())))
        worker.update(mine(build_row_batch(plan.padded(rows, PLACEHOLDER), gradients, seeds)))
        values = None
    after = full_weights(worker)
    return {
        "loss": loss,
        "scores": scores,
        "values": values,
        "gradient": {name: before[name] - after[name] for name in before},
    }


class _Rows(list):
    """A list that answers like a nested tensor."""

    def unbind(self) -> list[Any]:
        return list(self)


def run_case(rank: int, world_size: int, strategy: str, model_folder: str, folder: Path) -> dict[Any, Any]:
    """All options in both forms on one rank."""
    groups = tool_groups()
    # Micro-batches of about one group, and of about one row.
    longest_row = max(len(row) for group in groups for row in group.rows())
    group_tokens = {"max_token_len_per_gpu": 300, "infer_max_token_len_per_gpu": 300}
    row_tokens = {"max_token_len_per_gpu": longest_row, "infer_max_token_len_per_gpu": longest_row}
    results = {}
    for name, options in loss_options().items():
        for form, tokens in (("one", group_tokens), ("two", row_tokens)):
            packed = name in ("softened", "everything") and form == "one"
            worker = build_worker(model_folder, strategy, loss=options, use_remove_padding=packed, **tokens)
            results[name, form] = run_tools(worker, options, groups, world_size, form)
    return results
