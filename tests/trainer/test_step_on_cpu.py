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
"""The step of GAD in whole runs without Ray (tests/tools/fake_run.py): who gets which rows, texts, rates, rewards."""

import itertools
import json
import logging
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from fake_run import FakeRun, random_answer, random_score
from omegaconf import DictConfig, open_dict
from verl.utils import tensordict_utils as tu

from gad_verl.core.trust import is_held_out
from gad_verl.data.schema import chat_id
from gad_verl.discriminator.groups import SequenceGroup
from gad_verl.errors import GadStalledError
from gad_verl.trainer.objective import Objective

STEPS, ONLY, WARMUP = 6, 1, 3
PROMPTS, N = 8, 4


@pytest.fixture
def config(tiny_config: DictConfig) -> DictConfig:
    """Six steps of 8 prompts and 4 rollouts: one for the discriminator alone, two of warmup, three adversarial."""
    tiny_config.trainer.total_training_steps, tiny_config.trainer.total_epochs = STEPS, 10
    tiny_config.trainer.val_before_train = False
    tiny_config.trainer.test_freq = tiny_config.trainer.save_freq = -1
    tiny_config.gad.discriminator_only_steps, tiny_config.gad.warmup_steps = ONLY, WARMUP
    tiny_config.gad.warmup.actor_lr, tiny_config.gad.warmup.discriminator_lr = 3e-4, 5e-4
    tiny_config.gad.adversarial.actor_lr, tiny_config.gad.adversarial.discriminator_lr = 1e-4, 2e-4
    return tiny_config


@pytest.fixture
def start(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRun]:
    """A run of the configuration with some of ``gad`` set: ``start(**{"trust.held_out_fraction": 0.5})``."""

    def started(whole: bool = True, answer: Any = random_answer, score: Any = random_score, **gad: Any) -> FakeRun:
        set_gad(config, gad)
        run = FakeRun(config, monkeypatch, answer, score)
        return run.fit() if whole else run

    return started


def set_gad(config: DictConfig, values: dict[str, Any]) -> None:
    for name, value in values.items():
        *sections, key = name.split(".")
        node = config.gad
        with open_dict(config):
            for section in sections:
                node = node[section]
            node[key] = value


def rows_of(config: DictConfig) -> pd.DataFrame:
    return _read(str(config.data.train_files))


@cache
def _read(path: str) -> pd.DataFrame:
    return pd.read_parquet(path)


def text_ids(run: FakeRun, text: str, finished: bool = True) -> list[int]:
    tokenizer = run.trainer.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id] if finished else ids


def prompt_ids(run: FakeRun, index: int) -> list[int]:
    return _prompt_ids(run.trainer.tokenizer, str(run.config.data.train_files), index)


@cache
def _prompt_ids(tokenizer: Any, path: str, index: int) -> list[int]:
    messages = list(_read(path)["prompt"][index])
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def index_of(run: FakeRun, group: SequenceGroup) -> int:
    """The row of the data whose prompt a group begins with."""
    prompt = group.rows(len(group.teacher_ids))[0][: group.prompt_length]
    found = [index for index in range(len(rows_of(run.config))) if prompt == prompt_ids(run, index)]
    assert len(found) == 1
    return found[0]


def sequence_rewards(rows: list[dict[str, Any]]) -> dict[tuple[int, tuple[int, ...]], float]:
    """Sum of the rewards of each trajectory, by data row and text of the response."""
    return {(int(row["index"]), tuple(row["responses"].tolist())): row["rm_scores"].sum().item() for row in rows}


# ------------------------------ phases ------------------------------


def test_the_phases_call_who_they_are_to_train(start: Callable[..., FakeRun]) -> None:
    run = start()
    names = [name for name, _ in run.student.calls if name.endswith(("update", "log_prob"))]
    adversarial = ["compute_log_prob", "compute_ref_log_prob", "policy_update"]
    assert names == ["supervised_update"] * (WARMUP - ONLY) + adversarial * (STEPS - WARMUP)
    assert len(run.discriminator.named("update")) == STEPS and not run.discriminator.named("score")
    assert [run.metrics[step]["gad/stage"] for step in range(1, STEPS + 1)] == [0, 1, 1, 2, 2, 2]
    # The rollout sleeps while models are trained, and gets the new weights after each step.
    assert run.replicas == ["awake"] + ["asleep", "awake"] * STEPS


def test_losses_and_rates_of_the_stages(start: Callable[..., FakeRun]) -> None:
    run = start()
    assert run.student.named("use_loss") == ["policy", *["supervised"] * (WARMUP - ONLY), *["policy"] * 3]
    # Peak rate, steps of the stage, schedule begun anew.
    assert run.student.named("begin_stage") == [(3e-4, WARMUP - ONLY, True), (1e-4, STEPS - WARMUP, True)]
    order = [name for name, _ in run.student.calls if name.endswith(("update", "moments"))]
    assert order == ["supervised_update"] * (WARMUP - ONLY) + ["reset_moments"] + ["policy_update"] * 3
    assert run.discriminator.named("begin_stage") == [(5e-4, STEPS), (2e-4, STEPS)]
    stages = [event for event in run.events if event["rule"] == "stage"]
    assert [(event["step"], event["figures"]["actor_lr"]) for event in stages] == [(1, 3e-4), (WARMUP + 1, 1e-4)]


@pytest.mark.parametrize(
    "gad",
    [
        {},
        {"discriminator_updates.updates_per_step": 3},
        {"discriminator_updates.every_steps": 2},
        {"discriminator_updates.every_steps": 2, "discriminator_updates.updates_per_step": 2},
        {"discriminator_updates.frozen": True},
        {"discriminator_only_updates": 4, "discriminator_only_steps": 2},
        {"stage": "gad", "discriminator_updates.every_steps": 4},
        {"stage": "warmup", "discriminator_only_updates": 2},
    ],
)
def test_the_horizon_of_the_discriminator_is_the_number_of_its_updates(
    start: Callable[..., FakeRun], gad: dict[str, Any]
) -> None:
    run = start(**gad)
    assert run.discriminator.horizon == len(run.discriminator.named("update"))


def test_rates_of_the_optimizers_where_no_stage_has_its_own(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.actor_rollout_ref.actor.optim.lr, config.discriminator.optim.lr = 7e-5, 8e-5
    run = start(
        **{
            "warmup.actor_lr": None,
            "adversarial.actor_lr": None,
            "warmup.discriminator_lr": None,
            "adversarial.discriminator_lr": None,
            "reset_optimizer_at_switch": False,
        }
    )
    # One schedule over the whole run, and one optimizer.
    assert run.student.named("begin_stage") == [(7e-5, STEPS - ONLY, True), (7e-5, STEPS - ONLY, False)]
    assert not run.student.named("reset_moments")
    assert run.discriminator.named("begin_stage") == [(8e-5, STEPS), (8e-5, STEPS)]


@pytest.mark.parametrize(("stage", "phases"), [("warmup", [0, 1, 1]), ("gad", [2, 2, 2])])
def test_a_stage_alone(config: DictConfig, start: Callable[..., FakeRun], stage: str, phases: list[int]) -> None:
    config.trainer.total_training_steps = 3
    run = start(stage=stage)
    assert [run.metrics[step]["gad/stage"] for step in (1, 2, 3)] == phases
    assert [steps for _, steps, _ in run.student.named("begin_stage")] == [3 - phases.count(0)]


@pytest.mark.parametrize("reference", ["warmed_up", "initial"])
def test_the_kl_reference_is_the_warmed_up_student(
    config: DictConfig, start: Callable[..., FakeRun], reference: str
) -> None:
    run = start(kl_reference=reference)
    folder = str(Path(config.trainer.default_local_dir).absolute() / f"kl_reference_step_{WARMUP}")
    expected = [folder] if reference == "warmed_up" else []
    assert run.student.named("save_student_weights") == run.student.named("load_reference_weights") == expected
    if expected:
        order = [name for name, _ in run.student.calls]
        assert order.index("load_reference_weights") < order.index("compute_ref_log_prob")
        assert order.index("save_student_weights") < order.index("load_reference_weights")


def test_without_a_reference_nothing_is_saved_for_it(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.actor_rollout_ref.actor.use_kl_loss = False
    run = start()
    assert not run.student.named("save_student_weights") and not run.student.named("compute_ref_log_prob")
    assert len(run.policy_rows()) == STEPS - WARMUP


def test_a_student_that_starts_from_an_adapter_is_its_own_reference(
    config: DictConfig, start: Callable[..., FakeRun]
) -> None:
    config.trainer.total_training_steps = 2
    with open_dict(config):
        config.actor_rollout_ref.model.lora_rank = 8
        config.actor_rollout_ref.model.lora_adapter_path = "somewhere"
    run = start(stage="gad")
    assert [Path(path).name for path in run.student.named("load_reference_weights")] == ["kl_reference_step_0"]


def test_verls_critic_learns_where_the_student_does(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.algorithm.adv_estimator, config.critic.enable = "gae", True
    config.critic.ppo_mini_batch_size = PROMPTS
    run = start()
    assert [name for name, _ in run.critic.calls] == ["values", "update"] * (STEPS - WARMUP)
    assert run.metrics[STEPS]["critic/vf_loss"] == 0.25 and "critic/vf_loss" not in run.metrics[WARMUP]
    # What verl makes of the zeros that stand for values and advantages in the warmup is not shown.
    assert not [name for name in run.metrics[WARMUP] if name.startswith(("critic/values", "critic/advantages"))]
    assert "critic/values/mean" in run.metrics[STEPS]


# ------------------------------ rows and rewards ------------------------------


def test_every_trajectory_gets_the_score_of_its_own_text(start: Callable[..., FakeRun]) -> None:
    run = start()
    rows = rows_of(run.config)
    updates = run.policy_rows()
    assert [len(update) for update in updates] == [PROMPTS * N] * (STEPS - WARMUP)
    seen = set()
    for number, update in enumerate(updates):
        step = WARMUP + 1 + number
        for row in update:
            index = int(row["index"])
            answers = {tuple(text_ids(run, random_answer(index, session, step))) for session in range(N)}
            response = row["responses"].tolist()
            assert tuple(response) in answers
            rewards = row["rm_scores"]
            assert len(rewards) == len(response) and not rewards[:-1].any()
            assert rewards[-1].item() == pytest.approx(random_score(prompt_ids(run, index) + response))
            assert row["teacher_response"] == rows["teacher_response"][index]
            seen.add(index)
    assert len(seen) == PROMPTS * (STEPS - WARMUP)
    # GRPO compares within the prompt.
    for index in {int(row["index"]) for row in updates[0]}:
        group = [row for row in updates[0] if int(row["index"]) == index]
        rewards = torch.stack([row["rm_scores"].sum() for row in group])
        advantages = torch.stack([row["advantages"][0] for row in group])
        torch.testing.assert_close(advantages, (rewards - rewards.mean()) / (rewards.std() + 1e-6))


def test_the_discriminator_reads_sorted_groups_of_texts(start: Callable[..., FakeRun]) -> None:
    run = start()
    rows = rows_of(run.config)
    for step, groups in enumerate(run.discriminator.named("update"), 1):
        indices = [index_of(run, group) for group in groups]
        assert indices == sorted(indices) and len(indices) == PROMPTS
        for index, group in zip(indices, groups, strict=True):
            prompt = prompt_ids(run, index)
            teacher, *students = group.rows()
            assert teacher == prompt + text_ids(run, rows["teacher_response"][index])
            expected = [prompt + text_ids(run, random_answer(index, session, step)) for session in range(N)]
            assert students == expected
            assert group.trains and group.valid_students() == [1.0] * N


def test_the_supervised_rows_are_the_teachers_texts(start: Callable[..., FakeRun]) -> None:
    run = start()
    rows = rows_of(run.config)
    groups = run.discriminator.named("update")[ONLY:WARMUP]
    for batch, of_step in zip(run.student.named("supervised_update"), groups, strict=True):
        expected = []
        for group in of_step:
            index = index_of(run, group)
            expected.append((prompt_ids(run, index), text_ids(run, rows["teacher_response"][index])))
        found = list(zip(batch["input_ids"].unbind(), batch["loss_mask"].unbind(), strict=True))
        assert len(found) == PROMPTS
        for (prompt, answer), (ids, mask) in zip(expected, found, strict=True):
            assert ids.tolist() == prompt + answer
            assert mask.tolist() == [0] * len(prompt) + [1] * len(answer)
        assert batch["temperature"] == 1.0
    tokens = [sum(len(text_ids(run, rows["teacher_response"][index_of(run, group)])) for group in g) for g in groups]
    assert [run.metrics[step]["gad/supervised_tokens"] for step in (2, 3)] == tokens


def test_a_session_that_fails_has_no_pair_and_no_reward(start: Callable[..., FakeRun]) -> None:
    def answer(index: int, session: int, step: int) -> str | None:
        return None if (index + session + step) % 5 == 0 else random_answer(index, session, step)

    run = start(answer=answer)
    failed = 0
    for step, groups in enumerate(run.discriminator.named("update"), 1):
        for group in groups:
            index = index_of(run, group)
            missing = [(index + session + step) % 5 == 0 for session in range(N)]
            assert group.valid_students() == [0.0 if gone else 1.0 for gone in missing]
            assert group.pair_weights() == group.valid_students()
            failed += sum(missing)
        count = sum(1 - valid for group in groups for valid in group.valid_students())
        assert run.metrics[step]["gad/failed_rollouts"] == count
        assert run.metrics[step]["disc/num_pairs"] == PROMPTS * N - count
    assert failed > 0
    for number, update in enumerate(run.policy_rows()):
        step = WARMUP + 1 + number
        for row in update:
            index = int(row["index"])
            reward = random_score(prompt_ids(run, index) + row["responses"].tolist())
            assert row["rm_scores"].sum().item() == pytest.approx(reward)
        texts = {(int(row["index"]), tuple(row["responses"].tolist())) for row in update}
        for index in {int(row["index"]) for row in update}:
            for session in range(N):
                text = answer(index, session, step)
                assert text is None or (index, tuple(text_ids(run, text))) in texts


def test_all_outputs_of_a_session_get_the_score_of_the_last(start: Callable[..., FakeRun]) -> None:
    def answer(index: int, session: int, step: int) -> list[str]:
        last = random_answer(index, session, step)
        return [f"first {session}", last] if session == 1 else [last]

    run = start(answer=answer)
    for number, update in enumerate(run.policy_rows()):
        step = WARMUP + 1 + number
        # The rollouts of a batch are padded to whole mini-batches; the outputs that came are all there.
        assert len(update) == PROMPTS * (N + 1)
        for row in update:
            index, response = int(row["index"]), row["responses"].tolist()
            if response == text_ids(run, "first 1"):
                response = text_ids(run, random_answer(index, 1, step))
            assert row["rm_scores"].sum().item() == pytest.approx(random_score(prompt_ids(run, index) + response))
            assert row["rm_scores"][-1].item() == row["rm_scores"].sum().item()
    for groups in run.discriminator.named("update"):
        assert all(len(group.student_ids) == N for group in groups)


def test_scores_that_are_no_number_are_replaced_by_the_mean_of_their_group(start: Callable[..., FakeRun]) -> None:
    def score(ids: list[int]) -> float:
        value = random_score(ids)
        return float("nan") if value > 0.7 else value

    run = start(score=score, **{"guardian.enable": False})
    replaced = 0
    for number, update in enumerate(run.policy_rows()):
        for index in {int(row["index"]) for row in update}:
            group = [row for row in update if int(row["index"]) == index]
            scores = torch.tensor([score(prompt_ids(run, index) + row["responses"].tolist()) for row in group])
            rewards = torch.tensor([row["rm_scores"].sum().item() for row in group])
            finite = torch.isfinite(scores)
            torch.testing.assert_close(rewards[finite], scores[finite])
            if not finite.all() and finite.any():
                mean = scores[finite].mean()
                torch.testing.assert_close(rewards[~finite], mean.expand_as(rewards[~finite]), rtol=1e-5, atol=1e-6)
            replaced += int((~finite).sum())
        step = WARMUP + 1 + number
        read = [row for group in run.discriminator.named("update")[step - 1] for row in group.rows()[1:]]
        count = sum(math.isnan(score(row)) for row in read)
        assert run.metrics[step]["gad/nonfinite_scores"] == count
    assert replaced > 0


def test_without_any_finite_score_the_run_ends(start: Callable[..., FakeRun]) -> None:
    with pytest.raises(FloatingPointError, match=r"discriminator\.optim\.lr"):
        start(score=lambda ids: float("inf"), **{"guardian.enable": False})


def test_a_chat_template_that_the_rollout_renders_otherwise_is_said_once(
    start: Callable[..., FakeRun], caplog: pytest.LogCaptureFixture
) -> None:
    run = start(whole=False)
    builder_of = type(run.rollouts)._write

    def write(self: Any, partition: str, sample: dict, key: str, text: str, step: int) -> None:
        system = [{"role": "system", "content": "hidden"}]
        builder_of(self, partition, {**sample, "raw_prompt": system + list(sample["raw_prompt"])}, key, text, step)
        self._run.queue.fields[partition][key]["raw_prompt"] = sample["raw_prompt"]

    run.rollouts._write = write.__get__(run.rollouts)
    with caplog.at_level(logging.WARNING):
        run.fit()
    assert sum("renders prompts differently" in record.message for record in caplog.records) == 1


# ------------------------------ teachers ------------------------------


def write_rows(config: DictConfig, folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = folder / "rows.parquet"
    change(rows_of(config)).to_parquet(path)
    config.data.train_files = str(path)


def test_with_several_texts_each_visit_takes_the_next(
    config: DictConfig, start: Callable[..., FakeRun], tmp_path: Path
) -> None:
    texts = ["alpha", "beta", "gamma"]
    write_rows(config, tmp_path, lambda rows: rows.head(PROMPTS).assign(teacher_response=[texts] * PROMPTS))
    run = start()
    # One epoch is one step: the visit is the step less one.
    for visit, groups in enumerate(run.discriminator.named("update")):
        for group in groups:
            index = index_of(run, group)
            (teacher,) = group.rows(len(group.teacher_ids))[: len(group.teacher_ids)]
            assert teacher[group.prompt_length :] == text_ids(run, texts[(index + visit) % 3])
    for visit, batch in enumerate(run.student.named("supervised_update"), ONLY):
        for index, (ids, mask) in enumerate(zip(batch["input_ids"].unbind(), batch["loss_mask"].unbind(), strict=True)):
            assert ids[mask.bool()].tolist() == text_ids(run, texts[(index + visit) % 3])


@pytest.mark.parametrize("stage", ["auto", "seqkd"])
def test_a_text_that_was_cut_when_it_was_written_has_no_end(
    config: DictConfig, start: Callable[..., FakeRun], tmp_path: Path, stage: str
) -> None:
    """As ``gad-verl teacher collect`` marks it, in the discriminator's rows and in the student's."""
    texts = [f"text {number}" for number in range(PROMPTS)]
    marks = [{"finish_reason": "length" if number % 2 else "stop", "index": number} for number in range(PROMPTS)]
    write_rows(config, tmp_path, lambda rows: rows.head(PROMPTS).assign(teacher_response=texts, extra_info=marks))
    # In each step all rollouts of a prompt with a cut text fail.
    run = start(stage=stage, answer=lambda index, session, step: None if index == 3 else random_answer(index, 0, step))
    ends = {tuple(text_ids(run, text, finished=number % 2 == 0)) for number, text in enumerate(texts)}
    for batch in run.student.named("supervised_update"):
        learned = {
            tuple(ids[mask.bool()].tolist())
            for ids, mask in zip(batch["input_ids"].unbind(), batch["loss_mask"].unbind(), strict=True)
        }
        assert learned == ends
    assert run.student.named("supervised_update")
    if stage == "auto":
        for groups in run.discriminator.named("update"):
            read = {tuple(group.teacher_ids[0][group.prompt_length :]) for group in groups}
            assert read == ends - {tuple(text_ids(run, texts[3], finished=False))}
        assert run.metrics[1]["gad/teacher_cut_texts"] == PROMPTS // 2 - 1


def test_all_texts_of_a_prompt_take_part_with_their_weights(
    config: DictConfig, start: Callable[..., FakeRun], tmp_path: Path
) -> None:
    write_rows(
        config,
        tmp_path,
        lambda rows: rows.head(PROMPTS).assign(
            teacher_response=[["alpha", "beta"]] * PROMPTS, teacher=[["small", "large"]] * PROMPTS
        ),
    )
    run = start(**{"teachers.mode": "all", "teachers.schedule": {"small": 3.0, "large": 1.0}})
    for groups in run.discriminator.named("update"):
        for group in groups:
            assert group.padded_teacher_weights(2) == [0.75, 0.25]
            first, second = group.rows(2)[:2]
            assert first[group.prompt_length :] == text_ids(run, "alpha")
            assert second[group.prompt_length :] == text_ids(run, "beta")
    assert run.metrics[5]["gad/teacher_texts"] == 2.0
    # Of the two texts the student's supervised row is one, drawn with the weights.
    drawn = [
        run.trainer.tokenizer.decode(ids[mask.bool()])
        for batch in run.student.named("supervised_update")
        for ids, mask in zip(batch["input_ids"].unbind(), batch["loss_mask"].unbind(), strict=True)
    ]
    assert len(drawn) == PROMPTS * 2 and len(set(drawn)) == 2


# ------------------------------ trust ------------------------------


def held_out(run: FakeRun, group: SequenceGroup, fraction: float) -> bool:
    return is_held_out(chat_id(list(rows_of(run.config)["prompt"][index_of(run, group)])), fraction, 0)


def test_held_out_prompts_never_train_the_discriminator(start: Callable[..., FakeRun]) -> None:
    run = start(**{"trust.held_out_fraction": 0.5, "trust.least_prompts": 2})
    trained = {True: 0, False: 0}
    for groups in run.discriminator.named("update"):
        for group in groups:
            assert group.trains != held_out(run, group, 0.5)
            trained[group.trains] += 1
    assert min(trained.values()) > 0
    assert run.metrics[6]["gad/trust_prompts"] > 2


def test_a_discriminator_that_knows_nothing_holds_the_student_still(start: Callable[..., FakeRun]) -> None:
    run = start(score=lambda ids: 0.0, **{"trust.held_out_fraction": 0.5, "trust.least_prompts": 2})
    assert run.policy_rows() == [] and run.metrics[6]["gad/trust_factor"] == 0.0
    # The discriminator goes on learning.
    assert len(run.discriminator.named("update")) == STEPS
    waits = [event for event in run.events if event["source"] == "trust"]
    assert [(event["step"], event["action"]) for event in waits] == [(WARMUP + 1, "warn"), (STEPS, "warn")]


def test_the_students_rate_follows_the_trust(start: Callable[..., FakeRun]) -> None:
    # The shorter text wins: the teacher's against three of four answers.
    run = start(
        score=lambda ids: -float(len(ids)),
        answer=lambda index, session, step: "x" * (30 if (index + session) % 4 else 1),
        **{
            "trust.held_out_fraction": 0.5,
            "trust.least_prompts": 2,
            "trust.full_accuracy": 1.0,
            "trust.confidence": 0.0,
        },
    )
    factors = [run.metrics[step]["gad/trust_factor"] for step in range(WARMUP + 1, STEPS + 1)]
    assert all(0 < factor < 1 for factor in factors)
    rates = [rate for rate, _, _ in run.student.named("begin_stage")]
    # The rate of the stage, then that of the step's own factor before each update (the same rate is not sent twice).
    expected, last = [3e-4, 1e-4], 1e-4
    for factor in factors:
        if 1e-4 * factor != last:
            last = 1e-4 * factor
            expected.append(last)
    assert rates == pytest.approx(expected)
    assert all(restart is False for _, _, restart in run.student.named("begin_stage")[2:])
    order = [name for name, _ in run.student.calls if name in ("begin_stage", "policy_update")]
    assert order[:4] == ["begin_stage", "begin_stage", "begin_stage", "policy_update"]


# ------------------------------ scores and texts ------------------------------

# The shorter text wins: the teacher's against three of four answers, so that D knows something and not all.
_KNOWS_IN_PART = {
    "score": lambda ids: -float(len(ids)),
    "answer": lambda index, session, step: "x" * (30 if (index + session) % 4 else 1),
}
_BY_EVIDENCE = {
    "trust.otherwise": "supervised",
    "trust.held_out_fraction": 0.5,
    "trust.least_prompts": 2,
    "trust.full_accuracy": 1.0,
    "trust.confidence": 0.0,
}


def joined_texts(batch: Any) -> list[tuple[list[int], list[int]]]:
    """Prompt and response of the rows that joined an update, those of padding left out."""
    rows = zip(batch["prompts"].unbind(), batch["responses"].unbind(), batch["response_mask"].unbind(), strict=True)
    return sorted((prompt.tolist(), response.tolist()) for prompt, response, mask in rows if mask.sum() > 0)


def texts_of_step(run: FakeRun, step: int) -> list[tuple[list[int], list[int]]]:
    """Prompt and teacher's text of each row of a step, as the discriminator was given them."""
    groups = run.discriminator.named("update")[step - 1]
    first = [(group.rows()[0], group.prompt_length) for group in groups]
    return sorted((row[:length], row[length:]) for row, length in first)


def test_what_the_discriminator_does_not_know_is_learned_from_the_texts(start: Callable[..., FakeRun]) -> None:
    run = start(**_KNOWS_IN_PART, **_BY_EVIDENCE, **{"supervised_weight": 0.1})
    joined = run.student.named("learn_also_from")
    assert len(joined) == STEPS - WARMUP == len(run.policy_rows())
    rates = [3e-4, 1e-4]
    for step, batch in enumerate(joined, WARMUP + 1):
        knowledge = run.metrics[step]["gad/trust_factor"]
        assert 0 < knowledge < 1
        assert tu.get(batch, "policy_weight") == run.metrics[step]["gad/policy_weight"] == knowledge
        assert tu.get(batch, "texts_weight") == run.metrics[step]["gad/texts_weight"] == 1 - knowledge + 0.1
        # Held-out prompts too: their texts train the student, never the discriminator.
        assert joined_texts(batch) == texts_of_step(run, step)
        assert len(joined_texts(batch)) == PROMPTS
        assert run.metrics[step]["gad/supervised_tokens"] == sum(len(ids) for _, ids in joined_texts(batch))
        rates.append(1e-4**knowledge * 3e-4 ** (1 - knowledge))
    # The same rate is not sent twice.
    sent = [rate for rate, _, _ in run.student.named("begin_stage")]
    assert sent == pytest.approx([rate for rate, _ in itertools.groupby(rates)])
    order = [name for name, _ in run.student.calls if name in ("learn_also_from", "policy_update")]
    assert order == ["learn_also_from", "policy_update"] * (STEPS - WARMUP)


def test_where_it_knows_nothing_the_step_is_one_of_seqkd(start: Callable[..., FakeRun]) -> None:
    run = start(score=lambda ids: 0.0, **(_BY_EVIDENCE | {"supervised_weight": 0.25}))
    assert run.policy_rows() == [] and run.student.named("learn_also_from") == []
    # Nor is anything computed for an update by scores.
    assert run.student.named("compute_log_prob", "compute_ref_log_prob") == []
    assert not [name for step in run.metrics.values() for name in step if name.startswith("critic/advantages")]
    updates = run.student.named("supervised_update")
    assert len(updates) == STEPS - ONLY
    for step, batch in enumerate(updates, ONLY + 1):
        rows = zip(batch["input_ids"].unbind(), batch["loss_mask"].unbind(), strict=True)
        texts = sorted((ids[~mask.bool()].tolist(), ids[mask.bool()].tolist()) for ids, mask in rows if mask.sum() > 0)
        assert texts == texts_of_step(run, step)
    # The warmup's loss, then for each step the policy's until what is known says otherwise.
    uses = run.student.named("use_loss")
    assert uses[1 + WARMUP - ONLY :] == ["policy", ("supervised", 1.25)] * (STEPS - WARMUP)
    # At SeqKD's own rate.
    assert [rate for rate, _, _ in run.student.named("begin_stage")][-1] == 3e-4
    event, end = [event for event in run.events if event["source"] == "trust"]
    assert event["action"] == "info" and "learns from the texts: the discriminator cannot tell yet" in event["text"]
    assert (end["step"], end["action"]) == (STEPS, "warn") and "SeqKD alone (gad.stage=seqkd)" in end["text"]


@pytest.mark.parametrize("first", [WARMUP + 1, WARMUP + 2, STEPS, STEPS + 1])
@pytest.mark.parametrize("resets", [True, False])
def test_a_student_that_goes_on_with_texts_keeps_its_optimizer_until_scores_teach_it(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, start: Callable[..., FakeRun], first: int, resets: bool
) -> None:
    """Steps without evidence are SeqKD that goes on, so the moments are SeqKD's until the loss is another one."""
    monkeypatch.setattr(Objective, "knowledge", property(lambda objective: float(run.trainer.global_steps >= first)))
    run = start(whole=False, **_BY_EVIDENCE, **{"reset_optimizer_at_switch": resets})
    run.fit()
    order = [name for name, _ in run.student.calls if name.endswith(("_update", "moments"))]
    texts, scores = first - 1 - ONLY, STEPS + 1 - first
    wanted = ["supervised_update"] * texts
    if scores:
        wanted += ["reset_moments"] * resets + ["policy_update"] * scores
    assert order == wanted
    # The schedule of the rate is that of the stage in any case.
    restarts = [restart for _, _, restart in run.student.named("begin_stage")]
    assert restarts == [True, resets] + [False] * (len(restarts) - 2)


def test_where_it_knows_all_the_step_is_one_of_gad(start: Callable[..., FakeRun]) -> None:
    @cache
    def teacher_rows() -> set[tuple[int, ...]]:
        texts = rows_of(run.config)["teacher_response"]
        return {(*prompt_ids(run, index), *text_ids(run, text)) for index, text in enumerate(texts)}

    run = start(whole=False, score=lambda ids: float(tuple(ids) in teacher_rows()), **_BY_EVIDENCE)
    run.fit()
    assert len(run.policy_rows()) == STEPS - WARMUP and run.student.named("learn_also_from") == []
    assert run.metrics[STEPS]["gad/policy_weight"] == 1.0 and run.metrics[STEPS]["gad/texts_weight"] == 0.0
    assert [rate for rate, _, _ in run.student.named("begin_stage")][-1] == 1e-4
    (event,) = [event for event in run.events if event["source"] == "trust"]
    assert "learns from the discriminator: the discriminator can tell (100 % +- 0" in event["text"]


def test_a_constant_anchor_needs_no_evidence(start: Callable[..., FakeRun]) -> None:
    run = start(**{"supervised_weight": 0.1})
    joined = run.student.named("learn_also_from")
    assert [(tu.get(one, "policy_weight"), tu.get(one, "texts_weight")) for one in joined] == [(1.0, 0.1)] * 3
    assert [rate for rate, _, _ in run.student.named("begin_stage")] == [3e-4, 1e-4]


def test_steps_of_the_discriminator_alone_may_use_their_pairs_again(
    config: DictConfig, start: Callable[..., FakeRun]
) -> None:
    only, each = 3, 3
    run = start(
        **{"discriminator_only_steps": only, "discriminator_only_updates": each, "trust.held_out_fraction": 0.25}
    )
    updates = run.discriminator.named("update")
    assert len(updates) == only * each + STEPS - only
    seen: set[tuple[int, ...]] = set()
    for step in range(only):
        fresh, *further = updates[step * each : (step + 1) * each]
        assert len(fresh) == PROMPTS and run.metrics[step + 1]["disc/updates"] == each
        seen |= {tuple(row) for group in fresh if group.trains for row in group.rows()}
        for batch in further:
            # Of all steps so far, without the prompts that never train it.
            rows = {tuple(row) for group in batch for row in group.rows()}
            assert batch and rows <= seen and all(group.trains for group in batch)
    assert updates[1] != updates[2]
    # The metrics are those of the fresh pairs, and what was kept is gone when the student moves.
    assert run.metrics[WARMUP + 1]["disc/updates"] == 1
    assert len(run.trainer.parts.step.discriminator._alone) == 0


def test_a_student_that_is_trained_already_goes_on_by_evidence(start: Callable[..., FakeRun]) -> None:
    """No supervised warmup: the discriminator alone, then the objective from an SFT checkpoint."""
    run = start(**_KNOWS_IN_PART, **_BY_EVIDENCE, **{"discriminator_only_steps": 2, "warmup_steps": 2})
    assert [run.metrics[step]["gad/stage"] for step in range(1, STEPS + 1)] == [0, 0, 2, 2, 2, 2]
    assert run.student.named("supervised_update") == [] and len(run.student.named("learn_also_from")) == STEPS - 2
    # The reference of the KL loss is that student.
    assert len(run.student.named("save_student_weights")) == 1
    # Evidence of the steps before counts from the first adversarial step on.
    assert run.metrics[3]["gad/trust_prompts"] > run.metrics[1]["gad/trust_prompts"]
    assert 0 < run.metrics[3]["gad/policy_weight"] < 1


def test_by_default_no_text_joins(start: Callable[..., FakeRun]) -> None:
    run = start()
    assert run.student.named("learn_also_from") == [] and "gad/texts_weight" not in run.metrics[STEPS]


def test_a_prompt_without_any_rollout_still_has_a_text(start: Callable[..., FakeRun]) -> None:
    lost = {3, 5}
    run = start(
        score=lambda ids: -float(len(ids)),
        answer=lambda index, session, step: None if index in lost else "x" * (30 if (index + session) % 4 else 1),
        **_BY_EVIDENCE,
    )
    rows = rows_of(run.config)
    found = set()
    for step, batch in enumerate(run.student.named("learn_also_from"), WARMUP + 1):
        extra = [text for text in joined_texts(batch) if text not in texts_of_step(run, step)]
        assert len(joined_texts(batch)) == PROMPTS
        found |= {tuple(prompt + ids) for prompt, ids in extra}
    mine = {(*prompt_ids(run, index), *text_ids(run, rows["teacher_response"][index])) for index in lost}
    assert found and found <= mine


# ------------------------------ guardian ------------------------------


def test_the_guardians_length_penalty_reaches_the_rewards(start: Callable[..., FakeRun]) -> None:
    def answer(index: int, session: int, step: int) -> str:
        return "a" * (6 + session) if step <= WARMUP + 1 else "a" * (40 + session)

    run = start(
        answer=answer,
        score=lambda ids: float(len(ids) % 4),
        **{"guardian.policy": "adapt", "guardian.window": 2, "guardian.count": 1, "guardian.baseline": 1},
    )
    assert run.metrics[5]["guardian/length_penalty"] > 0
    penalty = run.metrics[5]["guardian/length_penalty"]
    rows = rows_of(run.config)
    for index in {int(row["index"]) for row in run.policy_rows()[-1]}:
        group = [row for row in run.policy_rows()[-1] if int(row["index"]) == index]
        lengths = torch.tensor([float(len(row["responses"])) for row in group])
        scores = torch.tensor([float(len(row["input_ids"]) % 4) for row in group])
        assert scores.std() > 0
        teacher = len(text_ids(run, rows["teacher_response"][index]))
        spread = scores.std(unbiased=False)
        rewards = torch.tensor([row["rm_scores"].sum().item() for row in group])
        slope = (scores - rewards) / (lengths / teacher)
        # Off each reward in proportion to its length, in units of the spread of its group.
        torch.testing.assert_close(slope, slope.mean().expand_as(slope), rtol=1e-4, atol=1e-5)
        assert slope.mean().item() == pytest.approx(penalty * spread.item(), rel=0.2)


def test_the_guardians_rate_factors_reach_the_optimizers(start: Callable[..., FakeRun]) -> None:
    run = start(
        # The teacher's text always wins by far: saturated.
        score=lambda ids: 0.0 if len(set(ids[-4:-1])) == 1 else 50.0,
        answer=lambda index, session, step: "x" * (3 + session),
        **{"guardian.policy": "adapt", "guardian.window": 2, "guardian.count": 1, "guardian.baseline": 1},
    )
    factors = [run.metrics[step].get("guardian/discriminator_lr_factor", 1.0) for step in range(1, STEPS + 1)]
    assert factors[WARMUP] < 1
    # What a step finds out holds from the next one on; one stage, its rate times the factors.
    assert [rate for rate, _ in run.discriminator.named("begin_stage")][:3] == pytest.approx(
        [5e-4, 2e-4, 2e-4 * factors[WARMUP]]
    )


def test_the_guardians_factor_of_the_student_reaches_its_optimizer(start: Callable[..., FakeRun]) -> None:
    """In both stages, beside whatever the objective makes of the rate."""
    run = start(whole=False, **_KNOWS_IN_PART, **_BY_EVIDENCE)
    run.trainer.guardian.knobs["actor_lr_factor"] = 0.25
    # As if a rule that turns it had tripped and stayed so.
    run.trainer.guardian._set_knobs = lambda: None
    run.fit()
    rates = [rate for rate, _, _ in run.student.named("begin_stage")]
    knowledge = run.metrics[WARMUP + 1]["gad/trust_factor"]
    assert rates[0] == pytest.approx(0.25 * 3e-4)
    assert rates[2] == pytest.approx(0.25 * 1e-4**knowledge * 3e-4 ** (1 - knowledge))


def test_a_guardian_that_stops_saves_and_ends(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.trainer.save_freq = 100
    run = start(
        score=lambda ids: 0.0 if len(set(ids[-4:-1])) == 1 else 50.0,
        answer=lambda index, session, step: "x" * (3 + session),
        **{"guardian.saturated.policy": "stop", "guardian.window": 2, "guardian.count": 1},
    )
    last = max(run.metrics)
    assert WARMUP < last < STEPS
    assert [event["action"] for event in run.events if event["rule"] == "saturated"][-1] == "stop"
    assert (Path(config.trainer.default_local_dir) / f"global_step_{last}" / "gad_complete").exists()


# ------------------------------ a pool of its own ------------------------------


def test_on_a_pool_of_its_own_the_discriminator_works_while_the_student_goes_on(
    config: DictConfig, start: Callable[..., FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(**{"discriminator_n_gpus_per_node": 1})
    for number, update in enumerate(run.policy_rows()):
        for row in update:
            index = int(row["index"])
            assert row["rm_scores"].sum().item() == pytest.approx(
                random_score(prompt_ids(run, index) + row["responses"].tolist())
            ), number
    names = [name for name, _ in run.discriminator.calls if name != "begin_stage"]
    assert names == ["load_model"] + ["begin_update", "scores_awaited", "end_awaited"] * STEPS
    assert all("disc/wait_scores_s" in run.metrics[step] for step in range(1, STEPS + 1))


def test_overlap_changes_no_number(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[FakeRun] = []

    def scored_by(of: list[FakeRun], ids: list[int]) -> float:
        # Of before the step's own update, whoever asks when.
        updates = len(of[-1].discriminator.named("update", "begin_update"))
        return random_score([updates, *ids])

    found = []
    for pool, overlap in ((0, True), (1, False), (1, True)):
        config.trainer.default_local_dir = config.trainer.default_local_dir + "x"
        config.gad.discriminator_n_gpus_per_node, config.gad.discriminator_overlap = pool, overlap
        run = FakeRun(config, monkeypatch, score=lambda ids, run_of=runs: scored_by(run_of, ids))
        runs.append(run)
        run.fit()
        assert bool(run.discriminator.named("begin_update")) == (pool == 1 and overlap)
        found.append([sequence_rewards(update) for update in run.policy_rows()])
    assert found[0] == found[1] == found[2] and len(found[0]) == STEPS - WARMUP


# ------------------------------ SeqKD ------------------------------


def test_seqkd_generates_nothing(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    run = start(stage="seqkd")
    assert run.discriminator is None and run.rollouts.sessions == []
    rows = rows_of(config)
    texts = {tuple(prompt_ids(run, i) + text_ids(run, rows["teacher_response"][i])) for i in range(len(rows))}
    batches = run.student.named("supervised_update")
    seen = [tuple(ids.tolist()) for batch in batches for ids in batch["input_ids"].unbind()]
    assert len(seen) == STEPS * PROMPTS == len(set(seen)) and set(seen) <= texts
    assert run.student.named("begin_stage") == [(3e-4, STEPS, True)]
    assert run.student.named("use_loss") == ["supervised"] * STEPS
    assert run.replicas == ["awake", "asleep"]
    assert {"training/global_step", "perf/time_per_step", "actor/loss", "timing_s/step"} <= set(run.metrics[2])
    # verl clears the keys of a step; nothing may be left behind.
    assert run.queue.kv_list("train") == {"train": {}}


def test_seqkd_wakes_the_rollout_for_a_validation(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.trainer.test_freq = 3
    run = start(stage="seqkd")
    # After set-up; then asleep until the weights of steps 3 and 6 are sent for their validations.
    assert run.replicas[:3] == ["awake", "asleep", "awake"] and run.replicas.count("awake") >= 3
    assert len(run.rollouts.sessions) == 2
    assert "val-gad/rouge_l" in run.metrics[3] and "val-gad/accuracy" not in run.metrics[3]
    assert len(run.student.named("supervised_update")) == STEPS


def test_seqkd_cycles_through_the_texts_too(config: DictConfig, start: Callable[..., FakeRun], tmp_path: Path) -> None:
    texts = ["alpha", "beta", "gamma"]
    write_rows(config, tmp_path, lambda rows: rows.head(PROMPTS).assign(teacher_response=[texts] * PROMPTS))
    run = start(stage="seqkd")
    for visit, batch in enumerate(run.student.named("supervised_update")):
        for ids, mask in zip(batch["input_ids"].unbind(), batch["loss_mask"].unbind(), strict=True):
            prompt = ids[: int((mask == 0).sum())].tolist()
            (index,) = [i for i in range(PROMPTS) if prompt_ids(run, i) == prompt]
            assert ids[mask.bool()].tolist() == text_ids(run, texts[(index + visit) % 3])


# ------------------------------ rollouts of the warmup ------------------------------


def test_fewer_rollouts_in_the_warmup(start: Callable[..., FakeRun]) -> None:
    run = start(warmup_rollout_n=2)
    assert run.rollouts.sessions == [2] * WARMUP + [N] * (STEPS - WARMUP)
    sizes = [{len(group.student_ids) for group in groups} for groups in run.discriminator.named("update")]
    assert sizes == [{2}] * WARMUP + [{N}] * (STEPS - WARMUP)
    assert all(run.metrics[step]["gad/failed_rollouts"] == 0 for step in range(1, STEPS + 1))


# ------------------------------ validation ------------------------------


def test_a_validation_scores_and_trains_nobody(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.trainer.test_freq, config.trainer.val_before_train = 3, True
    run = start()
    assert len(run.discriminator.named("score")) == 3 and len(run.discriminator.named("update")) == STEPS
    val = pd.read_parquet(config.data.val_files)
    for step in (0, 3, 6):
        metrics = run.metrics[step]
        assert metrics["val-gad/num_pairs"] == len(val) * config.actor_rollout_ref.rollout.val_kwargs.n
        assert 0 <= metrics["val-gad/rouge_l"] <= 1 and 0 <= metrics["val-gad/accuracy"] <= 1
    groups = run.discriminator.named("score")[0]
    texts = sorted(tuple(group.rows()[0][group.prompt_length :]) for group in groups)
    assert texts == sorted(tuple(text_ids(run, text)) for text in val["teacher_response"])
    # The teacher's text is shown as the ground truth of verl's dumped generations.
    puts = [fields for partition, _, fields in run.queue.puts if partition == "val" and "reward_model" in fields]
    assert len(puts) == 3
    # Each row has the truth of its own prompt.
    shown = {tuple(prompt): text for prompt, text in run.ground_truths}
    tokenizer = run.trainer.tokenizer
    for messages, text in zip(val["prompt"], val["teacher_response"], strict=True):
        rendered = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        assert shown[tuple(tokenizer(rendered, add_special_tokens=False)["input_ids"])] == text


def test_a_validation_reads_the_teachers_texts(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.trainer.test_freq = 3
    config.actor_rollout_ref.rollout.val_kwargs.n = 2
    run = start()
    val = pd.read_parquet(config.data.val_files)
    batch = run.student.named("read_texts")[-1]
    nats, tokens, found = 0.0, 0, []
    for ids, mask in zip(batch["input_ids"].unbind(), batch["loss_mask"].unbind(), strict=True):
        # What the fake says of the token before each one.
        nats += sum((int(ids[place - 1]) % 7 + 1.0) / 7 for place in mask.nonzero().flatten().tolist())
        tokens += int(mask.sum())
        found.append(tuple(ids[mask.bool()].tolist()))
    # Each text once, whatever the number of answers.
    assert sorted(found) == sorted(tuple(text_ids(run, text)) for text in val["teacher_response"])
    for step in (3, 6):
        assert run.metrics[step]["val-gad/text_loss"] == pytest.approx(nats / tokens)
    # Of one validation nothing can be said, of two alike that nothing changed.
    assert "val-gad/text_loss_change" not in run.metrics[3]
    assert run.metrics[6]["val-gad/text_loss_change"] == run.metrics[6]["val-gad/text_loss_change_error"] == 0
    assert not [event for event in run.events if event["rule"] == "warmup"]


@pytest.mark.parametrize("falls", [True, False])
def test_a_warmup_that_ends_too_early_says_so(
    config: DictConfig, start: Callable[..., FakeRun], monkeypatch: pytest.MonkeyPatch, falls: bool
) -> None:
    config.trainer.test_freq = 1
    run = start(whole=False)

    def log_probs(student: Any, batch: Any) -> dict[str, Any]:
        factor = 0.9 ** len(student.named("supervised_update")) if falls else 1.0
        rows = [-factor * (ids % 7 + 1.0) for ids in batch["input_ids"].unbind()]
        return {"log_probs": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}

    plain = type(run.student).compute_log_prob
    monkeypatch.setattr(
        type(run.student),
        "compute_log_prob",
        lambda student, batch: (
            plain(student, batch) if hasattr(batch, "keys") and hasattr(batch, "tags") else log_probs(student, batch)
        ),
    )
    run.fit()
    said = [event for event in run.events if event["rule"] == "warmup"]
    assert [(event["step"], event["action"]) for event in said] == ([(WARMUP + 1, "warn")] if falls else [])


def test_a_validation_without_any_rollout_says_so(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    """In training verl's buffer says it itself."""
    config.trainer.test_freq = STEPS
    run = start(whole=False)
    run.answer = lambda *place: None if run.rollouts.validating else random_answer(*place)
    with pytest.raises(GadStalledError, match=f"all rollouts of step {STEPS} failed"):
        run.fit()


def test_rouge_of_a_student_that_answers_like_its_teacher(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.trainer.test_freq = STEPS
    val = list(pd.read_parquet(config.data.val_files)["teacher_response"])
    run = start(answer=lambda index, session, step: val[index] if index < len(val) and step == STEPS else "other")
    assert run.metrics[STEPS]["val-gad/rouge_l"] == 1.0 and run.metrics[STEPS]["val-gad/length_ratio"] == 1.0


# ------------------------------ options of the reward ------------------------------


def test_tokens_get_their_share_of_the_score(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.algorithm.adv_estimator = "gad_process"
    run = start(**{"reward.sequence_weight": 0.0, "reward.token_weight": 1.0})
    for update in run.policy_rows():
        for row in update:
            prompt, ids = len(row["prompts"]), row["input_ids"]
            # The stand-in's values rise evenly over the row: every token gets the same share.
            share = 1.0 / (len(ids) - 1)
            torch.testing.assert_close(row["rm_scores"], torch.full((len(ids) - prompt,), share))
    assert run.metrics[STEPS]["gad/token_credit_missing"] == 0.0


def test_verls_reward_beside_the_discriminators(
    config: DictConfig, start: Callable[..., FakeRun], tmp_path: Path
) -> None:
    truth = [{"ground_truth": "x", "style": "rule"}]
    write_rows(config, tmp_path, lambda rows: rows.assign(reward_model=truth * len(rows)))
    run = start(**{"reward.task_weight": 0.5, "reward.discriminator_weight": 2.0})
    tokenizer = run.trainer.tokenizer
    for update in run.policy_rows():
        for row in update:
            score = random_score(row["input_ids"].tolist())
            task = len(tokenizer.decode(row["responses"], skip_special_tokens=True))
            assert row["rm_scores"].sum().item() == pytest.approx(2 * score + 0.5 * task, rel=1e-5)


def test_unfinished_and_malformed_answers_cost(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    limit = config.data.max_response_length

    def answer(index: int, session: int, step: int) -> str:
        return {0: "y" * limit, 1: "forbidden", 2: " ", 3: "fine"}[session]

    run = start(
        answer=answer,
        score=lambda ids: 0.25,
        **{
            "reward.unfinished_penalty": 1.0,
            "reward.malformed_penalty": 3.0,
            "reward.malformed_pattern": "forbid+en",
        },
    )
    for row in run.policy_rows()[0]:
        text = run.trainer.tokenizer.decode(row["responses"], skip_special_tokens=True)
        cost = 1.0 if text.startswith("y") else 3.0 if text in ("forbidden", " ") else 0.0
        assert row["rm_scores"].sum().item() == pytest.approx(0.25 - cost)
    assert run.metrics[STEPS]["gad/malformed_rate"] == 0.5


# ------------------------------ record ------------------------------


def test_the_record_tells_the_texts_and_the_spread_of_the_scores(
    config: DictConfig, start: Callable[..., FakeRun]
) -> None:
    config.trainer.test_freq = 3
    run = start(**{"record.samples": 2, "record.samples_every_steps": 5})
    folder = Path(config.trainer.default_local_dir) / "record"
    scores = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in scores] == ["discriminator_only", "warmup", "warmup"] + ["adversarial"] * 3
    groups = run.discriminator.named("update")[0]
    students = [random_score(row) for group in groups for row in group.rows()[1:]]
    teachers = [random_score(group.rows()[0]) for group in groups]
    assert scores[0]["student"][0] == pytest.approx(min(students))
    assert scores[0]["teacher"][-1] == pytest.approx(max(teachers))
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(one["step"], one["split"]) for one in samples] == [
        (step, split) for step, split in ((1, "train"), (3, "val"), (5, "train"), (6, "val")) for _ in range(2)
    ]
    one = samples[0]
    rows = rows_of(config)
    assert one["teacher"] == rows["teacher_response"][one["index"]]
    assert one["students"] == [random_answer(one["index"], session, 1) for session in range(N)]
    assert rows["prompt"][one["index"]][0]["content"] in one["prompt"]
    ids = prompt_ids(run, one["index"]) + text_ids(run, one["students"][2])
    assert one["student_scores"][2] == pytest.approx(random_score(ids))
    assert json.loads((folder / "run.json").read_text())["finished"] is not None


# ------------------------------ checkpoints ------------------------------


def step_of(run: FakeRun) -> list[Any]:
    """What the run asked of its workers, as far as numbers and rows go."""
    asked: list[Any] = []
    rate = None
    for name, given in run.student.calls:
        if name == "policy_update":
            asked.append((name, rate, sorted(sequence_rewards(given).items())))
        elif name == "supervised_update":
            asked.append((name, rate, [ids.tolist() for ids in given["input_ids"].unbind()]))
        elif name == "begin_stage":
            # A resumed run gives the rate anew, which changes nothing; a schedule that begins anew does.
            rate, _, restarts = given
            asked += [(name, given)] if restarts else []
        elif name == "use_loss":
            asked.append((name, given))
    return asked


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_a_resumed_run_asks_what_the_whole_one_asks(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cut: int
) -> None:
    set_gad(
        config,
        {
            "trust.held_out_fraction": 0.5,
            "trust.least_prompts": 2,
            "trust.confidence": 0.0,
            "trust.full_accuracy": 1.0,
            "replay.capacity_steps": 2,
            "reward.whitening": "running",
            "guardian.policy": "adapt",
            "guardian.window": 2,
            "guardian.count": 1,
            "guardian.baseline": 1,
            "discriminator_updates.updates_per_step": 2,
            "reload_data": "epoch",
            "curriculum.mode": "pool",
            "curriculum.difficulty": "margin",
        },
    )
    # Two steps a pass; without a seed verl draws other rows in each run.
    config.trainer.save_freq, config.data.train_max_samples, config.data.seed = 1, 2 * PROMPTS, 7

    def answer(index: int, session: int, step: int) -> str:
        # The guardian notices that answers grow, and turns a knob.
        return " ".join([random_answer(index, session, step)] * (3 if step > WARMUP + 1 else 1))

    def run(folder: str, steps: int) -> FakeRun:
        config.trainer.default_local_dir = str(tmp_path / folder / "checkpoints")
        (tmp_path / folder).mkdir(exist_ok=True)
        config.trainer.total_training_steps = STEPS
        one = FakeRun(config, monkeypatch, answer, score=lambda ids: random_score(ids) - len(ids) / 8)
        if steps < STEPS:
            one.trainer.on_step_begin = lambda: _end_after(one, steps)
        try:
            one.fit()
        except KeyboardInterrupt:
            pass
        return one

    whole, first, second = run("whole", STEPS), run("cut", cut), run("cut", STEPS)
    assert second.student.named("load_checkpoint") and second.discriminator.named("load")
    of_stage = second.student.named("resume_stage")
    assert of_stage == [WARMUP - ONLY if cut <= WARMUP else STEPS - WARMUP]
    assert step_of(first) + step_of(second) == step_of(whole)
    groups = first.discriminator.named("update") + second.discriminator.named("update")
    assert groups == whole.discriminator.named("update")
    references = [Path(path).name for path in second.student.named("load_reference_weights")]
    assert references == [f"kl_reference_step_{WARMUP}"]
    # What is remembered is far from where it began.
    assert 0 < whole.metrics[STEPS]["gad/trust_factor"] < 1 and whole.metrics[STEPS]["gad/data_passes"] == 2
    assert whole.metrics[STEPS]["guardian/length_penalty"] > 0
    for step in range(1, STEPS + 1):
        one, other = whole.metrics[step], second.metrics[step]
        same = [name for name in one if name.startswith(("gad/", "disc/", "guardian/", "critic/"))]
        assert {name: one[name] for name in same} == {name: other[name] for name in same}


def test_a_resumed_run_gives_its_rates_to_the_workers_anew(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of the weights alone brings none, and then optimizers begin at optim.lr."""
    config.trainer.save_freq = 1
    first = FakeRun(config, monkeypatch)
    first.trainer.on_step_begin = lambda: _end_after(first, WARMUP + 1)
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    second = FakeRun(config, monkeypatch).fit()
    assert second.student.named("begin_stage") == [(1e-4, STEPS - WARMUP, False)]
    assert [rate for rate, _ in second.discriminator.named("begin_stage")] == [2e-4]


def test_a_run_that_goes_on_in_another_folder_can_be_resumed_there(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The warmed-up reference stays where it was written."""
    config.trainer.save_freq = 1
    old, new = tmp_path / "old" / "checkpoints", tmp_path / "new" / "checkpoints"
    found = []
    for folder, steps in ((old, WARMUP + 1), (new, WARMUP + 2), (new, STEPS)):
        config.trainer.default_local_dir = str(folder)
        run = FakeRun(config, monkeypatch)
        if steps < STEPS:
            run.trainer.on_step_begin = partial(_end_after, run, steps)
        try:
            run.fit()
        except KeyboardInterrupt:
            pass
        found.append((sorted(run.metrics), run.student.named("load_reference_weights")))
        if folder == old:
            config.trainer.resume_mode, config.trainer.resume_from_path = "resume_path", str(old / "global_step_4")
        else:
            config.trainer.resume_mode, config.trainer.resume_from_path = "auto", None
    reference = [str(old / f"kl_reference_step_{WARMUP}")]
    assert found == [
        (list(range(1, WARMUP + 2)), reference),
        ([WARMUP + 2], reference),
        (list(range(WARMUP + 2, STEPS + 1)), reference),  # its curves begin with those of the one before
    ]


def test_weights_that_may_be_broken_are_not_saved_when_a_checkpoint_is_due(
    config: DictConfig, start: Callable[..., FakeRun]
) -> None:
    """verl saves its own steps without asking; the checkpoint would push out the last good one."""
    config.trainer.save_freq = 1
    run = start(whole=False, **{"guardian.window": 2, "guardian.count": 1})
    update = run.student.update_actor

    def broken(batch: Any) -> dict[str, Any]:
        result = update(batch)
        result["metrics"]["loss"] = [math.nan]
        return result

    run.student.update_actor = broken
    run.fit()
    root, last = Path(config.trainer.default_local_dir), max(run.metrics)
    assert run.trainer.guardian.stop.rule == "nonfinite" and 1 < last < STEPS
    assert not (root / f"global_step_{last}").exists() and (root / f"global_step_{last - 1}" / "gad_complete").exists()


def _end_after(run: FakeRun, steps: int) -> None:
    """A kill at the beginning of the step after ``steps``."""
    if run.trainer.global_steps > steps:
        run.trainer._shutdown_dump_executor()
        raise KeyboardInterrupt


def test_only_whole_checkpoints_are_kept_and_the_newest_of_them(
    config: DictConfig, start: Callable[..., FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    config.trainer.save_freq, config.trainer.max_actor_ckpt_to_keep = 2, 1
    gone: list[str] = []
    monkeypatch.setattr(
        "gad_verl.trainer.gad_trainer.remove_everywhere", lambda _, folders: gone.extend(one.name for one in folders)
    )
    run = start(keep_checkpoints=2)
    root = Path(config.trainer.default_local_dir)
    assert gone == ["global_step_2"]
    # verl's own rotation, which goes by the student alone, is off while it saves, and only then.
    assert run.student.kept == [None] * 3 and config.trainer.max_actor_ckpt_to_keep == 1
    for step in (4, 6):
        folder = root / f"global_step_{step}"
        assert {"actor", "discriminator", "data.pt", "gad_state.json", "gad_parts.pt", "gad_complete"} <= {
            path.name for path in folder.iterdir()
        }
        state = json.loads((folder / "gad_state.json").read_text())
        assert state["step"] == step and state["stage"] == "adversarial" and state["has_discriminator"]
        assert state["kl_reference"] == f"kl_reference_step_{WARMUP}"
    assert (root / "latest_checkpointed_iteration.txt").read_text() == "6"
    # Discriminator first, student next: the tracker names a checkpoint that is whole.
    saved = [Path(path).parent.name for path in run.discriminator.named("save")]
    assert saved == [f"global_step_{step}" for step in (2, 4, 6)]


def test_verls_old_key_for_one_checkpoint_keeps_one_that_is_whole(
    config: DictConfig, start: Callable[..., FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """verl would delete the student of the last checkpoint before the tracker has moved on."""
    with open_dict(config):
        config.trainer.save_freq, config.trainer.remove_previous_ckpt_in_save = 2, True
    gone: list[str] = []
    monkeypatch.setattr(
        "gad_verl.trainer.gad_trainer.remove_everywhere", lambda _, folders: gone.extend(one.name for one in folders)
    )
    run = start()
    assert run.student.kept == [None] * 3 and set(gone) == {"global_step_2", "global_step_4"}
    assert config.trainer.remove_previous_ckpt_in_save is True


def test_a_file_asks_the_run_to_end(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.trainer.save_freq = 100
    run = start(whole=False)
    root = Path(config.trainer.default_local_dir)

    def ask() -> None:
        if run.trainer.global_steps == 4:
            (root / "stop").touch()

    run.trainer.on_step_begin = ask
    run.fit()
    assert max(run.metrics) == 4 and (root / "global_step_4" / "gad_complete").exists()
    assert "after step 4" in (root / "stop.done").read_text() and not (root / "stop").exists()
    assert json.loads((root / "record" / "run.json").read_text())["finished"] is None
    assert [event["step"] for event in run.events if event["rule"] == "stop_file"] == [4]


def test_the_curves_of_a_resumed_run_are_whole(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config.trainer.save_freq = 2
    first = FakeRun(config, monkeypatch)
    first.trainer.on_step_begin = lambda: _end_after(first, 3)
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    second = FakeRun(config, monkeypatch).fit()
    lines = [json.loads(line)["step"] for line in second.log_file.read_text().splitlines()]
    assert lines == [1, 2, 3, 4, 5, 6]
    scores = Path(config.trainer.default_local_dir) / "record" / "scores.jsonl"
    assert [json.loads(line)["step"] for line in scores.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_a_validation_before_a_resumed_run_is_neither_judged_again_nor_logged_over(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.trainer.save_freq = config.trainer.test_freq = 2
    first = FakeRun(config, monkeypatch)
    first.trainer.on_step_begin = lambda: _end_after(first, 4)
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    config.trainer.val_before_train = True
    second = FakeRun(config, monkeypatch)
    judged = []
    observe = second.trainer.guardian.observe

    def judge(step: int, metrics: dict[str, Any]) -> Any:
        judged.append((step, "val-gad/rouge_l" in metrics))
        return observe(step, metrics)

    monkeypatch.setattr(second.trainer.guardian, "observe", judge)
    second.fit()
    assert judged == [(5, False), (6, False), (6, True)]
    lines = [json.loads(line)["step"] for line in second.log_file.read_text().splitlines()]
    assert lines == [1, 2, 3, 4, 4, 5, 6]


# ------------------------------ several optimizer steps ------------------------------


def test_supervised_rows_are_whole_mini_batches(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.actor_rollout_ref.actor.ppo_mini_batch_size = 4
    run = start()
    for batch in run.student.named("supervised_update"):
        assert batch["num_mini_batch"] == 2 and len(batch["input_ids"].unbind()) == PROMPTS
