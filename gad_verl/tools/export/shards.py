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
"""Checkpoints of verl's FSDP engines as whole state dicts: the pieces of all ranks, joined.

The files stay where they are and are read as they are needed, so the memory holds one copy of a model at most, and of
the replicas of hybrid sharding one.
"""

import pickle
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from gad_verl.errors import GadCheckpointError
from gad_verl.record.files import read_json
from gad_verl.tools.export.checkpoint import brief

_CONFIG = "fsdp_config.json"


def shard_files(folder: Path) -> list[Path]:
    """The files of all ranks, in rank order.

    Raises:
        GadCheckpointError: If files are missing or damaged.
    """
    config = folder / _CONFIG
    if not config.is_file():
        raise GadCheckpointError(
            f"{folder} is no FSDP checkpoint of verl ({_CONFIG} is missing). Name a folder global_step_N"
        )
    world_size = (read_json(config) or {}).get("world_size")
    if not isinstance(world_size, int) or world_size < 1:
        raise GadCheckpointError(f"{config} is damaged: it names no world_size; copy it again, or take another step")
    files = [folder / f"model_world_size_{world_size}_rank_{rank}.pt" for rank in range(world_size)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise GadCheckpointError(
            f"{folder} lacks {', '.join(missing)}: copy the parts of all nodes into one folder before the export"
        )
    return files


def join_shards(name: str, shards: list[Tensor]) -> Tensor:
    """The whole tensor from the pieces of all ranks, in rank order.

    Args:
        name: For the error.
        shards: DTensors (each rank's piece) or plain tensors (copies of the whole).

    Raises:
        GadCheckpointError: If the layout is not a plain or hybrid sharding of FSDP, or pieces do not fit together.
    """
    from torch.distributed.tensor import DTensor, Shard

    first = shards[0]
    if any(isinstance(shard, DTensor) != isinstance(first, DTensor) for shard in shards):
        raise GadCheckpointError(f"{name} is sharded on some ranks and whole on others: damaged checkpoint")
    if not isinstance(first, DTensor):
        if any(not torch.equal(first, other) for other in shards[1:]):
            raise GadCheckpointError(f"{name} differs between ranks although it is not sharded: damaged checkpoint")
        return first
    sharded = [placement for placement in first.placements if isinstance(placement, Shard)]
    if len(sharded) > 1:
        raise GadCheckpointError(f"{name} is sharded in {len(sharded)} dimensions; only FSDP and HSDP can be exported")
    pieces = [shard.to_local() for shard in shards]
    if not sharded:
        return pieces[0]
    # Under hybrid sharding the last mesh dimension shards; the first group of ranks holds a whole copy.
    group = pieces[: first.device_mesh.size(first.device_mesh.ndim - 1)]
    try:
        return torch.cat(group, dim=sharded[0].dim)
    except (RuntimeError, IndexError) as error:
        raise GadCheckpointError(f"the pieces of {name} do not fit together: {brief(error)}") from None


def _load_shard(file: Path) -> dict[str, Tensor]:
    """The state dict of one rank. A checkpoint may come from elsewhere: nothing in it is run."""
    # Makes the classes of sharded tensors known to torch's loader of tensors alone.
    import torch.distributed.tensor

    failure: Exception | None = None
    # Some file systems, and files of old versions of torch, cannot be mapped into memory.
    for is_mapped in (True, False):
        try:
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=is_mapped)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            failure = error
            continue
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()) or not state:
            raise GadCheckpointError(f"{file} holds no weights by their names: take another step, or copy it again")
        return state
    raise GadCheckpointError(f"{file} is damaged, or holds more than tensors: {brief(failure)}")


def load_state(folder: Path) -> dict[str, Tensor]:
    """The whole state dict of one model of a checkpoint (``actor`` or ``discriminator``).

    Raises:
        GadCheckpointError: If files are missing or do not fit together.
    """
    files = shard_files(folder)
    # A bar that is closed ends its line, also before an error.
    with tqdm(files, desc=f"Reading {folder.name}", unit="shard") as bar:
        ranks = [_load_shard(file) for file in bar]
    for file, rank in zip(files, ranks, strict=True):
        different = rank.keys() ^ ranks[0].keys()
        if different:
            raise GadCheckpointError(
                f"{files[0]} and {file.name} do not hold the same weights (such as {min(different)}): they are of "
                "different checkpoints, or damaged"
            )
    return {name: join_shards(name, [rank[name] for rank in ranks]).contiguous() for name in ranks[0]}
