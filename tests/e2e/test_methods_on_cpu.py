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
"""The methods of docs/methods.md through main_ppo, each asked to end and resumed.

SODA; and GAD with persistent negatives, the reward of a group, a gate, and a discriminator that learns what passes.
"""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from main_ppo import Run, end_after, run_main_ppo
from tiny_model import build_all

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# Steps of SODA take a fifth of a second: many of them, so that the request to end comes before the last.
SODA_STEPS, GAD_STEPS = 30, 5
COMMON = ("trainer.save_freq=1", "data.train_max_samples=16", "data.seed=1", "trainer.total_epochs=9")
SODA = (
    f"trainer.total_training_steps={SODA_STEPS}",
    "gad.stage=soda",
    "gad.warmup_steps=1",
    "gad.soda.beta=0.5",
    "gad.warmup.actor_lr=3e-3",
    "gad.adversarial.actor_lr=1e-3",
    "actor_rollout_ref.actor.use_kl_loss=True",
)
CHECKS = Path(__file__).resolve().parents[2] / "examples" / "rewards" / "checks.py"
GAD = (
    f"trainer.total_training_steps={GAD_STEPS}",
    "gad=persistent",
    "gad.warmup_steps=2",
    "gad.discriminator_only_steps=1",
    "gad.replay.order=recency",
    f"gad.reward.group_function={CHECKS}:passed",
    "gad.reward.task_weight=1.0",
    "gad.reward.task_combination=gate",
    "gad.discriminator_updates.passing_only=True",
)


def begun_and_resumed(folder: Path, cut: int, *settings: str) -> tuple[Run, Run]:
    ask = end_after(cut, folder / "curves.jsonl")
    first = run_main_ppo(folder, "first", *COMMON, *settings, metrics_name="curves", while_running=ask, timeout_s=440)
    assert first.returncode == 0, first.output[-4000:]
    second = run_main_ppo(folder, "second", *COMMON, *settings, metrics_name="curves", timeout_s=440)
    assert second.returncode == 0, second.output[-4000:]
    return first, second


@pytest.fixture(scope="module")
def soda(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, Run]:
    folder = build_all(tmp_path_factory.mktemp("soda"))
    return folder, *begun_and_resumed(folder, 3, *SODA)


def test_soda_takes_a_snapshot_then_learns_texts_then_preferences(soda: tuple[Path, Run, Run]) -> None:
    folder, first, second = soda
    stages = [second.metrics[step]["gad/stage"] for step in range(1, SODA_STEPS + 1)]
    assert stages[:3] == [4, 4, 3] and set(stages[3:]) == {5}
    assert 3 <= max(first.metrics) < SODA_STEPS
    pairs = [json.loads(line) for line in (folder / "checkpoints" / "soda_pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == 16 and all(pair["rejected"][0]["content"] for pair in pairs)
    losses = [second.metrics[step]["gad/preference_loss"] for step in range(4, SODA_STEPS + 1)]
    # The first update begins at the reference, in bfloat16 or not.
    assert losses[0] == pytest.approx(math.log(2), abs=1e-3) and losses[-1] < losses[0]
    last = second.metrics[SODA_STEPS]
    assert last["gad/preference_margin"] > 0 and last["actor/grad_norm"] > 0 and last["gad/pairs"] == 8


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = build_all(tmp_path_factory.mktemp("gated"))
    for name in ("train", "val"):
        rows = pd.read_parquet(folder / f"{name}.parquet")
        letter = {"kind": "keywords:letter_frequency", "letter": "e", "let_frequency": 1, "let_relation": "at least"}
        rows["extra_info"] = [{"checks": json.dumps([letter])}] * len(rows)
        rows.to_parquet(folder / f"{name}.parquet")
    return begun_and_resumed(folder, 3, *GAD)


def test_persistent_negatives_a_gate_and_a_check(gated: tuple[Run, Run]) -> None:
    first, second = gated
    assert 3 <= max(first.metrics) < GAD_STEPS and sorted(second.metrics) == list(range(1, GAD_STEPS + 1))
    assert "disc/replay_share" not in second.metrics[1]
    for step in range(2, GAD_STEPS + 1):
        metrics = second.metrics[step]
        # As many groups train as without past ones; each group's pairs are those that passed.
        assert metrics["disc/replayed_groups"] == 4 and 0 < metrics["disc/replay_share"] < 1
        assert 0 <= metrics["disc/replay_accuracy_age_1" if step == 2 else "disc/replay_accuracy"] <= 1
    adversarial = [second.metrics[step] for step in range(3, GAD_STEPS + 1)]
    assert any(0 < metrics["gad/task_passing_rate"] < 1 for metrics in adversarial)
    assert all(metrics["gad/task_rewards_unknown"] == 0 for metrics in adversarial)
    assert all(math.isfinite(metrics["actor/grad_norm"]) for metrics in adversarial)
