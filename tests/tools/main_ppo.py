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
"""Runs ``python -m verl.trainer.main_ppo`` as a user would, with a time limit, and reads its metrics."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).parent
# Sizes of the tiny runs: a step takes a second or two.
TINY = (
    "data.train_batch_size=8",
    "data.max_prompt_length=64",
    "data.max_response_length=16",
    "data.shuffle=False",
    "actor_rollout_ref.rollout.max_model_len=128",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    "discriminator.optim.lr=1e-3",
    "trainer.val_before_train=False",
    "trainer.test_freq=-1",
    "trainer.save_freq=-1",
)


@dataclass(frozen=True)
class Run:
    """Outcome of a run.

    Args:
        returncode: Exit code; negative for a signal.
        output: Standard output and error together.
        metrics: Logged metrics by step; values logged twice for a step are merged.
    """

    returncode: int
    output: str
    metrics: dict[int, dict[str, float]]


def hook_environment(hook: str, **variables: str) -> dict[str, str]:
    """Environment in which verl's processes load a module of this folder that changes something for a test."""
    path = os.pathsep.join(filter(None, [str(TOOLS), os.environ.get("PYTHONPATH", "")]))
    return {"VERL_USE_EXTERNAL_MODULES": hook, "PYTHONPATH": path, **variables}


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """verl's file logger: one JSON object a line."""
    metrics: dict[int, dict[str, float]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            metrics.setdefault(record["step"], {}).update(record["data"])
    return metrics


def end_after(step: int, metrics: Path) -> Callable[[subprocess.Popen, Path], None]:
    """For ``while_running``: ask a run to end once the metrics of a step are there.

    Args:
        step: Of the run.
        metrics: File of the run's metrics.
    """

    def watch(process: subprocess.Popen, log: Path) -> None:
        def ask() -> None:
            while process.poll() is None and step not in read_metrics(metrics):
                time.sleep(0.1)
            # As kill and schedulers do; it becomes the stop file.
            process.send_signal(signal.SIGTERM)

        threading.Thread(target=ask, daemon=True).start()

    return watch


def run_main_ppo(
    folder: Path,
    name: str,
    *overrides: str,
    config: str = "gad_cpu",
    timeout_s: float = 420.0,
    env: dict[str, str] | None = None,
    metrics_name: str | None = None,
    while_running: Callable[[subprocess.Popen, Path], None] | None = None,
) -> Run:
    """Run the trainer on the tiny model and data below ``folder`` (``tiny_model.build_all``).

    Args:
        folder: Holds ``model``, ``train.parquet`` and ``val.parquet``; log and metrics are written beside them.
        name: Of this run's files.
        overrides: Hydra overrides after the tiny sizes.
        config: ``--config-name``.
        timeout_s: The whole process group is killed after this; ``while_running`` counts.
        env: Additional environment.
        metrics_name: Of the metrics file, where runs share one; None means ``name``.
        while_running: Called with the process and the log file once it has started.
    """
    log, metrics = folder / f"{name}.log", folder / f"{metrics_name or name}.jsonl"
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-name", config]
    # The published method, unless a test says which.
    method = [] if any(one.startswith("gad=") for one in overrides) else ["gad=paper"]
    command += [
        *method,
        f"actor_rollout_ref.model.path={folder / 'model'}",
        f"data.train_files={folder / 'train.parquet'}",
        f"data.val_files={folder / 'val.parquet'}",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        *TINY,
        *overrides,
    ]
    environment = {**os.environ, "VERL_FILE_LOGGER_PATH": str(metrics), "HF_HUB_OFFLINE": "1", **(env or {})}
    deadline = time.monotonic() + timeout_s
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            if while_running is not None:
                while_running(process, log)
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return Run(process.returncode, log.read_text(encoding="utf-8", errors="replace"), read_metrics(metrics))
