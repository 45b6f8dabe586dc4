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
"""Writes what a run leaves: a checkpoint as verl's FSDP engine saves it on one rank, its state and its record."""

import json
from pathlib import Path
from typing import Any

import torch


def save_part(folder: Path, model: Any, source: Path) -> None:
    """One model of a checkpoint.

    Args:
        folder: ``actor`` or ``discriminator``.
        model: Of transformers or PEFT.
        source: Folder whose tokenizer belongs to it.
    """
    from transformers import AutoTokenizer

    (folder / "huggingface").mkdir(parents=True)
    model.config.save_pretrained(folder / "huggingface")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder / "huggingface")
    (folder / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 1, "world_size": 1}))
    torch.save(model.state_dict(), folder / "model_world_size_1_rank_0.pt")
    if hasattr(model, "peft_config"):
        model.peft_config["default"].save_pretrained(str(folder))


def build_discriminator(source: Path, seed: int = 3, bias: float = 0.25) -> Any:
    """A token classifier as the trainer loads it, with scores that differ and a bias."""
    from transformers import AutoConfig

    from gad_verl.discriminator.model import load_discriminator, prepare_config

    config = AutoConfig.from_pretrained(source)
    prepare_config(config, None)
    model = load_discriminator(source, config, torch.float32, fresh_head=True, seed=seed)
    with torch.no_grad():
        model.score.weight.mul_(20.0)
        model.score.bias.fill_(bias)
    return model.eval()


def last_values(model: Any, rows: list[list[int]]) -> torch.Tensor:
    """The trainer's scores: the value at the last token, a row at a time, nothing padded."""
    with torch.no_grad():
        return torch.stack([model(input_ids=torch.tensor([row])).logits[0, -1, 0] for row in rows])


def write_run(run: Path, config: Any, step: int, stage: str = "adversarial", metrics: dict | None = None) -> Path:
    """The record of a run and the state of a checkpoint; the folder of the checkpoint."""
    from gad_verl.record import RunRecord
    from gad_verl.trainer.checkpoints import GadState

    checkpoint = run / f"global_step_{step}"
    GadState(step, stage, True, None, None).write(checkpoint)
    log = run / "metrics.jsonl"
    log.write_text("".join(json.dumps({"step": at, "data": data}) + "\n" for at, data in (metrics or {}).items()))
    with RunRecord.open(run, None) as record:
        record.write_run(config, log if metrics else None)
    return checkpoint
