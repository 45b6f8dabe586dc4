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
"""Runs made up for the tests of the page: every metric that a real run logs, over as many steps as asked for."""

import json
import math
from pathlib import Path

import numpy as np

from gad_verl.record import RunRecord, Sample

WARMUP_SHARE = 0.4
DISCRIMINATOR_ONLY = 3
EXTRA_METRICS = 45


def metrics_of_step(step: int, steps: int, generator: np.random.Generator) -> dict[str, float]:
    """What verl would log at a step; healthy throughout."""
    warm = max(1, round(WARMUP_SHARE * steps))
    stage = 0 if step <= min(DISCRIMINATOR_ONLY, warm) else 1 if step <= warm else 2
    share = step / steps
    accuracy = float(np.clip(0.78 - 0.25 * math.exp(-8 * share) + 0.03 * generator.normal(), 0, 1))
    margin = 0.9 - 0.3 * share + 0.05 * generator.normal()
    length = 200 + 12 * generator.normal()
    data = {
        "gad/stage": float(stage),
        "disc/accuracy": accuracy,
        "disc/margin_mean": margin,
        "disc/margin_std": 0.5,
        "disc/loss": 0.45 + 0.24 * math.exp(-10 * share) + 0.01 * generator.normal(),
        "disc/saturated_fraction": 0.02,
        "disc/no_spread_fraction": 0.01,
        "disc/grad_norm": 1.5 + 0.3 * abs(generator.normal()),
        "disc/lr": 1e-6,
        "disc/num_pairs": 64.0,
        "disc/skipped_steps": 0.0,
        "disc/memory_peak_gb": 12.5,
        "gad/trust_factor": share,
        "gad/trust_accuracy": accuracy - 0.05,
        "disc/teacher_score_mean": 0.5 + share,
        "disc/teacher_score_std": 0.4,
        "disc/student_score_mean": 0.5 + share - margin,
        "disc/student_score_std": 0.4,
        "critic/rewards/mean": 0.5 + share - margin,
        "critic/rewards/max": 2.0,
        "critic/rewards/min": -1.0,
        "gad/student_length_mean": length,
        "gad/teacher_length_mean": 190.0,
        "gad/length_ratio": length / 190.0,
        "gad/score_length_correlation": 0.1 * generator.normal(),
        "gad/student_finished_rate": 0.97,
        "gad/teacher_finished_rate": 0.99,
        "gad/failed_rollouts": 0.0,
        "gad/nonfinite_scores": 0.0,
        "timing_s/gen": 20 + generator.normal(),
        "timing_s/reward": 4.0,
        "timing_s/update_actor": 9.0,
        "timing_s/update_weights": 1.0,
        "timing_s/step": 36.0,
    }
    if stage > 0:
        data["actor/loss"] = 2.5 - 0.8 * share if stage == 1 else 0.01 * generator.normal()
        data |= {"actor/grad_norm": 2 + 0.2 * generator.normal(), "actor/lr": 1e-6}
    if stage == 2:
        data |= {"actor/entropy": 1.3, "actor/kl_loss": 0.02 * share, "actor/pg_loss": 0.01 * generator.normal()}
    data |= {f"training/extra_{number}": float(generator.normal()) for number in range(EXTRA_METRICS)}
    if step % max(1, steps // 20) == 0:
        data |= {
            "val-gad/accuracy": accuracy - 0.03,
            "val-gad/margin_mean": margin,
            "val-gad/rouge_l": 0.25 + 0.1 * share,
            "val-gad/length_ratio": 1.05,
            "val-gad/student_finished_rate": 0.98,
            "val-gad/student_length_mean": 200.0,
            "val-gad/teacher_length_mean": 190.0,
        }
    return data


def write_metrics(path: Path, steps: int, seed: int = 0, total: int | None = None) -> None:
    """A file of verl's ``file`` logger with the first ``steps`` of ``total`` steps."""
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            data = metrics_of_step(step, total or steps, generator)
            file.write(json.dumps({"step": step, "data": data}) + "\n")


def write_record(
    run: Path,
    steps: int,
    metrics_file: Path | None,
    seed: int = 0,
    text: str = "Simply put, it rains.",
    total: int | None = None,
    config: dict | None = None,
    finished: bool = True,
) -> None:
    """The record that belongs to it."""
    generator = np.random.default_rng(seed)
    with RunRecord.open(run, None) as record:
        settings = {"trainer": {"total_training_steps": total or steps}, "seed": seed, **(config or {})}
        record.write_run(settings, metrics_file)
        for step in range(1, steps + 1):
            centre = step / steps
            record.scores(step, "adversarial", generator.normal(1 + centre, 0.4, 32), generator.normal(centre, 0.5, 64))
            if step % max(1, steps // 20) == 0:
                students = [f"{text} ({step}, {number})" for number in range(2)]
                samples = [Sample(index, f"Why? {text}", text, students, 1.0, [0.5, 0.1]) for index in range(3)]
                record.samples(step, "val", samples)
                record.samples(step, "train", samples[:1])
        record.event(max(1, steps // 2), "schedule", "stage", "info", "The adversarial stage begins.")
        record.event(max(1, steps * 3 // 4), "guardian", "saturated", "warn", text, {"loss": 0.005})
        if finished:
            record.finish()


def write_run(run: Path, steps: int, **arguments) -> Path:
    """A whole run with metrics and record; returns its folder."""
    total = arguments.get("total")
    write_metrics(run / "metrics.jsonl", steps, arguments.get("seed", 0), total)
    write_record(run, steps, run / "metrics.jsonl", **arguments)
    return run
