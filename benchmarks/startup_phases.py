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
"""Where the time before the first step goes: one run of ``gad_cpu`` on a tiny model, by the lines of its log.

python benchmarks/startup_phases.py         # writes benchmarks/results/startup_phases.json and prints two tables

One run, so no spread: the figures show shares, not speed. The run is ended after its first step.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"

# What has happened when a line with this text comes.
MARKS = (
    ("Started a local Ray instance", "import of verl, the check before the run, Ray"),
    ("train and validate dataloader initialized", "trainer process: import of verl, TransferQueue, data"),
    ("create worker group", "processes of the workers are asked for"),
    ("actor and ref model engine initialized", "student's process: import of verl; student and reference built"),
    ("reward loop manager initialized", "reward workers are asked for"),
    ("checkpoint engine manager initialized", "rollout server: import, model"),
    ("all initialize finished", "checkpoint looked for"),
    ("Creating file logger", "discriminator built"),
    ("step:1 -", "agent loops: import of verl; first step"),
)


def command(folder: Path) -> list[str]:
    """The tiny run of the end-to-end tests."""
    sys.path.insert(0, str(ROOT / "tests" / "tools"))
    from main_ppo import TINY
    from tiny_model import build_all

    build_all(folder)
    return [
        *(sys.executable, "-u", "-m", "verl.trainer.main_ppo", "--config-name", "gad_cpu", "gad=paper"),
        f"actor_rollout_ref.model.path={folder / 'model'}",
        f"data.train_files={folder / 'train.parquet'}",
        f"data.val_files={folder / 'val.parquet'}",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        *TINY,
        "gad.warmup_steps=1",
        "gad.discriminator_only_steps=0",
        "trainer.total_training_steps=1000",
    ]


def processes(parent: psutil.Process, begin: float) -> list[dict[str, Any]]:
    """The processes of the run: name, second of their start, seconds of the processor so far."""
    found = []
    for process in [parent, *parent.children(recursive=True)]:
        try:
            name = " ".join(process.cmdline())[:60] or process.name()
            times = process.cpu_times()
            found.append(
                {
                    "process": name.split(" --")[0],
                    "started": round(process.create_time() - begin, 1),
                    "processor_seconds": round(times.user + times.system, 1),
                }
            )
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda row: row["started"])


def run(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Phases and processes up to the end of the first step.

    Raises:
        RuntimeError: If the run ends before.
    """
    arguments = command(folder)
    environment = {
        **os.environ,
        **dict.fromkeys(("PYTHONUNBUFFERED", "HF_HUB_OFFLINE", "OMP_NUM_THREADS"), "1"),
        "VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl"),
    }
    begin = time.time()
    driver = subprocess.Popen(
        arguments,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    seen: dict[str, float] = {}
    try:
        for line in driver.stdout:
            for mark, _ in MARKS:
                if mark in line and mark not in seen:
                    seen[mark] = time.time() - begin
            if MARKS[-1][0] in seen:
                break
        else:
            raise RuntimeError(f"the run ended before its first step; it had reached {list(seen)}")
        rows = processes(psutil.Process(driver.pid), begin)
    finally:
        os.killpg(driver.pid, signal.SIGTERM)
        try:
            driver.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(driver.pid, signal.SIGKILL)
    phases, last = [], 0.0
    for mark, what in MARKS:
        if mark in seen:
            phases.append({"until": round(seen[mark], 1), "seconds": round(seen[mark] - last, 1), "what": what})
            last = seen[mark]
    return phases, rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal keys in Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    return "\n".join([*lines, *("| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "startup_phases.json", help="JSON file to write")
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as folder:
        phases, rows = run(Path(folder))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {"cores": os.cpu_count(), "load_before": load, "load_after": round(os.getloadavg()[0], 2)}
    document = {"settings": settings, "phases": phases, "processes": rows}
    options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table(phases) + "\n" + table(rows))


if __name__ == "__main__":
    main()
