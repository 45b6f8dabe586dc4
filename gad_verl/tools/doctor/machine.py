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
"""GPUs, shared memory and limits of this machine. Of several nodes, only the one where it runs is seen."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gad_verl.tools.doctor.finding import Finding, error, ok, warning

GB = 1e9
# Ray's own defaults: the share of the memory that its object store takes, and the open files that it wants.
_STORE_SHARE, _MOST_STORE = 0.3, 200e9
_OPEN_FILES = 65536
_LEAST_OPEN_FILES = 8192


@dataclass(frozen=True)
class Device:
    """One GPU: its name and its memory in bytes."""

    name: str
    memory: int


def find_gpus() -> list[Device]:
    """GPUs that torch sees."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [Device(device.name, device.total_memory) for device in found]


def check_gpus(found: Sequence[Device], config: Any | None, cluster: str | None = None) -> list[Finding]:
    """GPUs of this node against what the configuration takes of one.

    Args:
        found: GPUs of this node.
        config: The configuration; None without one.
        cluster: Address of a Ray cluster that the run joins; its nodes are not seen from here.
    """
    name = "GPUs"
    names = ", ".join(sorted({f"{device.name} ({device.memory / 2**30:.0f} GiB)" for device in found}))
    seen = f"{len(found)} of {names}" if found else "none"
    if config is None:
        return [ok(name, seen if found else "none: --config-name gad_cpu trains small models without")]
    trainer, gad = config.trainer, config.get("gad", None) or {}
    if str(trainer.get("device", "cuda")) == "cpu":
        return [ok(name, f"{seen}; the configuration computes on the CPU")]
    own = int(gad.get("discriminator_n_gpus_per_node", 0) or 0)
    wanted = int(trainer.n_gpus_per_node) + own
    what = f"trainer.n_gpus_per_node={trainer.n_gpus_per_node}"
    what += f" and gad.discriminator_n_gpus_per_node={own}" if own else ""
    more = (
        "" if int(trainer.nnodes) == 1 else f" on this node; trainer.nnodes={trainer.nnodes}, the others are not seen"
    )
    if len(found) < wanted and cluster:
        text = f"{seen} here, {what}; the run joins the Ray cluster at {cluster}, whose GPUs are not seen from here"
        return [warning(name, text, "Look at `ray status`, or run the doctor on a node of the cluster")]
    if not found:
        return [
            error(
                name,
                f"none, but {what}",
                "Start on a node with GPUs, or take --config-name gad_cpu for a small model",
            )
        ]
    if len(found) < wanted:
        remedy = "Lower these keys, raise trainer.nnodes, or take a larger node"
        return [error(name, f"{seen}{more}, but {what}", remedy)]
    if len({device.memory for device in found}) > 1:
        return [
            warning(name, f"{seen}{more}: of several sizes", "Let a run see GPUs of one kind (CUDA_VISIBLE_DEVICES)")
        ]
    return [ok(name, f"{seen}{more}; the run takes {wanted}")]


def store_bytes(config: Any | None, memory: float) -> float:
    """Bytes that Ray's object store will take in shared memory."""
    asked = None
    if config is not None:
        init = (config.get("ray_kwargs", None) or {}).get("ray_init", None) or {}
        asked = init.get("object_store_memory", None)
    return float(asked) if asked else min(_STORE_SHARE * memory, _MOST_STORE)


def check_shared_memory(config: Any | None, free: float, memory: float) -> list[Finding]:
    """Ray's object store lies in /dev/shm; where that is too small, it lies on the disk and is slow."""
    name, wanted = "shared memory", store_bytes(config, memory)
    if free >= wanted:
        return [ok(name, f"/dev/shm has {free / GB:.1f} GB free, Ray's object store takes up to {wanted / GB:.1f}")]
    remedy = (
        f"Start the container with --shm-size={wanted / GB:.0f}g, or set a smaller store: "
        f"+ray_kwargs.ray_init.object_store_memory={int(free * 0.8)}"
    )
    return [warning(name, f"/dev/shm has {free / GB:.1f} GB free, Ray's object store wants {wanted / GB:.1f}", remedy)]


def check_open_files(hard: int, soft: int) -> list[Finding]:
    """Ray raises the soft limit to the hard one; -1 is no limit."""
    name = "open files"
    if hard < 0 or hard >= _OPEN_FILES:
        return [ok(name, "no limit" if hard < 0 else f"limit {hard}")]
    if hard >= _LEAST_OPEN_FILES:
        return [ok(name, f"limit {hard} (soft {soft}); Ray wants {_OPEN_FILES} for large clusters")]
    remedy = f"ulimit -n {_OPEN_FILES}, or --ulimit nofile={_OPEN_FILES} of the container"
    return [warning(name, f"limit {hard}: Ray opens files for every process and connection", remedy)]


def check_this_machine(config: Any | None) -> list[Finding]:
    """Shared memory and limits as they are now."""
    import psutil

    memory = float(psutil.virtual_memory().total)
    found = []
    try:
        free = float(shutil.disk_usage("/dev/shm").free)
    except OSError:
        found.append(ok("shared memory", "no /dev/shm here: Ray takes the temporary folder"))
    else:
        found += check_shared_memory(config, free, memory)
    try:
        import resource
    except ImportError:
        return found
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return found + check_open_files(hard, soft)
