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
"""Offers the CPU to verl: chosen by VERL_PLATFORM=cpu, or where verl's own detection finds nothing else."""

import os
from pathlib import Path
from types import ModuleType

import wrapt

# A driver is loaded: of Linux, in a container, of Windows' Linux.
_NVIDIA_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))


def is_cpu_platform() -> bool:
    """Whether verl resolved its platform to the CPU.

    Never asks torch.cuda: in a CPU-only actor of a GPU machine that says no.
    """
    from verl.plugin.platform import get_platform

    return get_platform().device_name == "cpu"


def _torch_knows_nvidia() -> bool:
    import torch

    return torch.version.cuda is not None


def _other_platform_available(registry: type) -> bool:
    """Whether this installation can compute on another device of this host.

    verl asks nvidia-smi alone: it finds no GPU where that program is not in the path, and finds one that a CPU build of
    torch cannot use.
    """
    for name in registry.registered_names():
        if name == "cpu" or (name == "nvidia" and not _torch_knows_nvidia()):
            continue
        try:
            if name == "nvidia" and any(file.exists() for file in _NVIDIA_DRIVER):
                return True
            if registry.get(name)().is_platform_available(use_smi_check=True):
                return True
        except Exception:  # noqa: S112  verl's own detection treats a failing platform as absent
            continue
    return False


def _patch_distributed(module: object) -> None:
    if is_cpu_platform():
        from gad_verl.cpu.patches import patch_process_group

        patch_process_group(module)


def _patch_value_head_loader(module: object) -> None:
    if is_cpu_platform():
        from gad_verl.cpu.patches import patch_value_head_loader

        patch_value_head_loader(module)


def _alias_vllm(_: object) -> None:
    if is_cpu_platform():
        from gad_verl.cpu.vllm_cpu import alias_vllm_version

        alias_vllm_version()


def _replace_vllm_replica(module: ModuleType) -> None:
    if is_cpu_platform():
        from gad_verl.cpu.vllm_cpu import register_vllm_replica

        register_vllm_replica(module)


def _accept_missing_films(module: ModuleType) -> None:
    if is_cpu_platform():
        from gad_verl.cpu.processors import accept_missing_films

        accept_missing_films(module)


def _replace_film_loader(module: ModuleType) -> None:
    if is_cpu_platform():
        from gad_verl.cpu.processors import replace_film_loader

        replace_film_loader(module)


def _choose_cpu(manager: ModuleType, registry: type) -> None:
    """Choose the CPU where verl has chosen, or would choose, a device that is not there."""
    wanted = os.environ.get("VERL_PLATFORM", "").strip().lower()
    current = manager._current_platform
    if wanted == "cpu":
        # `import verl` may have resolved the platform before its plugins were loaded.
        changes = current is not None and current.device_name != "cpu"
    elif wanted:
        changes = False
    elif current is None:
        # verl would ask the driver alone; what torch can use needs no second look at all platforms (nvidia-smi).
        changes = not _torch_knows_nvidia() and not _other_platform_available(registry)
    else:
        changes = (
            current.device_name != "cpu" and not current.is_available() and not _other_platform_available(registry)
        )
    if changes:
        manager._current_platform = registry.get("cpu")()


def register_cpu_platform() -> None:
    """Register the platform "cpu" and the corrections that verl needs on it.

    The corrections hang on verl's modules: they run when (and only if) verl imports the module concerned and its
    platform is the CPU.
    """
    from verl.plugin.platform import platform_manager
    from verl.plugin.platform.platform_manager import PlatformRegistry

    from gad_verl.cpu.cpu import make_cpu_platform

    registered = PlatformRegistry.get("cpu")
    if registered is None:
        PlatformRegistry.register("cpu")(make_cpu_platform(lambda: _other_platform_available(PlatformRegistry)))
        _choose_cpu(platform_manager, PlatformRegistry)
    wrapt.register_post_import_hook(_patch_distributed, "verl.utils.distributed")
    wrapt.register_post_import_hook(_patch_value_head_loader, "verl.utils.model")
    # Whichever comes first: the modules imported after these ask for the version while they are imported.
    for module in ("verl.third_party", "verl.workers.rollout.base"):
        wrapt.register_post_import_hook(_alias_vllm, module)
    wrapt.register_post_import_hook(_replace_vllm_replica, "verl.workers.rollout.replica")
    wrapt.register_post_import_hook(_accept_missing_films, "transformers.processing_utils")
    wrapt.register_post_import_hook(_replace_film_loader, "transformers.models.auto.video_processing_auto")
