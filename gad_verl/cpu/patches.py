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
"""Corrections of verl 0.9.1 and torch for a machine without an accelerator. Nothing here runs on any other platform.

Each says what stands in the way and where; what is replaced in verl stands in ``gad_verl.compat`` too.
"""

import functools
from types import ModuleType
from typing import Any

import torch
from torch import nn

_PROCESS_GROUP_BACKEND = "cpu:gloo"


def patch_process_group(distributed: ModuleType) -> None:
    """verl/utils/distributed.py builds the backend "cpu:gloo,cpu:gloo" here, which torch rejects.

    Every training worker calls this function first: the corrections of torch's FSDP are applied there too, so that
    processes that do not train never import FSDP.
    """
    original = distributed.initialize_global_process_group_ray

    @functools.wraps(original)
    def initialize(timeout_second: float | None = None, backend: str | None = None) -> None:
        patch_fsdp()
        original(timeout_second=timeout_second, backend=backend or _PROCESS_GROUP_BACKEND)

    distributed.initialize_global_process_group_ray = initialize

    def initialize_global(timeout_second: float = 36000) -> tuple[int, int, int]:
        import os

        initialize(timeout_second=timeout_second)
        return int(os.environ["LOCAL_RANK"]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    distributed.initialize_global_process_group = initialize_global


def patch_fsdp() -> None:
    """FSDP1 refuses to broadcast CPU parameters (the gloo broadcast works), and nothing can be pinned."""
    import torch.distributed.fsdp._init_utils as init_utils

    init_utils._check_module_states_for_sync_module_states = lambda module_states: None
    torch.Tensor.pin_memory = lambda self, *args, **kwargs: self


def patch_value_head_loader(model_utils: ModuleType) -> None:
    """verl/utils/model.py loads value models (verl's critic) with flash-attention only."""

    def load_valuehead_model(
        local_path: str, torch_dtype: torch.dtype, model_config: Any, trust_remote_code: bool
    ) -> nn.Module:
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification.from_pretrained(
            pretrained_model_name_or_path=local_path,
            dtype=torch_dtype,
            config=model_config,
            attn_implementation="sdpa",
            trust_remote_code=trust_remote_code,
        )

    model_utils.load_valuehead_model = load_valuehead_model
