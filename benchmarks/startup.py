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
"""What gad_verl adds to the start of a process: its own import, and its plugin in a process that imports verl.

python benchmarks/startup.py                # writes benchmarks/results/startup.json and prints the table

Every figure is of fresh interpreters, in turn, after one round that does not count. Beside the seconds on the clock
stand those of the processor, which other work on the machine changes less.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

_CLOCK = """
import time
def clock():
    return time.perf_counter(), time.process_time()
def report(begin):
    end = clock()
    print("GAD_STARTUP", end[0] - begin[0], end[1] - begin[1])
"""


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Args:
        what: For the table.
        code: Run in a fresh interpreter; calls ``report(begin)`` once.
        plugins: verl's switch of its plugins (``VERL_USE_EXTERNAL_PLUGINS``).
    """

    what: str
    code: str
    plugins: str


CASES = {
    "package": Case("`import gad_verl`", "begin = clock()\nimport gad_verl\nreport(begin)", "none"),
    "plugin": Case(
        "the plugin, in a process that has imported verl",
        "import verl\nbegin = clock()\nimport gad_verl.plugin\nreport(begin)",
        "none",
    ),
    "verl": Case("`import verl` without the plugin", "begin = clock()\nimport verl\nreport(begin)", "none"),
    "verl_and_plugin": Case("`import verl` with the plugin", "begin = clock()\nimport verl\nreport(begin)", "auto"),
}


@dataclass(frozen=True)
class Spread:
    """A figure over repeats."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Over the values of all repeats."""
        return cls(*(round(value, 4) for value in (statistics.median(values), min(values), max(values))))

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.lowest:.3f}, {self.highest:.3f}]"


def measure(case: Case) -> tuple[float, float]:
    """Seconds on the clock and of the processor, in a fresh interpreter.

    Raises:
        RuntimeError: If the interpreter fails.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CLOCK + case.code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "VERL_USE_EXTERNAL_PLUGINS": case.plugins},
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("GAD_STARTUP ")]
    if done.returncode != 0 or len(lines) != 1:
        raise RuntimeError(f"{case.what} failed:\n{done.stderr[-2000:]}")
    return float(lines[0][1]), float(lines[0][2])


def measure_all(repeats: int) -> list[dict[str, Any]]:
    """Every case in turn; a row for each and one for the ratio of the last two."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for repeat in range(repeats + 1):
        for name, case in CASES.items():
            seconds = measure(case)
            sys.stderr.write(f"repeat {repeat}, {case.what}: {seconds[0]:.3f} s, {seconds[1]:.3f} s of the processor\n")
            if repeat > 0:
                found[name].append(seconds)
    rows = [
        {
            "what": case.what,
            "seconds": Spread.of([clock for clock, _ in found[name]]),
            "processor_seconds": Spread.of([processor for _, processor in found[name]]),
        }
        for name, case in CASES.items()
    ]
    pairs = list(zip(found["verl_and_plugin"], found["verl"], strict=True))
    rows.append(
        {
            "what": "`import verl` with the plugin / without (a ratio)",
            "seconds": Spread.of([above[0] / below[0] for above, below in pairs]),
            "processor_seconds": Spread.of([above[1] / below[1] for above, below in pairs]),
        }
    )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| | seconds | seconds of the processor |", "| --- | --- | --- |"]
    lines += [f"| {row['what']} | {row['seconds']} | {row['processor_seconds']} |" for row in rows]
    return "\n".join(lines) + "\n"


def write(path: Path, rows: Sequence[dict[str, Any]], repeats: int) -> None:
    """Write rows and settings as JSON, whole or not at all."""
    settings = {
        "repeats": repeats,
        "cores": os.cpu_count(),
        "load_of_the_last_minute": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "processor": platform.machine(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(
        json.dumps({"settings": settings, "rows": rows}, default=vars, indent=1) + "\n", encoding="utf-8"
    )
    os.replace(unfinished, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="alternating repeats (default: 5)")
    parser.add_argument("--output", type=Path, default=RESULTS / "startup.json", help="JSON file to write")
    options = parser.parse_args()
    rows = measure_all(options.repeats)
    write(options.output, rows, options.repeats)
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    main()
