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
"""The real discriminator worker with LoRA on gloo ranks (run by tools/probe_cases.py)."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

FLASH = "flash_attention_2"
LORA = {"lora_rank": 4, "lora_alpha": 8}


def build(model_folder: str, strategy: str, seed: int | None, **options: Any) -> Any:
    """A worker with LoRA and Adam; ``seed`` None wants the head from the adapter."""
    from worker_probe import build_worker

    torch.manual_seed(0)
    model = LORA | options.pop("model", {})
    optimizer = options.pop("optimizer", {"lr": 3e-2, "optimizer": "AdamW"})
    return build_worker(model_folder, strategy, seed=seed, model=model, optimizer=optimizer, **options)


def run_case(rank: int, world_size: int, strategy: str, model_folder: str, root: Path) -> dict[str, Any]:
    """Train, save, load, train on; export on rank 0 and start from the exported adapter. Checkpoints: in ``root``."""
    from plain_flash import plain_flash
    from verl.utils import tensordict_utils as tu
    from worker_probe import NUM_STUDENTS, make_groups, prompted_groups

    from gad_verl.discriminator.groups import PLACEHOLDER, build_group_batch, build_row_batch, padding_group
    from gad_verl.discriminator.plan import plan_batch
    from gad_verl.tools.export.weights import export_part
    from gad_verl.workers.adapter import FrozenAdapter, adapter_config, adapter_weights, trains_adapters_alone

    plain, prompted = make_groups(), prompted_groups()

    def gathered(output: Any) -> torch.Tensor:
        parts: list[Any] = [None] * world_size
        torch.distributed.all_gather_object(parts, output["scores"])
        return torch.cat(parts)

    def update(worker: Any, groups: Any = plain) -> torch.Tensor:
        """Scores of before the step, by group."""
        plan = plan_batch([[len(row) for row in group.rows()] for group in groups], world_size, 1)
        batch = build_group_batch(plan.padded(groups, padding_group(NUM_STUDENTS)), NUM_STUDENTS)
        scores = gathered(worker.update(tu.chunk_tensordict(batch, world_size)[rank]))
        return plan.restored(scores.view(-1, NUM_STUDENTS + 1)).flatten()

    def score(worker: Any, groups: Any = plain) -> torch.Tensor:
        rows = [row for group in groups for row in group.rows()]
        plan = plan_batch([[len(row)] for row in rows], world_size, 1)
        batch = build_row_batch(plan.padded(rows, PLACEHOLDER))
        return plan.restored(gathered(worker.score(tu.chunk_tensordict(batch, world_size)[rank])))

    found: dict[str, Any] = {"root": root}
    worker = build(model_folder, strategy, seed=3)
    worker.save_checkpoint(str(root / "global_step_0" / "discriminator"), None, 0, None)
    found["start"] = score(worker)
    for _ in range(2):
        update(worker)
    checkpoint = root / "global_step_2"
    worker.save_checkpoint(str(checkpoint / "discriminator"), None, 2, None)
    found["saved"] = score(worker)
    found["weights"] = adapter_weights(worker.engine)
    frozen = FrozenAdapter(worker.engine)
    update(worker)
    found["later"] = score(worker)
    with frozen.in_place():
        found["frozen"] = score(worker)
    found["thawed"] = score(worker)
    found["alone"] = trains_adapters_alone(worker.engine)
    found["modules_to_save"] = adapter_config(worker.engine).modules_to_save

    other = build(model_folder, strategy, seed=99)
    found["other"] = score(other)
    other.load_checkpoint(str(checkpoint / "discriminator"), None, False)
    found["loaded"] = score(other)
    update(other)
    found["resumed"] = score(other)

    # Plain gradient descent: Adam would turn differences of rounding into steps.
    descended = build(model_folder, strategy, seed=3, optimizer={"lr": 0.1, "optimizer": "SGD"})
    for _ in range(2):
        update(descended)
    found["descended"] = score(descended)

    # The frozen embedding must not cut the gradient off where activations are computed again.
    shared = {"share_prompt": "always", "model": {"enable_gradient_checkpointing": True}}
    keyed = {"share_prompt": "always", "model": shared["model"] | {"override_config": {"attn_implementation": FLASH}}}
    for name, options in (("apart", {}), ("shared", shared), ("shared_flash", keyed)):
        with plain_flash() if options is keyed else nullcontext():
            worker = build(model_folder, strategy, seed=3, optimizer={"lr": 0.1, "optimizer": "SGD"}, **options)
            update(worker, prompted)
            found[name] = score(worker, prompted)
    found["flash_packs_by"] = worker.engine._sharing.pack.__name__

    if rank == 0:
        export_part(checkpoint, "discriminator", root / "merged")
        export_part(checkpoint, "discriminator", root / "adapter", adapter_only=True)
    torch.distributed.barrier()
    from_adapter = build(model_folder, strategy, seed=None, model={"lora_adapter_path": str(root / "adapter")})
    found["from_adapter"] = score(from_adapter)

    narrow = build(model_folder, strategy, seed=3, model_dtype="bf16", precision="bf16")
    found["narrow_start"] = update(narrow)
    update(narrow)
    narrow.save_checkpoint(str(root / "narrow" / "discriminator"), None, 2, None)
    found["narrow"] = score(narrow)
    return found
