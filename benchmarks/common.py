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
"""Measuring: alternating repeats, ratios with their spread, peak memory of the device's allocator, tables.

No figure is an absolute time alone: machines differ, and a loaded one differs from itself. What is compared runs in
turn, repeat by repeat, and each repeat gives one ratio.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from device import this_device
from tqdm import tqdm

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Ratio:
    """A ratio over repeats.

    Args:
        median, lowest, highest: Of the repeats' ratios.
        repeats: Their number.
    """

    median: float
    lowest: float
    highest: float
    repeats: int

    @classmethod
    def of(cls, numerators: Sequence[float], denominators: Sequence[float]) -> "Ratio":
        """Repeat by repeat."""
        ratios = [above / below for above, below in zip(numerators, denominators, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios), len(ratios))

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.lowest:.2f}, {self.highest:.2f}]"


def alternate(calls: dict[str, Callable[[], Any]], repeats: int, name: str = "") -> dict[str, list[float]]:
    """Seconds of each call, ``repeats`` times in turn, after one round that does not count."""
    seconds: dict[str, list[float]] = {key: [] for key in calls}
    device = this_device()
    for repeat in tqdm(range(repeats + 1), desc=name, leave=False, file=sys.stderr):
        for key, call in calls.items():
            device.synchronize()
            begin = time.perf_counter()
            call()
            device.synchronize()
            if repeat > 0:
                seconds[key].append(time.perf_counter() - begin)
    return seconds


def peak_bytes(call: Callable[[], Any]) -> int:
    """Highest number of bytes that torch's allocator of this device held above what it held when ``call`` began."""
    return this_device().peak_bytes(call)


def result_file(name: str) -> Path:
    """Where results go: those of a GPU beside those of the CPU, never over them."""
    return RESULTS / (f"gpu_{name}" if this_device().is_gpu else name)


def arguments(description: str, output: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=5, help="alternating repeats (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="compute threads of a process (default: 1)")
    parser.add_argument("--output", type=Path, default=result_file(output), help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, not how fast")
    return parser


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        **this_device().facts(),
    }


def write(path: Path, rows: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write rows and settings as JSON, whole or not at all."""

    def plain(value: Any) -> Any:
        if isinstance(value, Ratio):
            return {key: round(number, 4) for key, number in asdict(value).items()}
        return round(value, 6) if isinstance(value, float) else value

    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"settings": settings, "rows": [{key: plain(value) for key, value in row.items()} for row in rows]}
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def cell(value: Any) -> str:
    """A value of a row as text."""
    if isinstance(value, Ratio):
        return str(value)
    if isinstance(value, dict):
        return str(Ratio(**value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> str:
    """A Markdown table of some columns (key to heading)."""
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(row[key]) for key in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


@contextmanager
def one_rank(threads: int) -> Iterator[None]:
    """A process group of one rank on this device, as verl's workers expect it; leaves the process as it was."""
    import socket

    import torch.distributed as dist

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment, threads_before = dict(os.environ), torch.get_num_threads()
    os.environ.update(
        RANK="0",
        WORLD_SIZE="1",
        LOCAL_RANK="0",
        LOCAL_WORLD_SIZE="1",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        VERL_PLATFORM=this_device().verl_platform,
    )
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        torch.set_num_threads(threads_before)
        os.environ.clear()
        os.environ.update(environment)
