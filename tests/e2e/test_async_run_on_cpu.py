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
"""The asynchronous modes through main_ppo: parked requests, rollout and discriminator with devices of their own, and a
run that is killed and goes on without losing a prompt.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from main_ppo import Run, read_metrics, run_main_ppo
from tiny_model import build_all

pytestmark = pytest.mark.e2e

PROMPTS, N, ROWS = 8, 4, 48
SHORT = ("gad.discriminator_only_steps=1", "gad.warmup_steps=2", "gad.replay.capacity_steps=2")
SEPARATE = (
    "+gad_mode=async",
    "trainer.v1.trainer_mode=gad_separate_async",
    "trainer.v1.separate_async.parameter_sync_step=2",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.nnodes=1",
    "actor_rollout_ref.rollout.n_gpus_per_node=1",
)


def check_metrics(run: Run, steps: int) -> None:
    """What holds in every asynchronous run."""
    assert run.returncode == 0, run.output[-4000:]
    assert sorted(step for step in run.metrics if step) == list(range(1, steps + 1))
    for step in range(1, steps + 1):
        metrics = run.metrics[step]
        assert metrics["disc/num_pairs"] == PROMPTS * N, "groups are whole"
        assert metrics["disc/fresh_pairs"] + metrics["disc/old_pairs"] == PROMPTS * N
        assert metrics["gad/prompts"] == PROMPTS and metrics["gad/failed_rollouts"] == 0
    assert any(run.metrics[step]["gad/rollout_age_max"] > 0 for step in range(2, steps + 1))
    adversarial = [run.metrics[step] for step in range(3, steps + 1)]
    assert all(metrics["gad/stage"] == 2 for metrics in adversarial)
    assert all(0 < metrics["rollout_corr/rollout_is_mean"] <= 2 for metrics in adversarial)


# ------------------------------ the rollout has devices of its own ------------------------------


@pytest.fixture(scope="module")
def separate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """No rollout on the training's devices; the discriminator has a pool of its own."""
    folder = build_all(tmp_path_factory.mktemp("separate"))
    overrides = (
        *SHORT,
        *SEPARATE,
        "actor_rollout_ref.hybrid_engine=False",
        "gad.discriminator_n_gpus_per_node=1",
        "ray_kwargs.ray_init.num_gpus=3",
        "trainer.total_training_steps=4",
        "trainer.test_freq=4",
        "trainer.save_freq=4",
    )
    return folder, run_main_ppo(folder, "separate", *overrides, timeout_s=540)


def test_a_step_of_two_updates_is_one_step(separate: tuple[Path, Run]) -> None:
    _, run = separate
    check_metrics(run, steps=4)
    assert [run.metrics[step]["disc/updates"] for step in range(1, 5)] == [2.0] * 4
    # Two steps of groups are remembered, half of a batch is drawn from them.
    assert run.metrics[4]["disc/replayed_groups"] == PROMPTS
    assert "val-gad/accuracy" in run.metrics[4]


def test_its_checkpoint_has_the_prompts_on_their_way(separate: tuple[Path, Run]) -> None:
    folder, _ = separate
    step = folder / "checkpoints" / "global_step_4"
    state = json.loads((step / "gad_state.json").read_text(encoding="utf-8"))
    assert state["has_transfer_queue"] and state["kl_reference"] == "kl_reference_step_2"
    listed = json.loads((step / "gad_complete").read_text(encoding="utf-8"))["files"]
    assert any(name.startswith("transfer_queue/") for name in listed)


# ------------------------------ in turns, with parked requests ------------------------------


@pytest.fixture(scope="module", params=["hf", "vllm"])
def colocated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Small batches of the server: most requests are parked at least once."""
    folder = build_all(tmp_path_factory.mktemp("colocated"))
    overrides = (
        *SHORT,
        "+gad_mode=async",
        f"actor_rollout_ref.rollout.name={request.param}",
        "data.max_response_length=32",
        "actor_rollout_ref.rollout.max_num_seqs=8",
        "gad.trust.held_out_fraction=0.3",
        "gad.trust.least_prompts=2",
        "trainer.total_training_steps=6",
        "trainer.test_freq=3",
    )
    return run_main_ppo(folder, "colocated", *overrides, timeout_s=840)


@pytest.mark.slow
def test_responses_are_written_by_several_students(colocated: Run) -> None:
    check_metrics(colocated, steps=6)
    spans = [colocated.metrics[step]["training/off_policy/trajectory_spans/max"] for step in range(1, 7)]
    assert max(spans) > 1, spans
    assert any(colocated.metrics[step]["gad/mixed_version_groups"] > 0 for step in range(2, 7))
    assert {"val-gad/accuracy"} <= colocated.metrics[3].keys() & colocated.metrics[6].keys()
    for metrics in colocated.metrics.values():
        if metrics.get("gad/trust_old_pairs"):
            assert 0 <= metrics["gad/trust_old_accuracy"] <= 1


# ------------------------------ killed, and resumed ------------------------------


def trained_prompts(folder: Path, steps: range) -> Counter[str]:
    """How often each prompt of the data is in the batches of some steps, as verl dumped them."""
    found: Counter[str] = Counter()
    for step in steps:
        lines = (folder / "dump" / f"{step}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        # One line a response.
        found.update({row["uid"].split("_")[0]: row["input"] for row in rows}.values())
    return found


def kill_in_step(step: int, metrics: Path):
    """SIGKILL to all processes of a run once the step before is logged."""

    def watch(process: subprocess.Popen, log: Path) -> None:
        def kill() -> None:
            while process.poll() is None and step - 1 not in read_metrics(metrics):
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()

    return watch


@pytest.mark.slow
def test_no_prompt_is_lost_and_none_trained_twice_over_a_kill(tmp_path: Path) -> None:
    folder = build_all(tmp_path)
    rows = pd.read_parquet(folder / "train.parquet")
    prompts = [prompt[-1]["content"] for prompt in rows["prompt"]]
    assert len(set(prompts)) == len(prompts) == ROWS
    overrides = (
        *SHORT,
        *SEPARATE,
        "ray_kwargs.ray_init.num_gpus=2",
        "gad.warmup_rollout_n=2",
        "gad.replay.capacity_steps=0",
        "trainer.total_training_steps=5",
        "trainer.save_freq=2",
        f"trainer.rollout_data_dir={folder / 'dump'}",
    )
    kill = kill_in_step(4, folder / "first.jsonl")
    killed = run_main_ppo(folder, "first", *overrides, timeout_s=840, while_running=kill)
    assert killed.returncode == -signal.SIGKILL
    before = trained_prompts(folder, range(1, 3))
    resumed = run_main_ppo(folder, "second", *overrides, timeout_s=840)
    assert resumed.returncode == 0, resumed.output[-4000:]
    total = before + trained_prompts(folder, range(3, 6))
    # A pass is six steps, and at the end of five the last prompts of it are on their way.
    assert sum(total.values()) == 5 * PROMPTS
    assert max(total.values()) == 1, "a prompt was trained twice in a pass"
    # When it was killed, three batches had been asked for (in the order of the data) and two trained.
    lost = [prompt for prompt in prompts[: 3 * PROMPTS] if not any(prompt in text for text in total)]
    assert lost == [], "a prompt that was on its way was lost"
    # At the switch of the stages every prompt was asked for the rollouts of its step.
    assert all(metrics["gad/failed_rollouts"] == 0 for step, metrics in resumed.metrics.items() if step)
