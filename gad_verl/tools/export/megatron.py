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

from gad_verl.discriminator.conversion import CAUSAL_HEAD, fsdp_head, read_head, weight_files
from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.checkpoint import brief, load_model_config, transformers_folder


def load_megatron_state(folder: Path, part: str, trust_remote_code: bool = False) -> dict[str, Tensor]:
    """The whole state dict under the names of transformers; a discriminator in FSDP's form.

    Args:
        folder: ``actor`` or ``discriminator`` of a checkpoint.
        part: "student" or "discriminator".
        trust_remote_code: Run code that the model brings.

    Raises:
        GadCheckpointError: If there are no such weights, they are damaged, or a discriminator has no scalar head.
    """
    from safetensors import SafetensorError

    source = transformers_folder(folder)
    try:
        state = _read_weights(source, folder.name)
        head = None if part == "student" else read_head(source)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GadCheckpointError(f"the weights in {source} are damaged: {brief(error)}") from None
    if part == "student":
        return state
    if head is None:
        raise GadCheckpointError(f"{folder} is no discriminator: it has no scalar head")
    if CAUSAL_HEAD not in state:
        raise GadCheckpointError(f"{folder} is no discriminator of Megatron: it has no {CAUSAL_HEAD}")
    del state[CAUSAL_HEAD]
    config = load_model_config(source, trust_remote_code)
    config.num_labels = 1
    name, has_bias = fsdp_head(config)
    state[f"{name}.weight"] = head.weight
    if has_bias:
        state[f"{name}.bias"] = head.weight.new_full((1,), head.bias)
    return state


def _read_weights(source: Path, title: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    files = weight_files(source)
    state: dict[str, Tensor] = {}
    # A bar that is closed ends its line, also before an error.
    with tqdm(sorted(set(files.values())), desc=f"Reading {title}", unit="file") as bar:
        for file in bar:
            state |= {name: tensor for name, tensor in load_file(source / file).items() if files.get(name) == file}
    return state
