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
"""Where verl's file logger writes: the shell of the launch says so, and a trainer on another node has another shell."""

import os

from omegaconf import DictConfig, OmegaConf, open_dict

_FILE, _ROOT = "VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT"


def file_logger_variables() -> dict[str, str]:
    """Where verl's file logger writes, as the shell of the launch means it, for a trainer on any node."""
    names = (name for name in (_FILE, _ROOT) if name in os.environ)
    return {name: os.path.abspath(os.path.expanduser(os.environ[name])) for name in names}


def pass_on_file_logger(config: DictConfig) -> None:
    """Write these variables into the environment that the run's processes get from Ray, in place.

    What is set there already (``ray_kwargs.ray_init.runtime_env.env_vars``) stays.
    """
    key = "ray_kwargs.ray_init.runtime_env"
    given = OmegaConf.to_container(OmegaConf.select(config, f"{key}.env_vars") or OmegaConf.create({}))
    assert isinstance(given, dict)
    wanted = {name: value for name, value in file_logger_variables().items() if name not in given}
    if wanted:
        # verl makes the section a struct, and adds no key to it.
        with open_dict(config):
            OmegaConf.update(config, f"{key}.env_vars", given | wanted, force_add=True)
