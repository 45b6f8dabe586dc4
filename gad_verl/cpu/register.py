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
from types import ModuleType

import wrapt


def is_cpu_platform() -> bool:
    """Whether verl resolved its platform to the CPU.

    Never asks torch.cuda: in a CPU-only actor of a GPU machine that says no.
    """
    from verl.plugin.platform import get_platform

    return get_platform().device_name == "cpu"


def _other_platform_available(registry: type) -> bool:
    for name in registry.registered_names():
        if name != "cpu":
            try:
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
        # `import verl` may have resolved the platform before its plugins were loaded: then it fell back to "nvidia".
        current = platform_manager._current_platform
        wanted = os.environ.get("VERL_PLATFORM", "").strip().lower()
        # What is available needs no second look at all platforms: that runs a program of the driver (nvidia-smi).
        if current is not None and current.device_name != "cpu" and (wanted == "cpu" or not current.is_available()):
            if wanted == "cpu" or (not wanted and not _other_platform_available(PlatformRegistry)):
                platform_manager._current_platform = PlatformRegistry.get("cpu")()
    wrapt.register_post_import_hook(_patch_distributed, "verl.utils.distributed")
    wrapt.register_post_import_hook(_patch_value_head_loader, "verl.utils.model")
    # Whichever comes first: the modules imported after these ask for the version while they are imported.
    for module in ("verl.third_party", "verl.workers.rollout.base"):
        wrapt.register_post_import_hook(_alias_vllm, module)
    wrapt.register_post_import_hook(_replace_vllm_replica, "verl.workers.rollout.replica")
