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
"""The device that a benchmark measures: the one it runs on, with its memory, its precision and its name in the results.

A machine with a GPU gives figures of the GPU; of its CPU only where VERL_PLATFORM=cpu says so, and then the results say
so too.
"""

import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

CPU, CUDA = "cpu", "cuda"


@dataclass(frozen=True)
class Device:
    """A kind of device and how this project's workers compute on it.

    Args:
        name: As torch has it.
        attention: Of the measured models: ``GAD_BENCH_ATTENTION``, or verl's default where it can be computed.
    """

    name: str
    attention: str

    @property
    def is_gpu(self) -> bool:
        """Whether it is one."""
        return self.name == CUDA

    @property
    def verl_platform(self) -> str:
        """Its name for verl (VERL_PLATFORM)."""
        return "nvidia" if self.is_gpu else "cpu"

    @property
    def precision(self) -> str:
        """In which the workers compute; sums and gradients are reduced in float32 on both."""
        return "bf16" if self.is_gpu else "fp32"

    @property
    def packs_rows(self) -> bool:
        """Whether rows without padding cost what their tokens cost: flash attention alone reads no mask."""
        return self.attention.startswith("flash_attention")

    def synchronize(self) -> None:
        """Wait until the device has done what was asked of it."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def peak_bytes(self, call: Callable[[], Any]) -> int:
        """Highest number of bytes that torch's allocator of the device held above what it held when ``call`` began."""
        if not self.is_gpu:
            return _peak_of_cpu(call)
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - held

    def facts(self) -> dict[str, Any]:
        """What stands beside every figure."""
        precision = {"bf16": "bfloat16", "fp32": "float32"}[self.precision]
        if not self.is_gpu:
            return {"processor": platform.machine(), "device": CPU, "precision": precision}
        card = torch.cuda.get_device_properties(0)
        return {
            "device": CUDA,
            "card": card.name,
            "memory_gib": round(card.total_memory / 2**30, 1),
            "capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda,
            "precision": precision,
            "attention": self.attention,
            "flash_attn": _version_of_flash(),
        }


def _version_of_flash() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flash-attn")
    except PackageNotFoundError:
        return "none"


def _peak_of_cpu(call: Callable[[], Any]) -> int:
    """From the profiler's events of every allocation and release: no matter what the system reports, or others do."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def this_device() -> Device:
    """A GPU where torch sees one; the CPU where there is none, or where VERL_PLATFORM=cpu asks for it."""
    on_cpu = os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu" or not torch.cuda.is_available()
    has_flash = not on_cpu and importlib.util.find_spec("flash_attn") is not None
    attention = os.environ.get("GAD_BENCH_ATTENTION") or ("flash_attention_2" if has_flash else "sdpa")
    return Device(CPU if on_cpu else CUDA, attention)


def measure_the_cpu() -> None:
    """For a benchmark whose runs are for the CPU (gad_cpu): its figures are the CPU's on any machine, and say so."""
    os.environ["VERL_PLATFORM"] = "cpu"
