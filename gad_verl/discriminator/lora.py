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
"""LoRA for the discriminator: a frozen body with adapters, and a scalar head that is always trained and saved.

verl builds every adapter as one of a causal model and names no module to save (verl/workers/engine/fsdp/
transformer_impl.py), so the head of a value model would stay frozen or become low-rank itself.
"""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from verl.utils.fs import copy_to_local
from verl.utils.py_functional import convert_to_regular_types

from gad_verl.discriminator.family_limits import has_state_spaces
from gad_verl.discriminator.form import HEAD_NAMES
from gad_verl.discriminator.model import head_name
from gad_verl.errors import GadCheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_adapter(module: "PreTrainedModel", model_config: Any, fresh_head: bool) -> PeftModel:
    """Freeze a discriminator's body, put adapters on it, and keep a trainable head beside the frozen one.

    Adapters and head are float32 whatever the precision of the body: steps of a usual size vanish in bfloat16.

    Args:
        module: What :func:`gad_verl.discriminator.model.load_discriminator` returned.
        model_config: verl's model configuration: ``lora_rank``, ``lora_alpha``, ``target_modules``,
            ``target_parameters``, ``exclude_modules``, ``lora_adapter_path``.
        fresh_head: Whether the head of the module is taken rather than that of the adapter at ``lora_adapter_path``.

    Raises:
        GadCheckpointError: If the adapter at ``lora_adapter_path`` brings no head and none is asked for.
    """
    head = head_name(module)
    getattr(module, head).float()
    if model_config.lora_adapter_path is not None:
        adapted = _load_adapter(module, model_config, head, fresh_head)
    else:
        config = LoraConfig(
            task_type=TaskType.TOKEN_CLS,
            r=model_config.lora_rank,
            lora_alpha=model_config.lora_alpha,
            target_modules=convert_to_regular_types(model_config.target_modules),
            target_parameters=convert_to_regular_types(model_config.target_parameters),
            exclude_modules=convert_to_regular_types(model_config.exclude_modules) or _without_adapter(module),
            modules_to_save=[head],
            bias="none",
        )
        adapted = get_peft_model(module, config)
    # PEFT adds its own guesses of a head's name.
    adapted.peft_config["default"].modules_to_save = [head]
    return adapted


def _without_adapter(module: "PreTrainedModel") -> list[str] | None:
    """Linear layers that no adapter can be put on.

    Routers that are linear give more than their product (Llama 4); kernels of Mamba read the weights of its output
    themselves.
    """
    of_mamba = has_state_spaces(module.config)
    names = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and ("Router" in type(part).__name__ or (of_mamba and name.endswith("out_proj")))
    ]
    return names or None


def _load_adapter(module: "PreTrainedModel", model_config: Any, head: str, fresh_head: bool) -> PeftModel:
    folder = copy_to_local(model_config.lora_adapter_path, use_shm=model_config.use_shm)
    config = LoraConfig.from_pretrained(folder)
    config.task_type = TaskType.TOKEN_CLS
    config.modules_to_save = [head]
    config.inference_mode = False
    if not fresh_head and not adapter_has_head(folder):
        raise GadCheckpointError(
            f"the adapter {model_config.lora_adapter_path} brings no scalar head ({head}.weight). Set "
            "gad.discriminator_head=fresh to begin with a new one"
        )
    start = copy.deepcopy(getattr(module, head).state_dict())
    adapted = PeftModel.from_pretrained(module, folder, is_trainable=True, config=config)
    if fresh_head:
        getattr(adapted.get_base_model(), head).modules_to_save["default"].load_state_dict(start)
    return adapted


def adapter_has_head(folder: str | Path) -> bool:
    """Whether the adapter in a local folder holds the weights of a head (read from the file's header alone)."""
    from safetensors import safe_open

    path = Path(folder) / "adapter_model.safetensors"
    if not path.is_file():
        raise GadCheckpointError(f"{folder} holds no adapter ({path.name} is missing)")
    with safe_open(path, framework="pt") as file:
        heads = (name for name in file.keys() if name.endswith(tuple(f".{head}.weight" for head in HEAD_NAMES)))
        # A student's adapter may hold a whole LM head.
        return any(file.get_slice(name).get_shape()[0] == 1 for name in heads)
