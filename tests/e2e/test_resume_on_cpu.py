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
"""Warmup, switch, GAD; killed while a checkpoint is written; resumed: nothing is lost and nothing changes."""

import json
import os
from pathlib import Path

import pytest
from main_ppo import Run, run_main_ppo
from tiny_model import build_all

pytestmark = pytest.mark.e2e

TOTAL_STEPS, WARMUP_STEPS, SAVE_EVERY, CRASH_STEP = 7, 3, 2, 4
SETTINGS = (
    f"trainer.total_training_steps={TOTAL_STEPS}",
    f"trainer.save_freq={SAVE_EVERY}",
    "trainer.max_actor_ckpt_to_keep=2",
    f"gad.warmup_steps={WARMUP_STEPS}",
    "gad.discriminator_only_steps=1",
    "gad.warmup.actor_lr=3e-3",
    "gad.warmup.discriminator_lr=2e-3",
    # One candidate: the rollouts are greedy, so that runs can be compared.
    "actor_rollout_ref.rollout.top_k=1",
    # PPO: verl's critic beside the discriminator. It gives greedy rollouts an advantage, which GRPO does not.
    "algorithm.adv_estimator=gae",
    "critic.optim.lr=1e-3",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tuple(_build_with_critic(tmp_path_factory.mktemp(name)) for name in ("whole", "killed"))


def _build_with_critic(folder: Path) -> Path:
    """A value model beside the tiny student: verl draws the head of a fresh critic anew in each launch."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    build_all(folder)
    torch.manual_seed(0)
    AutoModelForTokenClassification.from_pretrained(folder / "model", num_labels=1).save_pretrained(folder / "critic")
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "critic")
    return folder


def _critic(folder: Path) -> tuple[str]:
    return (f"critic.model.path={folder / 'critic'}",)


@pytest.fixture(scope="module")
def whole(folders: tuple[Path, Path]) -> Run:
    run = run_main_ppo(folders[0], "whole", *SETTINGS, *_critic(folders[0]), "trainer.test_freq=7")
    assert run.returncode == 0, run.output[-4000:]
    return run


@pytest.fixture(scope="module")
def killed(folders: tuple[Path, Path]) -> Run:
    folders_of_modules = [str(Path(__file__).parents[1] / "tools"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    env = {
        "VERL_USE_EXTERNAL_MODULES": "crash_hook",
        "PYTHONPATH": os.pathsep.join(filter(None, folders_of_modules)),
        "GAD_TEST_CRASH_STEP": str(CRASH_STEP),
    }
    return run_main_ppo(folders[1], "killed", *SETTINGS, *_critic(folders[1]), env=env, metrics_name="curves")


@pytest.fixture(scope="module")
def resumed(folders: tuple[Path, Path], killed: Run) -> Run:
    assert (folders[1] / "checkpoints" / f"global_step_{CRASH_STEP}" / "discriminator").is_dir()
    run = run_main_ppo(folders[1], "resumed", *SETTINGS, *_critic(folders[1]), metrics_name="curves")
    assert run.returncode == 0, run.output[-4000:]
    return run


def test_stages_in_one_launch(whole: Run) -> None:
    metrics = whole.metrics
    assert [metrics[step]["gad/stage"] for step in range(1, TOTAL_STEPS + 1)] == [0, 1, 1, 2, 2, 2, 2]
    assert "actor/loss" not in metrics[1] and "actor/pg_loss" not in metrics[2] and "actor/pg_loss" in metrics[4]
    assert metrics[2]["actor/lr"] == pytest.approx(3e-3) and metrics[4]["actor/lr"] == pytest.approx(1e-3)
    assert metrics[3]["disc/lr"] == pytest.approx(2e-3) and metrics[4]["disc/lr"] == pytest.approx(1e-3)
    # Learning shows within these few steps.
    assert metrics[3]["actor/loss"] < metrics[2]["actor/loss"]
    assert metrics[TOTAL_STEPS]["disc/loss"] < metrics[1]["disc/loss"]


def test_metrics_that_users_watch_are_there(whole: Run) -> None:
    first, last = whole.metrics[1], whole.metrics[TOTAL_STEPS]
    for name in (
        "disc/loss disc/accuracy disc/margin_mean disc/margin_std disc/saturated_fraction disc/no_spread_fraction "
        "disc/grad_norm disc/skipped_steps disc/teacher_score_mean disc/student_score_std gad/length_ratio "
        "gad/score_length_correlation gad/student_finished_rate gad/teacher_cut_texts timing_s/reward"
    ).split():
        assert name in first, name
    for name in ("accuracy", "margin_mean", "rouge_l", "length_ratio", "student_length_mean"):
        assert f"val-gad/{name}" in last, name
    # Greedy rollouts of one prompt are equal: no group has a spread.
    assert last["disc/no_spread_fraction"] == 1.0


def test_the_critic_trains_beside_the_discriminator(whole: Run) -> None:
    metrics = whole.metrics
    for step in range(1, TOTAL_STEPS + 1):
        adversarial = step > WARMUP_STEPS
        for name in ("critic/vf_loss", "critic/values/mean", "critic/returns/mean", "critic/vf_explained_var"):
            assert (name in metrics[step]) == adversarial, (step, name)
        assert "disc/loss" in metrics[step]
        # The discriminator's score is the reward of the last token.
        assert metrics[step]["critic/rewards/mean"] == pytest.approx(metrics[step]["disc/student_score_mean"], abs=1e-6)
    assert metrics[TOTAL_STEPS]["critic/vf_loss"] > 0 and metrics[TOTAL_STEPS]["critic/grad_norm"] > 0
    assert metrics[WARMUP_STEPS + 1]["critic/vpred_mean"] != metrics[TOTAL_STEPS]["critic/vpred_mean"]
    # Advantages are not all zero: the student is trained by them.
    assert metrics[TOTAL_STEPS]["critic/advantages/max"] > 0 > metrics[TOTAL_STEPS]["critic/advantages/min"]


def test_first_adversarial_step_has_no_kl(whole: Run, resumed: Run) -> None:
    for run in (whole, resumed):
        assert abs(run.metrics[WARMUP_STEPS + 1]["actor/kl_loss"]) < 1e-6


def test_killed_while_saving_resumes_from_the_one_before(killed: Run, resumed: Run) -> None:
    assert killed.returncode != 0
    assert max(killed.metrics) == CRASH_STEP - 1
    assert f"step:{SAVE_EVERY + 1} -" in resumed.output and f"step:{SAVE_EVERY} -" not in resumed.output


def test_the_curves_of_a_resumed_run_are_whole(whole: Run, resumed: Run) -> None:
    """verl's file logger begins an empty file; what was logged up to the checkpoint comes back."""
    assert set(resumed.metrics) >= set(range(1, TOTAL_STEPS + 1))
    assert resumed.metrics[1]["disc/loss"] == pytest.approx(whole.metrics[1]["disc/loss"], abs=1e-6)


def test_resumed_run_equals_the_whole_one(whole: Run, resumed: Run) -> None:
    for step in range(SAVE_EVERY + 1, TOTAL_STEPS + 1):
        for name in (
            "disc/loss gad/stage disc/student_score_mean disc/lr actor/lr actor/loss critic/vf_loss critic/lr"
        ).split():
            expected, found = whole.metrics[step].get(name), resumed.metrics[step].get(name)
            assert (expected is None) == (found is None), (step, name)
            if expected is not None:
                assert found == pytest.approx(expected, abs=1e-6), (step, name)


def test_only_the_newest_checkpoints_stay_and_each_is_whole(folders: tuple[Path, Path], whole: Run) -> None:
    root = folders[0] / "checkpoints"
    kept = sorted(path.name for path in root.iterdir() if path.name.startswith("global_step_"))
    assert kept == ["global_step_6", "global_step_7"]
    assert (root / "latest_checkpointed_iteration.txt").read_text() == "7"
    for name in kept:
        assert {"actor", "critic", "discriminator", "data.pt", "gad_state.json"} <= {
            path.name for path in (root / name).iterdir()
        }
        state = json.loads((root / name / "gad_state.json").read_text())
        assert state["stage"] == "adversarial" and (root / state["kl_reference"]).is_dir()
