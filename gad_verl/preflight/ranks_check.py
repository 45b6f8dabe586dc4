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
"""A run that goes on has as many ranks as it had: verl reads FSDP's shards with the number that wrote them."""

from pathlib import Path

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.errors import GadCheckpointError
from gad_verl.record.files import read_json

# verl writes it beside the shards of an FSDP model.
_RANKS_FILE = "fsdp_config.json"


def check_ranks(config: DictConfig, gad_config: GadConfig, folder: Path | None) -> None:
    """Compare the ranks of a checkpoint with those of the launch.

    Args:
        config: The whole configuration.
        gad_config: Its section ``gad``.
        folder: The checkpoint that the run would go on from; None for a start from the beginning.

    Raises:
        GadCheckpointError: Names the part, both numbers, and the remedy.
    """
    if folder is None:
        return
    trainer = config.trainer
    shared = ("trainer.nnodes x trainer.n_gpus_per_node", trainer.nnodes * trainer.n_gpus_per_node)
    own = (
        "gad.discriminator_nnodes x gad.discriminator_n_gpus_per_node",
        gad_config.discriminator_nnodes * gad_config.discriminator_n_gpus_per_node,
    )
    wanted = {"actor": shared, "critic": shared, "discriminator": own if own[1] > 0 else shared}
    for part, (keys, ranks) in wanted.items():
        saved = (read_json(folder / part / _RANKS_FILE) or {}).get("world_size", ranks)
        if saved != ranks:
            raise GadCheckpointError(
                f"{folder / part} was written by {saved} ranks, and {keys} is {ranks} now: verl reads FSDP's shards "
                f"with as many ranks alone. Set {keys} to {saved}, or begin a run from its export (gad-verl export)"
            )
