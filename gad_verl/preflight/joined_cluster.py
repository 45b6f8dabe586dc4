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
"""A launch into a Ray cluster that is there already: its processes run on any node, in folders of their own."""

import os
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.data.file_stamps import file_list
from gad_verl.errors import GadConfigError

# What Ray refuses together with an address, one after another.
_OF_A_NEW_RAY = ("num_cpus", "num_gpus", "object_store_memory")
_INIT = "ray_kwargs.ray_init"
_FOLDERS = ("trainer.default_local_dir", "trainer.rollout_data_dir", "trainer.validation_data_dir", "gad.stop_file")
_MODELS = (
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.model.lora_adapter_path",
    "discriminator.model.path",
    "critic.model.path",
)


def cluster_address(config: DictConfig) -> str | None:
    """Address of the cluster that a launch would join; None where it starts a Ray of its own."""
    address = os.environ.get("RAY_ADDRESS") or OmegaConf.select(config, f"{_INIT}.address", default=None)
    return None if address in (None, "", "local") else str(address)


def check_joins(config: DictConfig, gad_config: GadConfig) -> None:
    """Check that what a launch says is right on every node of the cluster that it joins.

    Raises:
        GadConfigError: Names the keys and the remedy.
    """
    address = cluster_address(config)
    if address is None:
        return
    sizes = [key for key in _OF_A_NEW_RAY if OmegaConf.select(config, f"{_INIT}.{key}", default=None) is not None]
    if sizes:
        leave_out = " ".join(f"~{_INIT}.{key}" for key in sizes)
        raise GadConfigError(
            f"the launch joins the Ray cluster at {address}, whose sizes `ray start` has set: {_INIT} must not say "
            f"{', '.join(sizes)}. Add {leave_out} to the command, or unset RAY_ADDRESS"
        )
    for key, path in _paths(config, gad_config):
        if "://" not in path and not Path(path).expanduser().is_absolute():
            raise GadConfigError(
                f"{key}={path} is relative, and the launch joins the Ray cluster at {address}: each node would look in "
                f"the folder of its own `ray start`. Give a path from the root, such as {key}={Path(path).absolute()}"
            )


def _paths(config: DictConfig, gad_config: GadConfig) -> Iterator[tuple[str, str]]:
    for key in _FOLDERS:
        value = OmegaConf.select(config, key, default=None)
        if value:
            yield key, str(value)
    for key in ("train_files", "val_files"):
        for path in file_list(config.data[key]):
            yield f"data.{key}", path
    for key in _MODELS if gad_config.has_discriminator else _MODELS[:2]:
        value = OmegaConf.select(config, key, default=None)
        # What is no folder here is a name of the Hub.
        if value and Path(str(value)).is_dir():
            yield key, str(value)
