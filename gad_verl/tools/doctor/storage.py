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
"""Room for what a run will hold: checkpoints on the disk, offloaded states in the host's memory, models on the GPUs."""

import os
import shutil
from pathlib import Path

from gad_verl.tools.doctor.finding import Finding, error, ok, warning
from gad_verl.tools.doctor.machine import GB, Device
from gad_verl.tools.estimate.gpus import GIB, Gpu
from gad_verl.tools.estimate.run_estimate import Estimate, checkpoint_size, reference_size, saves_of
from gad_verl.tools.estimate.run_settings import RunSettings

_NEARLY_FULL = 0.9


def existing_parent(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def folder_bytes(folder: Path) -> int:
    """Bytes of the checkpoints that lie in a folder already."""
    names = [*folder.glob("global_step_*"), *folder.glob("kl_reference_step_*")] if folder.is_dir() else []
    return sum(file.stat().st_size for name in names for file in name.rglob("*") if file.is_file())


def planned_bytes(settings: RunSettings, total_steps: int) -> tuple[float, int]:
    """Bytes of all checkpoints that lie on the disk at once, and their number.

    With a number to keep, the new one is written before the oldest goes.
    """
    saves = saves_of(total_steps, settings.save_freq)
    held = saves if settings.keep is None else min(saves, settings.keep + 1)
    reference = reference_size(settings) if saves else 0.0
    return held * checkpoint_size(settings) + reference, held


def check_disk(
    settings: RunSettings, total_steps: int | None, folder: Path, free: float | None = None
) -> list[Finding]:
    """The checkpoints to come against the free space.

    Args:
        settings: Of the run.
        total_steps: Its length; None where it is not known.
        folder: ``trainer.default_local_dir``.
        free: Bytes; None asks the system.
    """
    name = "disk"
    parent = existing_parent(folder)
    if not os.access(parent, os.W_OK):
        return [error(name, f"{parent} cannot be written to", "Set trainer.default_local_dir to a folder of yours")]
    if settings.save_freq <= 0:
        return [ok(name, "no checkpoints are asked for (trainer.save_freq)")]
    size = checkpoint_size(settings)
    if total_steps is None:
        return [ok(name, f"one checkpoint takes {size / GB:.1f} GB; how many there will be is not known")]
    wanted, held = planned_bytes(settings, total_steps)
    there = folder_bytes(folder)
    free = shutil.disk_usage(parent).free if free is None else free
    text = (
        f"{held} checkpoints of {size / GB:.1f} GB at once, {wanted / GB:.0f} GB in all; {folder} has "
        f"{free / GB:.0f} GB free" + (f" beside {there / GB:.0f} GB of this run" if there else "")
    )
    if settings.nodes > 1:
        text += f" (all nodes together; each writes its part, a folder of its own needs 1/{settings.nodes} of it)"
    remedy = "Set gad.keep_checkpoints, raise trainer.save_freq, or move trainer.default_local_dir"
    needed = max(0.0, wanted - there) / (settings.nodes if settings.nodes > 1 else 1)
    if needed > free:
        return [error(name, text, remedy)]
    if needed > _NEARLY_FULL * free:
        return [warning(name, text, remedy)]
    return [ok(name, text)]


def check_memory(found: Estimate) -> list[Finding]:
    """What the estimate warns of, for the GPUs that are here."""
    name = "memory of the GPUs"
    highest = max(found.phases, key=lambda phase: phase.total.high)
    text = (
        f"estimated peak {highest.total.low / GIB:.0f} to {highest.total.high / GIB:.0f} GiB ({highest.name}) of "
        f"{found.gpu.memory / GIB:.0f} (gad-verl estimate shows the parts)"
    )
    if not found.warnings:
        return [ok(name, text)]
    return [warning(name, *_split(entry)) for entry in found.warnings]


def _split(entry: str) -> tuple[str, str]:
    text, _, remedy = entry.partition(". What helps: ")
    return text, remedy


def check_host(found: Estimate, available: float) -> list[Finding]:
    """Host memory for what is offloaded."""
    name = "memory of the host"
    text = f"{found.host / GB:.1f} GB a node for what is offloaded, {available / GB:.1f} GB are free here"
    if found.host > available:
        return [error(name, text, "Offload less, or take a node with more memory")]
    return [ok(name, text)]


def gpu_of(device: Device) -> Gpu:
    """A found GPU for the estimate of its memory; its speed does not matter there."""
    return Gpu(device.name, float(device.memory), 1.0, 1.0)
