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
"""Metric streams in closed form: a healthy run, and what each rule is to see."""

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

Metrics = dict[str, Any]

NAN = math.nan


def healthy(step: int, rng: random.Random, stage: int = 2) -> Metrics:
    """One healthy step of 64 prompts."""
    accuracy = min(1.0, max(0.0, rng.gauss(0.78, 0.05)))
    return {
        "gad/stage": float(stage),
        "gad/prompts": 64.0,
        "disc/accuracy": accuracy,
        "gad/trust_factor": 0.8,
        "gad/trust_accuracy": 0.65,
        "disc/saturated_fraction": 0.05,
        "disc/no_spread_fraction": 0.0,
        "disc/loss": 0.45,
        "disc/margin_mean": 0.9,
        "disc/grad_norm": 1.0,
        "disc/num_pairs": 256.0,
        "disc/skipped_steps": 0.0,
        "disc/teacher_score_mean": 0.4,
        "disc/student_score_mean": -0.5,
        "gad/length_ratio": rng.gauss(1.1, 0.05),
        "gad/score_length_correlation": rng.gauss(0.1, 0.2),
        "gad/student_finished_rate": 0.97,
        "gad/teacher_finished_rate": 0.99,
        "gad/nonfinite_scores": 0.0,
        "gad/self_bleu": 0.4,
        "gad/distinct_2": rng.gauss(0.5, 0.02),
        "gad/repetition": 0.05,
        "gad/teacher_repetition": 0.03,
        "actor/kl_loss": 0.001 * step,
        "actor/entropy": rng.gauss(0.7, 0.03),
        "actor/loss": 0.1,
        "actor/grad_norm": 0.5,
    }


# What makes a stream sick from a step on, by the rule that is to see it: metrics as a function of the step.
SICK: dict[str, Callable[[int], Metrics]] = {
    "saturated": lambda step: {"disc/accuracy": 0.995, "disc/saturated_fraction": 0.9},
    "weak": lambda step: {"disc/accuracy": 0.51},
    "oscillation": lambda step: {"disc/accuracy": 0.98 if step % 6 < 3 else 0.35},
    "no_spread": lambda step: {"disc/no_spread_fraction": 0.4},
    "length": lambda step: {"gad/length_ratio": 2.5},
    "score_length": lambda step: {"gad/score_length_correlation": 0.9},
    "repetition": lambda step: {"gad/repetition": 0.5},
    "collapse": lambda step: {"gad/self_bleu": 0.97},
    "kl": lambda step: {"actor/kl_loss": 3.0},
    "entropy": lambda step: {"actor/entropy": 0.01},
    "nonfinite": lambda step: {"disc/loss": NAN},
    "skipped": lambda step: {"disc/skipped_steps": 1.0},
    "end_of_text": lambda step: {"gad/student_finished_rate": 0.1, "disc/accuracy": 0.93},
    "untrusted": lambda step: {"gad/trust_factor": 0.0, "gad/trust_accuracy": 0.52},
    "overfitted": lambda step: {"val-gad/text_loss_change": 0.1, "val-gad/text_loss_change_error": 0.04},
    "indistinguishable": lambda step: {"val-gad/accuracy": 0.51, "val-gad/num_pairs": 1000.0},
    "no_improvement": lambda step: {"val-gad/rouge_l": 0.2},
}


def stream(
    rule: str | None, sick: Iterable[int], steps: int, seed: int = 0, stage: int = 2
) -> list[tuple[int, Metrics]]:
    """Steps 1 .. ``steps``, sick for the rule in the steps given."""
    rng, ill = random.Random(seed), set(sick)
    rows = []
    for step in range(1, steps + 1):
        metrics = healthy(step, rng, stage)
        # What the early stopping is to remember.
        metrics |= {"val-gad/accuracy": 0.8, "val-gad/num_pairs": 1000.0, "val-gad/rouge_l": 0.1 + 0.001 * step}
        # It need not fall for sure, and may seem to rise.
        metrics |= {"val-gad/text_loss": 1.5, "val-gad/text_loss_change": rng.uniform(-0.1, 0.1)}
        metrics |= {"val-gad/text_loss_change_error": 0.06, "gad/texts_weight": 0.6}
        if rule is not None and step in ill:
            metrics |= SICK[rule](step)
        rows.append((step, metrics))
    return rows
