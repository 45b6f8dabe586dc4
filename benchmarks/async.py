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
"""What the asynchronous modes are worth: the same work in turns, colocated and separate, with generation that sleeps.

python benchmarks/async.py                         # writes benchmarks/results/async.json and prints the table
python benchmarks/async.py --cases even --steps 6  # one case

Runs of ``verl.trainer.main_ppo`` on the tiny model, one after the other. Generation and the student's update take
simulated seconds (sleeping_rollout.py), answers are of mixed length, everything else is real: scheduling, queue, parked
requests, weights, discriminator. Two numbers of a mode count: the share of a step in which the student waits for
rollouts, and its steps an hour over those of ``sync``. What overlap alone could give is (generation + training) /
max(generation, training), where the generation of ``sync`` lasts as long as the longest answer of its batch. The modes
may be faster than that: they do not wait for the longest answer either.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, machine, table, write
from sleeping_rollout import GENERATION, SPREAD, TRAINING, UPDATES

ROOT = Path(__file__).resolve().parents[1]
PROMPTS, LIMIT, UPDATES_OF_STEP = 8, 256, 2
# Steps that are not counted: the pipeline fills.
FILLING = 2


@dataclass(frozen=True)
class Case:
    """Simulated seconds.

    Args:
        generation_s: Of an answer of a quarter of the limit, the median; the longest takes four times as long.
        training_s: Of a step's updates.
        spread: Of the logarithm of the lengths.
    """

    generation_s: float
    training_s: float
    spread: float = 0.8


CASES = {
    # A small student: generation and training are about as long.
    "even": Case(generation_s=3.0, training_s=8.0),
    # Long answers: generation is most of a step, as with a 7B student of 1536 tokens.
    "long": Case(generation_s=10.0, training_s=10.0),
}
MODES = ("sync", "colocate_async", "separate_async")
COLUMNS = {
    "case": "case",
    "mode": "mode",
    "steps": "steps that count",
    "step_s": "a step, s",
    "waits": "share of it that the student waits",
    "speed": "steps an hour over sync",
    "bound": "by overlap alone, at most",
    "age": "age of the oldest response, updates of the rollout",
}


def _command(mode: str, folder: Path, steps: int) -> list[str]:
    overrides = [
        f"actor_rollout_ref.model.path={folder / 'model'}",
        f"data.train_files={folder / 'train.parquet'}",
        f"data.val_files={folder / 'val.parquet'}",
        f"trainer.default_local_dir={folder / mode}",
        f"data.train_batch_size={PROMPTS}",
        "data.max_prompt_length=64",
        f"data.max_response_length={LIMIT}",
        "data.shuffle=False",
        "actor_rollout_ref.rollout.max_model_len=512",
        "gad.stage=gad",
        f"trainer.total_training_steps={steps}",
        "trainer.total_epochs=100",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
    ]
    if mode != "sync":
        overrides += ["+gad_mode=async", f"trainer.v1.trainer_mode=gad_{mode}"]
    if mode == "separate_async":
        overrides += [
            f"trainer.v1.separate_async.parameter_sync_step={UPDATES_OF_STEP}",
            "trainer.v1.separate_async.num_warmup_batches=1",
            f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS // UPDATES_OF_STEP}",
            "actor_rollout_ref.hybrid_engine=False",
            "actor_rollout_ref.rollout.nnodes=1",
            "actor_rollout_ref.rollout.n_gpus_per_node=1",
            "ray_kwargs.ray_init.num_gpus=2",
        ]
    return [sys.executable, "-m", "verl.trainer.main_ppo", "--config-name", "gad_cpu", "gad=paper", *overrides]


def measure(case: Case, mode: str, folder: Path, steps: int) -> list[dict[str, float]]:
    """Metrics of the steps that count.

    Raises:
        SystemExit: If the run fails.
    """
    metrics = folder / f"{mode}.jsonl"
    paths = [str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "VERL_USE_EXTERNAL_MODULES": "sleeping_rollout",
        "VERL_FILE_LOGGER_PATH": str(metrics),
        GENERATION: str(case.generation_s),
        TRAINING: str(case.training_s),
        SPREAD: str(case.spread),
        UPDATES: str(UPDATES_OF_STEP if mode == "separate_async" else 1),
    }
    with (folder / f"{mode}.log").open("w", encoding="utf-8") as log:
        done = subprocess.run(_command(mode, folder, steps), cwd=folder, env=environment, stdout=log, stderr=log)
    if done.returncode != 0:
        raise SystemExit(f"{mode} failed: {(folder / f'{mode}.log').read_text(encoding='utf-8')[-3000:]}")
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return [line["data"] for line in lines if line["step"] > FILLING]


def row(name: str, mode: str, found: list[dict[str, float]], sync_s: float | None) -> dict[str, Any]:
    """Of a mode: seconds of a step, the share of it in which the student waits, steps over those of sync."""
    step = statistics.mean(one["timing_s/step"] for one in found)
    waits = statistics.mean(one["timing_s/gen"] for one in found)
    return {
        "case": name,
        "mode": mode,
        "steps": len(found),
        "step_s": step,
        "waits": waits / step,
        "speed": 1.0 if sync_s is None else sync_s / step,
        "age": statistics.mean(one["training/off_policy/trajectory_staleness_worst/mean"] for one in found),
    }


def bound(sync: list[dict[str, float]]) -> float:
    """Highest speed over sync that overlap alone can give: (generation + training) / max(generation, training)."""
    waits = statistics.mean(one["timing_s/gen"] for one in sync)
    trains = statistics.mean(one["timing_s/step"] for one in sync) - waits
    return (waits + trains) / max(waits, trains)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--modes", nargs="*", choices=MODES, default=list(MODES))
    parser.add_argument("--steps", type=int, default=10, help=f"of each run; the first {FILLING} do not count")
    parser.add_argument("--output", type=Path, default=RESULTS / "async.json")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "tools"))
    from tiny_model import build_all

    rows, cases = [], {}
    for name in given.cases:
        sync_s, most = None, None
        for mode in given.modes:
            with tempfile.TemporaryDirectory() as folder:
                found = measure(CASES[name], mode, build_all(Path(folder)), given.steps)
            if mode == "sync":
                most = bound(found)
            rows.append(row(name, mode, found, sync_s) | {"bound": most})
            if mode == "sync":
                sync_s = rows[-1]["step_s"]
            print(rows[-1], file=sys.stderr, flush=True)
        cases[name] = asdict(CASES[name])
    write(given.output, rows, machine(threads=1) | {"cases": cases})
    print(table(rows, COLUMNS))


if __name__ == "__main__":
    main()
