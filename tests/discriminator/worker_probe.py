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
"""Runs the real discriminator worker on one or more gloo ranks and saves what it computed. A script, not a test.

Usage: ``python worker_probe.py MODEL_FOLDER OUTPUT.pt WORLD_SIZE STRATEGY``. A checkpoint is saved in ``OUTPUT/``.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing

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
        groups.append(SequenceGroup(teacher_ids=sequence(), student_ids=students))
    return groups


def identical_groups() -> list[Any]:
    """Student texts equal to the teacher's."""
    from gad_verl.discriminator.groups import SequenceGroup

    return [
        SequenceGroup(teacher_ids=group.teacher_ids, student_ids=[list(group.teacher_ids)] * NUM_STUDENTS)
        for group in make_groups(seed=7, count=4)
    ]


def build_worker(model_folder: str, strategy: str, precision: str = "fp32", **engine: Any) -> Any:
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
    model, seed = engine.pop("model", {}), engine.pop("seed", 3)
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
            override_config={"attn_implementation": "sdpa"},
            enable_gradient_checkpointing=False,
            use_remove_padding=remove_padding,
            **model,
        ),
        engine_config=FSDPEngineConfig(**options),
        optimizer_config=FSDPOptimizerConfig(weight_decay=0.0, clip_grad=1e9, total_training_steps=10, **optimizer),
        checkpoint_config=CheckpointConfig(),
    )
    worker = DiscriminatorWorker(config, DiscriminatorOptions(fresh_head=seed is not None, seed=seed or 0))
    worker.reset()
    return worker


def full_weights(worker: Any) -> dict[str, torch.Tensor]:
    """Copies of all weights, gathered from the ranks."""
    parameters, _ = worker.engine.get_per_tensor_param()
    return {name: tensor.detach().clone() for name, tensor in parameters}


def run_scenario(worker: Any, groups: list[Any], rank: int, world_size: int, multiple: int = 1) -> dict[str, Any]:
    """Score, update and score again; the gradient is what plain gradient descent subtracted."""
    from verl.utils import tensordict_utils as tu

    from gad_verl.discriminator.groups import build_group_batch

    def mine() -> Any:
        batch = build_group_batch(groups, NUM_STUDENTS, multiple_of=world_size * multiple)
        return tu.chunk_tensordict(batch, world_size)[rank]

    worker.reset()
    before = full_weights(worker)
    evaluated = worker.score(mine())
    updated = worker.update(mine())
    after = full_weights(worker)
    gathered: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(gathered, (updated["scores"], evaluated["scores"]))
    return {
        "loss": updated["loss"][0].item(),
        "evaluated_loss": evaluated["loss"][0].item(),
        "grad_norm": updated["grad_norm"][0].item(),
        "scores": torch.cat([scores for scores, _ in gathered])[: len(groups) * (NUM_STUDENTS + 1)],
        "evaluated_scores": torch.cat([scores for _, scores in gathered])[: len(groups) * (NUM_STUDENTS + 1)],
        "gradient": {name: before[name] - after[name] for name in before},
        "before": before,
    }


def main_rank(rank: int, model_folder: str, output: str, world_size: int, strategy: str, port: int) -> None:
    """All scenarios on one rank."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    groups = make_groups()
    longest = max(
        len(group.teacher_ids) + sum(len(ids) if ids is not None else 1 for ids in group.student_ids)
        for group in groups
    )
    results = {}
    large = build_worker(model_folder, strategy)
    results["large"] = run_scenario(large, groups, rank, world_size)
    results["after"] = full_weights(large)
    large.save_checkpoint(str(Path(output).with_suffix("")), None, 1, None)
    results["identical"] = run_scenario(large, identical_groups(), rank, world_size)
    small = {"max_token_len_per_gpu": longest, "infer_max_token_len_per_gpu": longest}
    results["small"] = run_scenario(build_worker(model_folder, strategy, **small), groups, rank, world_size)
    static = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 1, "infer_micro_batch_size_per_gpu": 1}
    results["static"] = run_scenario(build_worker(model_folder, strategy, **static), groups, rank, world_size)
    packed = build_worker(model_folder, strategy, use_remove_padding=True, **small)
    results["packed"] = run_scenario(packed, groups, rank, world_size)
    results["bf16"] = run_scenario(build_worker(model_folder, strategy, precision="bf16"), groups, rank, world_size)
    if rank == 0:
        torch.save(results, output)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def main() -> None:
    """Start the ranks."""
    import socket

    model_folder, output, world_size, strategy = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (model_folder, output, world_size, strategy, port)
    if world_size == 1:
        main_rank(0, *arguments)
    else:
        multiprocessing.spawn(main_rank, args=arguments, nprocs=world_size, join=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["VERL_PLATFORM"] = "cpu"
    main()
