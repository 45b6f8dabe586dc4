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
"""Checks of the settings of LoRA, for student and discriminator. Part of the check before a run."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gad_verl.errors import GadConfigError

_ADAPTER_FILE = "adapter_config.json"


def check_lora(config: DictConfig) -> None:
    """Check the keys of LoRA of both models.

    Raises:
        GadConfigError: Names the key and the remedy.
    """
    for key in ("actor_rollout_ref.model", "discriminator.model"):
        _check_model(key, config.discriminator.model if key.startswith("disc") else config.actor_rollout_ref.model)
    if config.discriminator.model.get("lora_rank", 0) > 0 and config.discriminator.checkpoint.get("save_lora_only"):
        raise GadConfigError(
            "discriminator.checkpoint.save_lora_only=True leaves the discriminator's head out of its checkpoints: set "
            "it to False"
        )


def _check_model(key: str, model: Any) -> None:
    megatron = model.get("lora", None) or {}
    rank = model.get("lora_rank", 0)
    if megatron.get("rank", 0) > 0:
        raise GadConfigError(f"{key}.lora.rank is verl's key for Megatron; with FSDP set {key}.lora_rank")
    if rank < 0:
        raise GadConfigError(f"{key}.lora_rank must not be negative; got {rank}")
    path = model.get("lora_adapter_path", None)
    if path is None:
        return
    if rank == 0:
        raise GadConfigError(
            f"{key}.lora_adapter_path is read with LoRA only: set {key}.lora_rank to the adapter's rank"
        )
    folder = Path(path).expanduser()
    if folder.is_dir() and not (folder / _ADAPTER_FILE).is_file():
        raise GadConfigError(f"{key}.lora_adapter_path={path} is no adapter of PEFT ({_ADAPTER_FILE} is missing)")
