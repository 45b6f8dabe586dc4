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
"""What the training workers compute on a device, one part per process; the results go to a file for the tests.

    python device_probe.py PART MODEL_FOLDER OUTPUT.pt --device cuda|cpu

On ``cpu`` the same code shows that the parts run (float32 and bfloat16 on gloo); only ``cuda`` shows that they are
right there.
"""

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / folder) for folder in ("tools", "discriminator", "gpu")]

FP32, BF16 = "fp32", "bf16"
SEED = 3
STRATEGIES = ("fsdp", "fsdp2")
FLASH = "flash_attention_2"


def discriminator(
    folder: str,
    strategy: str,
    precision: str = FP32,
    tokens: int = 100_000,
    attention: str = "sdpa",
    packed: bool = False,
    checkpointing: bool = False,
    **given: Any,
) -> Any:
    """The worker with plain gradient descent of rate 1 (by default): what a step subtracts is the gradient."""
    from worker_probe import build_worker

    model = {
        "override_config": {"attn_implementation": attention},
        "enable_gradient_checkpointing": checkpointing,
        **given.pop("model", {}),
    }
    limits = {"max_token_len_per_gpu": tokens, "infer_max_token_len_per_gpu": tokens}
    return build_worker(folder, strategy, precision, model=model, use_remove_padding=packed, **limits, **given)


def to_cpu(value: Any) -> Any:
    """Tensors of nested containers on the CPU, in float32."""
    if isinstance(value, torch.Tensor):
        return value.detach().float().cpu()
    if isinstance(value, dict):
        return {key: to_cpu(item) for key, item in value.items()}
    return value


def plain(folder: str, groups: list[Any], device: str, precision: str) -> dict[str, Any]:
    """The same batch through transformers and autograd, without verl: loss, scores and gradient."""
    from transformers import AutoConfig

    from gad_verl.core import bradley_terry_loss
    from gad_verl.discriminator.model import load_discriminator, prepare_config

    config = AutoConfig.from_pretrained(folder, attn_implementation="sdpa")
    prepare_config(config, None)
    model = load_discriminator(folder, config, torch.float32, fresh_head=True, seed=SEED).to(device)
    rows = [torch.tensor(row) for group in groups for row in group.rows()]
    size = len(rows) // len(groups)
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == BF16):
        logits = model(input_ids=ids, attention_mask=mask).logits.squeeze(-1)
    scores = logits[torch.arange(len(rows)), mask.sum(1) - 1].float().view(len(groups), size)
    weights = torch.tensor([group.pair_weights() for group in groups], device=device)
    loss = bradley_terry_loss(scores[:, 0], scores[:, 1:], weights)
    loss.backward()
    gradient = {name: parameter.grad for name, parameter in model.named_parameters()}
    norm = torch.sqrt(sum(part.double().square().sum() for part in gradient.values())).item()
    return to_cpu({"loss": loss.item(), "scores": scores.flatten(), "gradient": gradient, "grad_norm": norm})


def scenario(worker: Any, groups: list[Any], form: str = "one") -> dict[str, Any]:
    """Score, update, and the gradient that was subtracted."""
    from worker_probe import run_scenario

    found = to_cpu(run_scenario(worker, groups, 1, form=form))
    found.pop("before")
    return found


def worker_part(strategy: str, folder: str, device: str) -> dict[str, Any]:
    """The discriminator's worker: forms of a batch, offload, a checkpoint."""
    from worker_probe import make_groups, prompted_groups, score_rows

    from gad_verl.discriminator.groups import build_group_batch

    groups, prompted = make_groups(), prompted_groups()
    rows = [row for group in groups for row in group.rows()]
    small = max(sum(len(row) for row in group.rows()) for group in groups)
    single = max(len(row) for row in rows)
    build = partial(discriminator, folder, strategy)
    found: dict[str, Any] = {f"plain_{kind}": plain(folder, groups, device, kind) for kind in (FP32, BF16)}
    for kind in (FP32, BF16):
        found[f"large_{kind}"] = scenario(build(kind), groups)
        found[f"small_{kind}"] = scenario(build(kind, tokens=small), groups)
        found[f"two_{kind}"] = scenario(build(kind, tokens=single), groups, "two")
        found[f"split_{kind}"] = scenario(build(kind, tokens=small), groups, "split")
        found[f"packed_{kind}"] = scenario(build(kind, tokens=small, packed=True), groups)
        found[f"checkpointing_{kind}"] = scenario(build(kind, checkpointing=True), groups)
        found[f"apart_{kind}"] = scenario(build(kind), prompted)
        found[f"shared_{kind}"] = scenario(build(kind, share_prompt="always"), prompted)
        packed = build(kind, share_prompt="always", packed=True, tokens=200)
        found[f"shared_packed_{kind}"] = scenario(packed, prompted)
    offload = {"param_offload": True, "optimizer_offload": True}
    found["offloaded"] = scenario(build(FP32, **offload), groups)
    # Between gradients and step the weights go to the host; the gradients must not be lost.
    found["split_offloaded"] = scenario(build(FP32, tokens=small, **offload), groups, "split")
    # Adam's state goes to the host and back, and through a checkpoint.
    adam = {"optimizer": "AdamW", "lr": 1e-3}
    kept, path = build(BF16, optimizer=adam, **offload), f"{folder}_{strategy}_saved"
    scenario(kept, groups)
    kept.save_checkpoint(path, None, 1, None)
    loaded = build(BF16, optimizer=adam)
    loaded.load_checkpoint(path, None, False)
    found["saved"] = to_cpu(score_rows(kept, rows, 1))
    found["loaded"] = to_cpu(score_rows(loaded, rows, 1))
    for name, worker in (("saved_next", kept), ("loaded_next", loaded)):
        worker.update(build_group_batch(groups, 3))
        found[name] = to_cpu(score_rows(worker, rows, 1))
    return found


def flash_part(folder: str, device: str) -> dict[str, Any]:
    """verl's default, flash attention and packed rows, against torch's own attention."""
    from worker_probe import make_groups, prompted_groups

    groups, prompted, found = make_groups(), prompted_groups(), {}
    small = max(sum(len(row) for row in group.rows()) for group in groups)
    for strategy in STRATEGIES:
        for share in ("never", "always"):
            worker = discriminator(folder, strategy, BF16, attention=FLASH, packed=True, share_prompt=share)
            found[f"{share}_{strategy}"] = scenario(worker, prompted)
        found[f"sdpa_{strategy}"] = scenario(discriminator(folder, strategy, BF16), groups)
        for packed in (False, True):
            worker = discriminator(folder, strategy, BF16, attention=FLASH, packed=packed, tokens=small)
            found[f"flash_{strategy}_{'packed' if packed else 'padded'}"] = scenario(worker, groups)
    found["plain"] = plain(folder, groups, device, FP32)
    found["plain_prompted"] = plain(folder, prompted, device, FP32)
    return found


def lora_part(folder: str, device: str) -> dict[str, Any]:
    """An adapter on a bfloat16 body, and a frozen copy of it."""
    from worker_probe import make_groups, score_rows

    from gad_verl.discriminator.groups import build_group_batch
    from gad_verl.workers.adapter import FrozenAdapter, adapter_weights

    groups, found = make_groups(), {}
    rows = [row for group in groups for row in group.rows()]
    for strategy in STRATEGIES:
        lora = {"lora_rank": 4, "lora_alpha": 8, "target_modules": "all-linear"}
        worker = discriminator(folder, strategy, BF16, model=lora, optimizer={"optimizer": "AdamW", "lr": 1e-2})
        found[f"start_{strategy}"] = to_cpu(score_rows(worker, rows, 1))
        worker.update(build_group_batch(groups, 3))
        found[f"then_{strategy}"] = to_cpu(score_rows(worker, rows, 1))
        frozen = FrozenAdapter(worker.engine)
        worker.update(build_group_batch(groups, 3))
        found[f"later_{strategy}"] = to_cpu(score_rows(worker, rows, 1))
        with frozen.in_place():
            found[f"frozen_{strategy}"] = to_cpu(score_rows(worker, rows, 1))
        found[f"thawed_{strategy}"] = to_cpu(score_rows(worker, rows, 1))
        found[f"adapter_{strategy}"] = torch.tensor(len(adapter_weights(worker.engine)))
    return found


def part(name: str, folder: str, device: str) -> dict[str, Any]:
    """What a part computes."""
    from rollout_probe import rollout_part
    from student_probe import student_part

    kind, _, strategy = name.partition("_")
    if strategy:
        return {"worker": worker_part, "student": student_part}[kind](strategy, folder, device)
    if kind == "flash" and device == "cpu":
        from plain_flash import plain_flash

        with plain_flash():
            return flash_part(folder, device)
    return {"flash": flash_part, "lora": lora_part, "rollout": rollout_part}[kind](folder, device)


def on_rank(rank: int, name: str, folder: str, output: str, device: str) -> None:
    """The part, with its seconds and its peak memory."""
    from verl.utils.distributed import initialize_global_process_group

    begin = time.monotonic()
    if not torch.distributed.is_initialized():
        initialize_global_process_group()
    found = part(name, folder, device)
    found["seconds"] = time.monotonic() - begin
    if device == "cuda":
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    torch.save(found, output)


def main() -> None:
    """Start the rank."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part")
    parser.add_argument("folder")
    parser.add_argument("output")
    parser.add_argument("--device", required=True, choices=("cuda", "cpu"))
    given = parser.parse_args()
    os.environ["VERL_PLATFORM"] = "nvidia" if given.device == "cuda" else "cpu"
    from gloo_ranks import run_ranks

    run_ranks(on_rank, 1, given.part, given.folder, given.output, given.device)


if __name__ == "__main__":
    main()
