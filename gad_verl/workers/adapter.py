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
"""Adapters of LoRA in verl's training workers: what they are, and the student as it once was.

Under LoRA verl has no second model for the KL reference: it switches the adapter off, so its reference is the base
model (verl/trainer/ppo/v1/trainer_base.py). The student as it left the warmup differs from the base by its adapter
alone, so a copy of the adapter is enough to compute its log-probabilities.
"""

from collections.abc import ItemsView, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.tensor import DTensor
from verl.utils.fsdp_utils import load_fsdp_model_to_gpu, offload_fsdp_model_to_cpu
from verl.utils.model import convert_weight_keys


def adapter_config(engine: Any) -> Any | None:
    """PEFT's configuration of an engine's adapter, or None without LoRA."""
    module = getattr(engine.module, "_fsdp_wrapped_module", engine.module)
    return getattr(module, "peft_config", {}).get("default")


def save_adapter_config(engine: Any, folder: str | Path) -> None:
    """Write ``adapter_config.json`` beside the weights of a checkpoint: the export needs more than rank and alpha."""
    config = adapter_config(engine)
    if config is not None and torch.distributed.get_rank() == 0:
        config.save_pretrained(str(folder))


def trains_adapters_alone(engine: Any) -> bool:
    """Whether every trained weight is one of LoRA: then a checkpoint of these is the whole change."""
    return all("lora_" in name for name, parameter in engine.module.named_parameters() if parameter.requires_grad)


def adapter_weights(engine: Any) -> dict[str, Tensor]:
    """Whole weights of the adapter on the CPU, under PEFT's names without the adapter's own."""
    if engine.is_param_offload_enabled:
        load_fsdp_model_to_gpu(engine.module)
    module = getattr(engine.module, "_fsdp_wrapped_module", engine.module)
    with FSDP.summon_full_params(engine.module, writeback=False):
        weights = {
            name.replace(".default.", "."): (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)
            .detach()
            .to("cpu", copy=True)
            for name, tensor in module.state_dict().items()
            if ".lora_" in name
        }
    if engine.is_param_offload_enabled:
        offload_fsdp_model_to_cpu(engine.module)
    return weights


def send_whole_adapters(engine: Any) -> None:
    """Let an engine hand out its adapter whatever the version of PEFT.

    PEFT 0.21 looks for the weights by the names of the modules, which FSDP1 changes: it finds none, and verl would send
    an empty adapter to the rollout without a word, so that the student answered as the base model does.
    """
    original = engine.get_per_tensor_param

    def get_per_tensor_param(base_sync_done: bool = False, **kwargs: Any) -> tuple[Any, dict[str, Any] | None]:
        weights, config = original(base_sync_done=base_sync_done, **kwargs)
        if config is None or not base_sync_done:
            return weights, config
        found: dict[str, Tensor] = dict(weights)
        if not found:
            found = convert_weight_keys(
                adapter_weights(engine), getattr(engine.module, "_fsdp_wrapped_module", engine.module)
            )
        items: ItemsView[str, Tensor] = found.items()
        return items, config

    engine.get_per_tensor_param = get_per_tensor_param


def _reshard(module: nn.Module) -> None:
    """Free gathered copies of the weights, which would hide a change of the shards."""
    for unit in FSDP.fsdp_modules(module):
        handle = unit._handle
        if handle is not None and handle.uses_sharded_strategy and hasattr(handle.flat_param, "_full_param_padded"):
            handle.reshard(True)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def _trained_shards(module: nn.Module) -> list[Tensor]:
    """This rank's pieces of the trained weights; changing them changes the model."""
    _reshard(module)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        parameter.to_local().detach() if isinstance(parameter, DTensor) else parameter.data for parameter in trained
    ]


class FrozenAdapter:
    """A copy of an engine's adapter at one moment.

    Args:
        engine: verl's FSDP engine with LoRA, initialized.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._shards = [shard.clone() for shard in _trained_shards(engine.module)]

    def restore(self) -> None:
        """Make the engine's adapter what it was at that moment."""
        with torch.no_grad():
            for live, frozen in zip(_trained_shards(self._engine.module), self._shards, strict=True):
                live.copy_(frozen)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The engine computes as at that moment, and afterwards as before."""
        now = FrozenAdapter(self._engine)
        self.restore()
        try:
            yield
        finally:
            now.restore()
