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
"""Other layouts of the same training: real vLLM, two ranks, FSDP2, a pool for the discriminator, another estimator."""

import shutil
from pathlib import Path

import pytest
from main_ppo import Run, run_main_ppo
from tiny_model import CHAT_TEMPLATE, build_all

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_all(tmp_path_factory.mktemp("layouts"))


@pytest.fixture(scope="module")
def vllm_two_ranks(folder: Path) -> Run:
    """Student on two FSDP2 ranks with a vLLM engine each, GRPO, fewer rollouts in the warmup.

    The discriminator (one layer, LoRA) has a pool of its own, where it overlaps with the student's work,
    and micro-batches that hold a sequence but no group.
    """
    run = run_main_ppo(
        folder,
        "vllm",
        "actor_rollout_ref.rollout.name=vllm",
        "actor_rollout_ref.actor.strategy=fsdp2",
        "actor_rollout_ref.ref.strategy=fsdp2",
        "discriminator.strategy=fsdp2",
        "algorithm.adv_estimator=grpo",
        "trainer.n_gpus_per_node=2",
        "ray_kwargs.ray_init.num_gpus=3",
        "gad.discriminator_n_gpus_per_node=1",
        "discriminator.ppo_max_token_len_per_gpu=96",
        "gad.warmup_rollout_n=1",
        "gad.discriminator_num_layers=1",
        "gad.supervised_weight=0.1",
        "discriminator.model.lora_rank=4",
        "gad.warmup_steps=2",
        "gad.discriminator_only_steps=1",
        "trainer.total_training_steps=4",
        timeout_s=540,
    )
    assert run.returncode == 0, run.output[-4000:]
    return run


def test_vllm_rollouts_come_from_the_student(vllm_two_ranks: Run) -> None:
    """The log-probabilities of vLLM and of the student agree after every weight transfer."""
    for step in (3, 4):
        assert vllm_two_ranks.metrics[step]["training/rollout_probs_diff_max"] < 1e-4


def test_reference_is_the_warmed_up_student_on_two_ranks(vllm_two_ranks: Run) -> None:
    metrics = vllm_two_ranks.metrics
    assert abs(metrics[3]["actor/kl_loss"]) < 1e-6
    # The student moves on, the reference stays.
    assert metrics[4]["actor/kl_loss"] > 1e-5


def test_texts_join_the_updates_of_both_ranks(vllm_two_ranks: Run) -> None:
    for step in (3, 4):
        found = vllm_two_ranks.metrics[step]
        assert (found["gad/policy_weight"], found["gad/texts_weight"]) == (1.0, 0.1)
        assert found["actor/text_loss"] > 0 and found["gad/supervised_tokens"] > 0 and "actor/pg_loss" in found


def test_groups_have_a_spread_when_sampled(vllm_two_ranks: Run) -> None:
    assert vllm_two_ranks.metrics[4]["disc/no_spread_fraction"] < 0.5
    assert vllm_two_ranks.metrics[4]["critic/advantages/max"] > 0 > vllm_two_ranks.metrics[4]["critic/advantages/min"]


def test_groups_that_fit_no_micro_batch_are_read_in_two_passes(vllm_two_ranks: Run) -> None:
    for step in (1, 2, 3, 4):
        assert vllm_two_ranks.metrics[step]["disc/passes"] == 2
        assert 1 <= vllm_two_ranks.metrics[step]["disc/imbalance"] < 1.5


def test_the_warmup_generates_fewer_rollouts(vllm_two_ranks: Run) -> None:
    pairs = [vllm_two_ranks.metrics[step]["disc/num_pairs"] for step in (1, 2, 3, 4)]
    assert pairs[0] == pairs[1] > 0 and pairs[2] == pairs[3] == 4 * pairs[0]


def test_the_discriminator_works_beside_the_student(vllm_two_ranks: Run) -> None:
    """Only where it overlaps are scores awaited; the rewards of the step are those scores."""
    for step in (1, 2, 3, 4):
        metrics = vllm_two_ranks.metrics[step]
        assert metrics["disc/wait_scores_s"] >= 0 and metrics["disc/busy_s"] > 0 and metrics["disc/lr"] > 0
        assert metrics["critic/score/mean"] == pytest.approx(metrics["disc/student_score_mean"], abs=1e-4)


def test_a_discriminator_with_lora_learns(vllm_two_ranks: Run) -> None:
    metrics = vllm_two_ranks.metrics
    assert metrics[4]["disc/loss"] < metrics[1]["disc/loss"] and metrics[4]["disc/grad_norm"] > 0


BUDGET = 16


@pytest.fixture(scope="module")
def thinking_model(folder: Path) -> Path:
    """The same weights; the template opens thoughts, which a student that knows nothing never closes."""
    from transformers import AutoTokenizer

    path = shutil.copytree(folder / "model", folder / "thinking_model")
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = CHAT_TEMPLATE.replace("assistant\n", "assistant\n<think>\n")
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def lora(folder: Path, thinking_model: Path) -> Run:
    """LoRA for both models through all phases; the rollout gets adapters. Thoughts are hidden and have a budget."""
    run = run_main_ppo(
        folder,
        "lora",
        f"actor_rollout_ref.model.path={thinking_model}",
        "gad.thinking.mode=hidden",
        f"gad.thinking.budget={BUDGET}",
        # Thoughts, the mark that ends them, and the answer.
        "data.max_response_length=48",
        "gad.max_answer_length=24",
        "actor_rollout_ref.model.lora_rank=4",
        "discriminator.model.lora_rank=4",
        "actor_rollout_ref.actor.optim.lr=1e-2",
        "discriminator.optim.lr=1e-2",
        "gad.supervised_weight=0.5",
        "gad.warmup_steps=2",
        "gad.discriminator_only_steps=1",
        "trainer.total_training_steps=4",
        "trainer.save_freq=4",
        f"trainer.default_local_dir={folder / 'lora'}",
    )
    assert run.returncode == 0, run.output[-4000:]
    return run


def test_lora_rollouts_come_from_the_student(lora: Run) -> None:
    for step in (3, 4):
        assert lora.metrics[step]["training/rollout_probs_diff_max"] < 1e-4


def test_thoughts_end_at_their_budget_and_answers_are_read(lora: Run) -> None:
    """But for the few that the student ends by itself, within its thoughts or before the first of them."""
    forced = len("\n</think>\n")
    for step in (1, 2, 3, 4):
        metrics = lora.metrics[step]
        assert metrics["gad/thinking_rate"] > 0.9 and metrics["gad/failed_rollouts"] == 0.0
        assert 0.5 < metrics["gad/thinking_closed_rate"] <= 1.0
        assert BUDGET / 2 < metrics["gad/thinking_tokens"] <= BUDGET + forced
        assert 0 < metrics["gad/student_length_mean"] <= 24


def test_the_exported_discriminator_opens_no_thoughts(folder: Path, lora: Run) -> None:
    from gad_verl.tools.export.reward_model import scoring_builder
    from gad_verl.tools.export.weights import export_part

    exported = export_part(folder / "lora" / "global_step_4", "discriminator", folder / "lora_scores")
    rendered = scoring_builder(exported).render([{"role": "user", "content": "red"}])
    assert rendered.endswith("assistant\n")


def test_lora_reference_is_the_warmed_up_student(lora: Run) -> None:
    """Not the base model, which verl takes under LoRA."""
    assert abs(lora.metrics[3]["actor/kl_loss"]) < 1e-6
    assert lora.metrics[4]["actor/kl_loss"] > 1e-5


def test_under_lora_texts_join_an_update(lora: Run) -> None:
    """Their loss falls from the warmup's last update on: the adapter learns them."""
    assert lora.metrics[4]["actor/text_loss"] < lora.metrics[3]["actor/text_loss"] < lora.metrics[2]["actor/loss"] + 0.1


def test_lora_checkpoint_exports_merged(folder: Path, lora: Run) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    from gad_verl.tools.export.weights import export_part

    start = AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
    for part, auto_class in (("student", AutoModelForCausalLM), ("discriminator", AutoModelForTokenClassification)):
        exported = export_part(folder / "lora" / "global_step_4", part, folder / "lora_exported" / part)
        state = auto_class.from_pretrained(exported).state_dict()
        body = {name for name in state if name.startswith("model.")}
        assert body == {name for name in start if name.startswith("model.")}
        # Linear layers of the blocks took the adapter, nothing else of the body changed.
        for name in body:
            assert torch.equal(state[name], start[name]) != name.endswith("proj.weight"), name


@pytest.fixture(scope="module")
def seqkd(folder: Path) -> Run:
    """Cross-entropy alone, saved and exported."""
    run = run_main_ppo(
        folder,
        "seqkd",
        "gad.stage=seqkd",
        "trainer.total_training_steps=4",
        "trainer.save_freq=4",
        "trainer.test_freq=4",
        f"trainer.default_local_dir={folder / 'seqkd'}",
        "actor_rollout_ref.actor.use_kl_loss=False",
        "data.train_batch_size=16",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    )
    assert run.returncode == 0, run.output[-4000:]
    return run


def test_seqkd_trains_without_a_discriminator(seqkd: Run) -> None:
    metrics = seqkd.metrics
    assert all(metrics[step]["gad/stage"] == 3 for step in range(1, 5))
    assert metrics[4]["actor/loss"] < metrics[1]["actor/loss"]
    assert not any(name.startswith("disc/") for name in metrics[4])
    assert "val-gad/rouge_l" in metrics[4] and "val-gad/accuracy" not in metrics[4]


def test_seqkd_generates_nothing_but_for_validation(seqkd: Run) -> None:
    assert all("timing_s/gen" not in seqkd.metrics[step] for step in range(1, 5))


def test_checkpoint_exports_as_it_was_trained(folder: Path, seqkd: Run) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from gad_verl.tools.export.weights import export_part

    checkpoint = folder / "seqkd" / "global_step_4"
    exported = export_part(checkpoint, "student", folder / "exported")
    model = AutoModelForCausalLM.from_pretrained(exported)
    trained = torch.load(checkpoint / "actor" / "model_world_size_1_rank_0.pt", weights_only=False)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, trained[name]), name
    start = AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
    assert any(not torch.equal(start[name], trained[name]) for name in trained)
