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
"""All tools on two ranks; killed while a checkpoint is written; resumed: nothing is lost and nothing changes."""

import json
from pathlib import Path

import pandas as pd
import pytest
from main_ppo import Run, hook_environment, run_main_ppo
from tiny_model import build_all, build_other_model

pytestmark = pytest.mark.e2e

TOTAL_STEPS, WARMUP_STEPS, SAVE_EVERY, CRASH_STEP = 7, 3, 2, 4
SETTINGS = (
    f"trainer.total_training_steps={TOTAL_STEPS}",
    f"trainer.save_freq={SAVE_EVERY}",
    "trainer.max_actor_ckpt_to_keep=2",
    "trainer.n_gpus_per_node=2",
    "ray_kwargs.ray_init.num_gpus=2",
    f"gad.warmup_steps={WARMUP_STEPS}",
    "gad.discriminator_only_steps=1",
    "gad.warmup.actor_lr=3e-3",
    "gad.warmup.discriminator_lr=2e-3",
    # One candidate: the rollouts are greedy, so that runs can be compared.
    "actor_rollout_ref.rollout.top_k=1",
    # PPO: verl's critic beside the discriminator. It gives greedy rollouts an advantage, which GRPO does not.
    "algorithm.adv_estimator=gae",
    "critic.optim.lr=1e-3",
    # Another family and tokenizer than the student's (its path: _models).
    "gad.discriminator_head=fresh",
    "gad.discriminator_loss.temperature=1.5",
    "gad.discriminator_loss.label_smoothing=0.05",
    "gad.discriminator_loss.score_l2=0.01",
    "gad.discriminator_loss.score_centring=0.01",
    "gad.discriminator_loss.gradient_penalty=0.1",
    "gad.discriminator_loss.gradient_penalty_every=2",
    "gad.discriminator_updates.updates_per_step=2",
    "gad.discriminator_updates.accuracy_below=0.999",
    "gad.discriminator_updates.accuracy_memory=0.5",
    "gad.replay.capacity_steps=3",
    "gad.replay.fraction=0.5",
    "gad.reward.score_clip=8.0",
    "gad.reward.length_correction=regression",
    "gad.reward.whitening=running",
    "gad.reward.task_weight=0.5",
    "gad.reward.unfinished_penalty=0.1",
    "gad.reward.malformed_penalty=0.1",
    "gad.reward.sequence_weight=0.6",
    "gad.reward.phrase_weight=0.2",
    "gad.reward.token_weight=0.2",
    "gad.trust.held_out_fraction=0.25",
    "gad.trust.least_prompts=2",
    "gad.trust.confidence=0.0",
    "gad.trust.full_accuracy=1.0",
    "gad.trust.otherwise=supervised",
    "gad.supervised_weight=0.1",
    "gad.teachers.mode=all",
    "gad.teachers.schedule={a:[[0,1.0],[6,0.5]],b:1.0}",
    "gad.curriculum.mode=pool",
    "gad.curriculum.difficulty=margin",
    "gad.curriculum.start=0.5",
    "gad.curriculum.pacing_steps=5",
    "gad.reload_data=epoch",
    "gad.guardian.policy=adapt",
    "gad.guardian.window=2",
    "gad.guardian.count=1",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tuple(_build(tmp_path_factory.mktemp(name)) for name in ("whole", "killed"))


def _build(folder: Path) -> Path:
    """Model and data, with two teachers and a verifiable reward, a discriminator and a critic.

    The critic is a value model beside the tiny student: verl draws the head of a fresh critic anew in each launch.
    """
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    build_all(folder)
    build_other_model(folder / "other")
    for name in ("train", "val"):
        rows = pd.read_parquet(folder / f"{name}.parquet")
        rows["teacher_response"] = [[text, f"{text}."] for text in rows["teacher_response"]]
        rows["teacher"] = [["a", "b"]] * len(rows)
        rows["reward_model"] = [{"style": "rule", "ground_truth": texts[0]} for texts in rows["teacher_response"]]
        rows.to_parquet(folder / f"{name}.parquet")
    (folder / "task.py").write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    return float(len(set(solution_str) & set(ground_truth))) / 10\n",
        encoding="utf-8",
    )
    torch.manual_seed(0)
    AutoModelForTokenClassification.from_pretrained(folder / "model", num_labels=1).save_pretrained(folder / "critic")
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "critic")
    return folder


def _models(folder: Path) -> tuple[str, ...]:
    return (
        f"critic.model.path={folder / 'critic'}",
        f"discriminator.model.path={folder / 'other'}",
        f"reward.custom_reward_function.path={folder / 'task.py'}",
    )


@pytest.fixture(scope="module")
def whole(folders: tuple[Path, Path]) -> Run:
    run = run_main_ppo(folders[0], "whole", *SETTINGS, *_models(folders[0]), "trainer.test_freq=7", timeout_s=540)
    assert run.returncode == 0, run.output[-4000:]
    return run


@pytest.fixture(scope="module")
def killed(folders: tuple[Path, Path]) -> Run:
    env = hook_environment("crash_hook", GAD_TEST_CRASH_STEP=str(CRASH_STEP))
    return run_main_ppo(
        folders[1], "killed", *SETTINGS, *_models(folders[1]), env=env, metrics_name="curves", timeout_s=540
    )


@pytest.fixture(scope="module")
def resumed(folders: tuple[Path, Path], killed: Run) -> Run:
    assert (folders[1] / "checkpoints" / f"global_step_{CRASH_STEP}" / "discriminator").is_dir()
    run = run_main_ppo(folders[1], "resumed", *SETTINGS, *_models(folders[1]), metrics_name="curves", timeout_s=540)
    assert run.returncode == 0, run.output[-4000:]
    return run


def test_stages_in_one_launch(whole: Run) -> None:
    metrics = whole.metrics
    assert [metrics[step]["gad/stage"] for step in range(1, TOTAL_STEPS + 1)] == [0, 1, 1, 2, 2, 2, 2]
    assert "actor/loss" not in metrics[1] and "actor/pg_loss" not in metrics[2] and "actor/pg_loss" in metrics[4]
    assert metrics[2]["actor/lr"] == pytest.approx(3e-3)
    assert metrics[3]["disc/lr"] == pytest.approx(2e-3) and metrics[4]["disc/lr"] == pytest.approx(1e-3)
    # Learning shows within these few steps.
    assert metrics[3]["actor/loss"] < metrics[2]["actor/loss"]
    assert metrics[TOTAL_STEPS]["disc/loss"] < metrics[1]["disc/loss"]


def test_scores_and_texts_in_one_update(whole: Run) -> None:
    knowledge = []
    for step in range(WARMUP_STEPS + 1, TOTAL_STEPS + 1):
        found = whole.metrics[step]
        assert found["gad/policy_weight"] == found["gad/trust_factor"]
        assert found["gad/texts_weight"] == pytest.approx(1.1 - found["gad/policy_weight"])
        if found["gad/policy_weight"] > 0:
            assert found["actor/text_loss"] > 0 and "actor/pg_loss" in found
        knowledge.append(found["gad/policy_weight"])
    assert any(one > 0 for one in knowledge), knowledge


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


# Seconds and memory.
NOT_COMPARED = ("_s", "_gb", "mfu")


def test_resumed_run_equals_the_whole_one(whole: Run, resumed: Run) -> None:
    """Everything that is decided or learned, by its metrics."""
    for step in range(SAVE_EVERY + 1, TOTAL_STEPS + 1):
        names = {
            name
            for run in (whole, resumed)
            for name in run.metrics[step]
            if name.startswith(("disc/", "gad/", "guardian/", "actor/", "critic/")) and not name.endswith(NOT_COMPARED)
        }
        assert len(names) > 60
        for name in sorted(names):
            expected, found = whole.metrics[step].get(name), resumed.metrics[step].get(name)
            assert (expected is None) == (found is None), (step, name)
            assert found == pytest.approx(expected, abs=1e-6, rel=1e-5), (step, name)


def test_every_tool_is_at_work(whole: Run) -> None:
    first, last = whole.metrics[1], whole.metrics[TOTAL_STEPS]
    assert first["disc/updates"] == 1 and "disc/replayed_groups" not in first
    adversarial = [whole.metrics[step] for step in range(WARMUP_STEPS + 1, TOTAL_STEPS + 1)]
    assert all(metrics["disc/updates"] in (0, 2) for metrics in adversarial)
    assert any(metrics["disc/updates"] == 2 and metrics["disc/replayed_groups"] > 0 for metrics in adversarial)
    for metrics in adversarial:
        assert 0 <= metrics["gad/trust_factor"] <= 1 and metrics["gad/trust_prompts"] >= 2
        assert metrics["gad/task_reward_mean"] > 0 and "gad/reward_length_slope" in metrics
        assert 0 <= metrics["gad/token_credit_missing"] < 1 and 0 <= metrics["gad/malformed_rate"] <= 1
    # What the guardian decides by a step's metrics holds in the next step.
    for before, metrics in zip(adversarial, adversarial[1:], strict=False):
        knowledge = metrics["gad/trust_factor"]
        rate = 1e-3**knowledge * 3e-3 ** (1 - knowledge) * before["guardian/actor_lr_factor"]
        assert metrics["actor/lr"] == pytest.approx(rate, rel=1e-5)
    assert any(metrics["guardian/actor_lr_factor"] < 1 for metrics in adversarial)
    assert any(metrics["gad/trust_factor"] > 0 for metrics in adversarial)
    assert first["gad/curriculum_fraction"] < last["gad/curriculum_fraction"] == 1.0
    assert last["gad/teacher_texts"] == 2 and last["gad/data_passes"] >= 1
    # Rewards lie on more than the last token: critic's returns are no step function of the score alone.
    assert last["critic/rewards/mean"] != pytest.approx(last["disc/student_score_mean"], abs=1e-3)


def test_the_record_tells_the_run_and_is_whole_after_a_resume(
    folders: tuple[Path, Path], whole: Run, resumed: Run
) -> None:
    from gad_verl.record import read_events, read_run, read_samples, read_scores

    first, second = (folder / "checkpoints" for folder in folders)
    assert [line["step"] for line in read_scores(first)] == list(range(1, TOTAL_STEPS + 1))
    for one, other in zip(read_scores(first), read_scores(second), strict=True):
        assert one["phase"] == other["phase"]
        assert one["student"] == pytest.approx(other["student"], abs=1e-5)
    told = [
        [(line["step"], line["source"], line["rule"]) for line in read_events(folder)] for folder in (first, second)
    ]
    assert told[0] == told[1]
    assert {source for _, source, _ in told[0]} >= {"schedule", "curriculum", "trust", "teacher"}
    assert [step for step, source, _ in told[0] if source == "schedule"] == [1, WARMUP_STEPS + 1]
    assert read_samples(first)[0]["students"] and len(read_run(second)["started"]) == 2


def test_only_the_newest_checkpoints_stay_and_each_is_whole(folders: tuple[Path, Path], whole: Run) -> None:
    root = folders[0] / "checkpoints"
    kept = sorted(path.name for path in root.iterdir() if path.name.startswith("global_step_"))
    assert kept == ["global_step_6", "global_step_7"]
    assert (root / "latest_checkpointed_iteration.txt").read_text() == "7"
    for name in kept:
        assert {"actor", "critic", "discriminator", "data.pt", "gad_state.json", "gad_parts.pt"} <= {
            path.name for path in (root / name).iterdir()
        }
        state = json.loads((root / name / "gad_state.json").read_text())
        assert state["stage"] == "adversarial" and (root / state["kl_reference"]).is_dir()
        assert state["held_out"] == {"fraction": 0.25, "seed": 0}
