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
"""Where a run computes: a configuration for the CPU does so on a machine with GPUs too."""

import os

from omegaconf import DictConfig

from gad_verl.errors import GadConfigError

_CHOICE, _VISIBLE = "VERL_PLATFORM", "CUDA_VISIBLE_DEVICES"


def choose_platform(config: DictConfig) -> None:
    """Let this process, and those that Ray starts from it, compute on the CPU where ``trainer.device`` says so.

    verl takes what its own look at the machine finds: with a driver of a GPU, the platform "nvidia", and then it
    overwrites ``trainer.device``.

    Raises:
        GadConfigError: If the environment names another platform.
    """
    if str(config.trainer.get("device", "cuda")) != "cpu":
        return
    wanted = os.environ.get(_CHOICE, "").strip().lower()
    if wanted not in ("", "cpu"):
        raise GadConfigError(
            f"trainer.device=cpu, but {_CHOICE}={wanted} is set: unset it, or take --config-name gad_trainer"
        )
    os.environ[_CHOICE] = "cpu"
    import torch
    from verl.plugin.platform import get_platform, set_platform
    from verl.plugin.platform.platform_manager import PlatformRegistry

    if get_platform().device_name != "cpu":
        set_platform(PlatformRegistry.get("cpu")())
    if torch.cuda.is_available():
        # Logical GPUs that are none: Ray hands these numbers to its workers, and CUDA knows no device of them. With an
        # empty list Ray would refuse to start.
        count = int(config.ray_kwargs.ray_init.get("num_gpus", None) or 1)
        os.environ[_VISIBLE] = ",".join(["-1"] * count)
