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
"""Checkpoints of verl's Megatron engine as whole state dicts: the bridge writes them in the form of transformers."""

from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from gad_verl.discriminator.conversion import CAUSAL_HEAD, fsdp_head, load_config, read_head, weight_files
from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.checkpoint import transformers_folder


def load_megatron_state(folder: Path, part: str) -> dict[str, Tensor]:
    """The whole state dict under the names of transformers; a discriminator in FSDP's form.

    Args:
        folder: ``actor`` or ``discriminator`` of a checkpoint.
        part: "student" or "discriminator".

    Raises:
        GadCheckpointError: If there are no such weights, or a discriminator has no scalar head.
    """
    from safetensors.torch import load_file

    source = transformers_folder(folder)
    files = weight_files(source)
    state: dict[str, Tensor] = {}
    for file in tqdm(sorted(set(files.values())), desc=f"Reading {folder.name}", unit="file"):
        state |= {name: tensor for name, tensor in load_file(source / file).items() if files.get(name) == file}
    if part == "student":
        return state
    head = read_head(source)
    if head is None:
        raise GadCheckpointError(f"{folder} is no discriminator: it has no scalar head")
    del state[CAUSAL_HEAD]
    name, has_bias = fsdp_head(load_config(source))
    state[f"{name}.weight"] = head.weight
    if has_bias:
        state[f"{name}.bias"] = head.weight.new_full((1,), head.bias)
    return state
