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
"""A platform for verl whose device is the CPU (verl/plugin/platform/platform_base.py).

verl addresses a device by its index, ``f"{name}:{index}"`` or the index alone, and its Ray code knows the resource
"GPU" only. Here the index is a string that torch reads as the device "cpu" and that formats as "0", and the Ray
resource is a LOGICAL GPU (``ray_kwargs.ray_init.num_gpus``).
"""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase


class CpuDeviceIndex(str):
    """Equal to "cpu" where torch wants a device, "0" where verl formats an index."""

    def __new__(cls) -> "CpuDeviceIndex":
        return super().__new__(cls, "cpu")

    def __format__(self, format_spec: str) -> str:
        return format("0", format_spec)


class CpuDeviceModule(ModuleType):
    """What verl calls on ``torch.cuda``, for the CPU: memory figures of the process, the default RNG, no-ops."""

    def __init__(self) -> None:
        super().__init__("gad_verl_cpu_device")

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def get_device_name(self, *_: Any) -> str:
        return "CPU"

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> CpuDeviceIndex:
        return CpuDeviceIndex()

    def set_device(self, *_: Any) -> None:
        return None

    def synchronize(self, *_: Any) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def ipc_collect(self) -> None:
        return None

    def memory_allocated(self, *_: Any) -> int:
        return psutil.Process().memory_info().rss

    def memory_reserved(self, *_: Any) -> int:
        return self.memory_allocated()

    def max_memory_allocated(self, *_: Any) -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def max_memory_reserved(self, *_: Any) -> int:
        return self.max_memory_allocated()

    def reset_peak_memory_stats(self, *_: Any) -> None:
        return None

    def mem_get_info(self, *_: Any) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    def get_rng_state(self, *_: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, *_: Any) -> None:
        torch.set_rng_state(state)

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)


_DEVICE_MODULE = CpuDeviceModule()


class CpuPlatform(PlatformBase):
    """verl's platform interface on a CPU."""

    # Set by make_cpu_platform: whether verl knows a better device on this host.
    other_platform_available: Callable[[], bool]

    def __init__(self) -> None:
        # verl's engines are registered for cuda and npu only (workers/engine/base.py); the same classes run here.
        os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> ModuleType:
        return _DEVICE_MODULE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return not type(self).other_platform_available()

    def current_device(self) -> CpuDeviceIndex:
        return CpuDeviceIndex()

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        defaults = {
            # In GB: small models and short responses.
            "VLLM_CPU_KVCACHE_SPACE": "1",
            # vLLM leaves a core to other work; in a synchronous step nothing else works while it generates.
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        }
        return {name: os.environ.get(name, value) for name, value in defaults.items()}

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        return None

    def profiler_stop(self) -> None:
        return None

    def cudart(self) -> Any:
        return None


def make_cpu_platform(other_platform_available: Callable[[], bool]) -> type[CpuPlatform]:
    """The platform class with the answer to "does verl know a better device here?"."""
    return type("CpuPlatform", (CpuPlatform,), {"other_platform_available": staticmethod(other_platform_available)})
