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
"""The real discriminator worker on one or more gloo ranks: all layouts of a batch (run by tools/probe_cases.py)."""

from pathlib import Path
from typing import Any

import torch

NUM_STUDENTS = 3


def make_groups(seed: int = 0, count: int = 5) -> list[Any]:
    """Groups of random sequences of unequal length; some rollouts failed, one group lost all of its."""
    from gad_verl.discriminator.groups import SequenceGroup

    generator = torch.Generator().manual_seed(seed)

    def sequence() -> list[int]:
        length = int(torch.randint(5, 40, (1,), generator=generator))
        return torch.randint(0, 256, (length,), generator=generator).tolist()

    groups = []
    for number in range(count):
        students: list[list[int] | None] = [sequence() for _ in range(NUM_STUDENTS)]
        if number == 1:
            students[0] = None
        if number == 3:
            students = [None] * NUM_STUDENTS
        groups.append(SequenceGroup(teacher_ids=(sequence(),), student_ids=students))
    return groups


def prompted_groups(seed: int = 5, count: int = 4) -> list[Any]:
    """Groups whose rows begin with a prompt of their own; some rollouts failed, one response is empty."""
    from gad_verl.discriminator.groups import SequenceGroup

    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(0, 256, (length,), generator=generator).tolist()

    groups = []
    for number in range(count):
        prompt = ids(3, 25)
        students: list[list[int] | None] = [prompt + ids(1, 20) for _ in range(NUM_STUDENTS)]
        if number == 1:
            students = [None, prompt, students[2]]
        groups.append(SequenceGroup((prompt + ids(1, 20),), students, prompt_length=len(prompt)))
    return groups


def turning_groups() -> list[Any]:
    """Groups whose scores are means over ends of turns, one to three in each row that is read."""
    from dataclasses import replace

    found = []
    for number, group in enumerate(prompted_groups(seed=11)):
        ends = []
        for row in [*group.teacher_ids, *group.student_ids]:
            places = [] if row is None else [max(0, len(row) - 1 - step) for step in (0, 1 + number, 5)]
            ends.append(sorted(set(places[: 1 + (number + len(ends)) % 3])))
        found.append(replace(group, ends=tuple(ends)))
    return found


def identical_groups() -> list[Any]:
    """Student texts equal to the teacher's."""
    from gad_verl.discriminator.groups import SequenceGroup

    return [
        SequenceGroup(teacher_ids=group.teacher_ids, student_ids=[list(group.teacher_ids[0])] * NUM_STUDENTS)
        for group in make_groups(seed=7, count=4)
    ]


def copied_groups() -> list[Any]:
    """Groups in which texts come more than once: two students alike, a student like the teacher, all alike."""
    from gad_verl.discriminator.groups import SequenceGroup

    groups = []
    for number, group in enumerate(prompted_groups(seed=9, count=6)):
        teacher, (_, second, third) = group.teacher_ids[0], group.student_ids
        students = [[second, second, third], [second, teacher, None], [teacher, teacher, teacher]][number % 3]
        students = [None if ids is None else list(ids) for ids in students]
        groups.append(SequenceGroup((teacher,), students, prompt_length=group.prompt_length))
    return groups


def build_worker(
    model_folder: str, strategy: str, precision: str = "fp32", share_prompt: str = "never", **engine: Any
) -> Any:
    """The worker as the trainer configures it, with plain gradient descent so that a step shows the gradient."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import (
        FSDPEngineConfig,
        FSDPOptimizerConfig,
        HFModelConfig,
        TrainingWorkerConfig,
    )

    from gad_verl.discriminator.engine import MODEL_TYPE, DiscriminatorOptions
    from gad_verl.discriminator.worker import DiscriminatorWorker

    remove_padding = engine.pop("use_remove_padding", False)
    model, seed, loss = engine.pop("model", {}), engine.pop("seed", 3), engine.pop("loss", None)
    optimizer = {"lr": 1.0, "optimizer": "SGD"} | engine.pop("optimizer", {})
    options = {
        "strategy": strategy,
        "use_dynamic_bsz": True,
        "max_token_len_per_gpu": 100_000,
        "infer_max_token_len_per_gpu": 100_000,
        "use_torch_compile": False,
        "mixed_precision": {"param_dtype": precision, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        **engine,
    }
    config = TrainingWorkerConfig(
        model_type=MODEL_TYPE,
        model_config=HFModelConfig(
            path=model_folder,
            use_remove_padding=remove_padding,
            **({"enable_gradient_checkpointing": False, "override_config": {"attn_implementation": "sdpa"}} | model),
        ),
        engine_config=FSDPEngineConfig(**options),
        optimizer_config=FSDPOptimizerConfig(weight_decay=0.0, clip_grad=1e9, total_training_steps=10, **optimizer),
        checkpoint_config=CheckpointConfig(),
    )
    discriminator = DiscriminatorOptions(
        fresh_head=seed is not None,
        seed=seed or 0,
        share_prompt=share_prompt,
        **({} if loss is None else {"loss": loss}),
    )
    worker = DiscriminatorWorker(config, discriminator)
    worker.reset()
    return worker


def full_weights(worker: Any) -> dict[str, torch.Tensor]:
    """Copies of all weights, gathered from the ranks."""
    parameters, _ = worker.engine.get_per_tensor_param()
    return {name: tensor.detach().clone() for name, tensor in parameters}


def score_rows(worker: Any, rows: list[list[int]], world_size: int) -> torch.Tensor:
    """Scores of single rows by the worker as it is."""
    import torch.distributed as dist
    from verl.utils import tensordict_utils as tu

    from gad_verl.discriminator.groups import PLACEHOLDER, build_row_batch
    from gad_verl.discriminator.plan import plan_batch

    plan = plan_batch([[len(row)] for row in rows], world_size)
    batch = tu.chunk_tensordict(build_row_batch(plan.padded(rows, PLACEHOLDER)), world_size)[dist.get_rank()]
    parts: list[Any] = [None] * world_size
    dist.all_gather_object(parts, worker.score(batch)["scores"])
    return plan.restored(torch.cat(parts))


def run_scenario(
    worker: Any, groups: list[Any], world_size: int, multiple: int = 1, form: str = "one"
) -> dict[str, Any]:
    """Score, update and score again; the gradient is what plain gradient descent subtracted.

    ``form``: "one" pass, "two" passes, or "split" (one pass, gradients and optimizer step apart).
    """
    import torch.distributed as dist
    from verl.utils import tensordict_utils as tu

    from gad_verl.core import bradley_terry_loss
    from gad_verl.discriminator.groups import (
        PLACEHOLDER,
        GroupLayout,
        build_group_batch,
        build_row_batch,
        padding_group,
        score_weights_of,
    )
    from gad_verl.discriminator.loss import LossOptions, group_score_gradients
    from gad_verl.discriminator.plan import plan_batch

    size = NUM_STUDENTS + 1
    rows = [row for group in groups for row in group.rows()]
    rows_plan = plan_batch([[len(row)] for row in rows], world_size, multiple)
    groups_plan = plan_batch([[len(row) for row in group.rows()] for group in groups], world_size, multiple)

    def mine(batch: Any) -> Any:
        return tu.chunk_tensordict(batch, world_size)[dist.get_rank()]

    def gathered(output: Any) -> torch.Tensor:
        parts: list[Any] = [None] * world_size
        dist.all_gather_object(parts, output["scores"])
        return torch.cat(parts)

    def row_batch(gradients: torch.Tensor | None = None) -> Any:
        if gradients is not None:
            gradients = torch.stack(rows_plan.padded(list(gradients.flatten()), torch.zeros(())))
        shares = score_weights_of(groups, GroupLayout(1, NUM_STUDENTS))
        weights = None if shares is None else rows_plan.padded(shares, [1.0])
        return mine(build_row_batch(rows_plan.padded(rows, PLACEHOLDER), gradients, score_weights=weights))

    worker.reset()
    before = full_weights(worker)
    evaluated = rows_plan.restored(gathered(worker.score(row_batch())))
    weights = torch.tensor([group.pair_weights() for group in groups])
    by_group = evaluated.view(-1, size)
    evaluated_loss = bradley_terry_loss(by_group[:, 0], by_group[:, 1:], weights).item()
    group_batch = mine(build_group_batch(groups_plan.padded(groups, padding_group(NUM_STUDENTS)), NUM_STUDENTS))
    if form == "two":
        row_weight = torch.cat([torch.ones(len(groups), 1), weights], dim=1).flatten()
        layout = GroupLayout(1, NUM_STUDENTS)
        updated = worker.update(row_batch(group_score_gradients(evaluated, row_weight, layout, 0.0, LossOptions())))
        scores, loss = rows_plan.restored(gathered(updated)), evaluated_loss
        grad_norm = updated["grad_norm"][0].item()
    else:
        if form == "split":
            updated = worker.accumulate(group_batch)
            grad_norm = worker.apply()["grad_norm"]
        else:
            updated = worker.update(group_batch)
            grad_norm = updated["grad_norm"][0].item()
        scores = groups_plan.restored(gathered(updated).view(-1, size)).flatten()
        loss = updated["loss"][0].item()
    after = full_weights(worker)
    return {
        "loss": loss,
        "evaluated_loss": evaluated_loss,
        "grad_norm": grad_norm,
        "scores": scores,
        "evaluated_scores": evaluated,
        "gradient": {name: before[name] - after[name] for name in before},
        "before": before,
    }


def run_case(rank: int, world_size: int, strategy: str, model_folder: str, folder: Path) -> dict[str, Any]:
    """All scenarios on one rank; ``checkpoint`` is where the weights ``after`` were saved."""
    from plain_flash import plain_flash

    groups = make_groups()
    longest = max(
        len(group.teacher_ids[0]) + sum(len(ids) if ids is not None else 1 for ids in group.student_ids)
        for group in groups
    )
    results: dict[str, Any] = {"checkpoint": folder / "checkpoint"}
    large = build_worker(model_folder, strategy)
    results["large"] = run_scenario(large, groups, world_size)
    results["after"] = full_weights(large)
    large.save_checkpoint(str(results["checkpoint"]), None, 1, None)
    results["saved_scores"] = score_rows(large, [row for group in groups for row in group.rows()], world_size)
    results["identical"] = run_scenario(large, identical_groups(), world_size)
    small = {"max_token_len_per_gpu": longest, "infer_max_token_len_per_gpu": longest}
    results["small"] = run_scenario(build_worker(model_folder, strategy, **small), groups, world_size)
    static = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 1, "infer_micro_batch_size_per_gpu": 1}
    results["static"] = run_scenario(build_worker(model_folder, strategy, **static), groups, world_size)
    longest_row = max(len(row) for group in groups for row in group.rows())
    single = {"max_token_len_per_gpu": longest_row, "infer_max_token_len_per_gpu": longest_row}
    results["two_passes"] = run_scenario(build_worker(model_folder, strategy, **single), groups, world_size, form="two")
    results["split"] = run_scenario(build_worker(model_folder, strategy, **small), groups, world_size, form="split")
    packed = build_worker(model_folder, strategy, use_remove_padding=True, **small)
    results["packed"] = run_scenario(packed, groups, world_size)
    prompted = prompted_groups()
    medium = {"max_token_len_per_gpu": 200, "infer_max_token_len_per_gpu": 200}
    results["prompt_apart"] = run_scenario(build_worker(model_folder, strategy), prompted, world_size)
    sharing = build_worker(model_folder, strategy, share_prompt="always")
    results["prompt_shared"] = run_scenario(sharing, prompted, world_size)
    packing = build_worker(model_folder, strategy, share_prompt="always", use_remove_padding=True, **medium)
    results["prompt_shared_packed"] = run_scenario(packing, prompted, world_size)
    turning = turning_groups()
    results["turns"] = run_scenario(build_worker(model_folder, strategy), turning, world_size)
    results["turns_two_passes"] = run_scenario(build_worker(model_folder, strategy), turning, world_size, form="two")
    packing = build_worker(model_folder, strategy, share_prompt="always", use_remove_padding=True, **medium)
    results["turns_shared_packed"] = run_scenario(packing, turning, world_size)
    flash = {"override_config": {"attn_implementation": "flash_attention_2"}}
    with plain_flash():
        keyed = build_worker(model_folder, strategy, share_prompt="always", model=flash, **medium)
        results["prompt_shared_flash"] = run_scenario(keyed, prompted, world_size)
        results["flash_packs_by"] = keyed.engine._sharing.pack.__name__
    copied = copied_groups()
    results["copied"] = run_scenario(build_worker(model_folder, strategy), copied, world_size)
    results["copied_as_rows"] = run_scenario(build_worker(model_folder, strategy), copied, world_size, form="two")
    for label, options in {
        "padded": {},
        "packed": {"use_remove_padding": True, **medium},
        "shared": {"share_prompt": "always"},
    }.items():
        worker = build_worker(model_folder, strategy, precision="bf16", **options)
        results[f"copied_{label}"] = run_scenario(worker, copied, world_size)
    results["bf16"] = run_scenario(build_worker(model_folder, strategy, precision="bf16"), groups, world_size)
    return results
