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
"""The asynchronous modes in whole runs without Ray (tests/tools/fake_run.py): ages, stages, validation, resuming."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_run import FakeRun, random_answer
from omegaconf import DictConfig, OmegaConf

from gad_verl.core.replay import ReplayBuffer
from gad_verl.errors import GadStalledError

PROMPTS, N, STEPS, ROWS = 8, 4, 6, 48
MODES = ("gad_colocate_async", "gad_separate_async")


@pytest.fixture
def config(tiny_config: DictConfig) -> DictConfig:
    """A pass of 6 steps: one of the discriminator alone, two of warmup, three adversarial."""
    tiny_config.trainer.v1.trainer_mode = "gad_colocate_async"
    tiny_config.trainer.total_training_steps, tiny_config.trainer.total_epochs = STEPS, 1
    tiny_config.trainer.val_before_train = False
    tiny_config.trainer.test_freq = tiny_config.trainer.save_freq = -1
    tiny_config.gad.discriminator_only_steps, tiny_config.gad.warmup_steps = 1, 3
    tiny_config.gad.replay_poll_interval_s = 0.001
    tiny_config.algorithm.rollout_correction.rollout_is = "token"
    return tiny_config


def separate(config: DictConfig, updates: int) -> DictConfig:
    config.trainer.v1.trainer_mode = "gad_separate_async"
    config.trainer.v1.separate_async.parameter_sync_step = updates
    config.actor_rollout_ref.actor.ppo_mini_batch_size = PROMPTS // updates
    config.actor_rollout_ref.rollout.nnodes = config.actor_rollout_ref.rollout.n_gpus_per_node = 1
    return config


def late(index: int, session: int, step: int) -> tuple[int, int]:
    """The first two sessions are written by the weights of now, the others by those of up to two updates ago."""
    now = step - 1
    return (now, now) if session < 2 else (max(0, now - 2), now)


def note_rows(run: FakeRun) -> list[list[int]]:
    """Rows of the data that each batch is made of."""
    rows: list[list[int]] = []
    read = run.trainer.rollouts.read

    def noted(batch: Any, *args: Any, **kwargs: Any) -> Any:
        found = read(batch, *args, **kwargs)
        if batch.partition_id == "train":
            rows.append([group.index for group in found.groups])
        return found

    run.trainer.rollouts.read = noted
    return rows


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("hybrid", [True, False])
def test_a_run_goes_through_its_stages(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, mode: str, hybrid: bool
) -> None:
    if mode == "gad_separate_async":
        separate(config, updates=1)
        config.actor_rollout_ref.hybrid_engine = hybrid
    elif not hybrid:
        pytest.skip("colocated is hybrid")
    run = FakeRun(config, monkeypatch)
    rows = note_rows(run)
    run.fit()
    assert [run.metrics[step]["gad/stage"] for step in range(1, STEPS + 1)] == [0, 1, 1, 2, 2, 2]
    # Every row once: a pass is six steps, and what was asked beyond it waits.
    assert sorted(sum(rows, [])) == list(range(ROWS)) and len(run.rollouts.asked) == ROWS + PROMPTS
    for step, metrics in run.metrics.items():
        # A step trains on prompts that were asked one step before, the first one on its own.
        assert metrics["gad/rollout_age_mean"] == metrics["gad/rollout_age_max"] == float(step > 1)
        assert metrics["disc/num_pairs"] == PROMPTS * N == metrics["disc/fresh_pairs"] + metrics["disc/old_pairs"]
        assert metrics["gad/failed_rollouts"] == metrics["gad/mixed_version_groups"] == 0
    assert len(run.policy_rows()) == 3 and len(run.student.named("supervised_update")) == 2
    assert len(run.student.named("load_reference_weights")) == 1


def test_token_weights_are_the_cut_ratio_of_the_student_to_the_rollout(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed form: the stand-ins answer log-probabilities of -(id % 7 + 1) / 7 now and of -1 when they wrote it."""
    run = FakeRun(config, monkeypatch).fit()
    seen = []
    for rows in run.policy_rows():
        for row in rows:
            student = -(row["input_ids"] % 7 + 1.0) / 7
            # The log-probability of a token stands where the model reads the token before it.
            own = student[len(row["prompts"]) - 1 : -1]
            expected = torch.exp(own + 1.0).clamp(max=2.0)
            torch.testing.assert_close(row["rollout_is_weights"].float(), expected.float())
            seen += expected.tolist()
    assert min(seen) < 1.2 and max(seen) == 2.0


def test_pairs_of_old_rollouts_are_told_apart(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The discriminator of this test is right about nobody but the sessions that are old."""
    config.gad.trust.held_out_fraction, config.gad.trust.least_prompts = 0.4, 2

    def answer(index: int, session: int, step: int) -> str:
        return "bad" if session >= 2 else "good"

    def score(ids: list[int]) -> float:
        text = run.trainer.tokenizer.decode(ids)
        return -1.0 if text.count("bad") else 1.0 if text.count("good") else 0.0

    run = FakeRun(config, monkeypatch, answer, score, versions=late)
    run.fit()
    for step, metrics in run.metrics.items():
        old = step > 2 or (step == 2 and metrics["disc/old_pairs"] > PROMPTS * 2)
        if step >= 4:
            # Asked a step before: two sessions are of one update ago then, the others of three.
            assert metrics["gad/rollout_age_max"] == 3 and metrics["gad/rollout_age_mean"] == 2
            assert metrics["gad/mixed_version_groups"] == PROMPTS and old
            assert metrics["disc/old_accuracy"] == metrics["disc/accuracy"] == 0.5
        if step == 1:
            assert metrics["disc/fresh_pairs"] == PROMPTS * N and "disc/old_accuracy" not in metrics
        held_out = metrics["gad/trust_fresh_pairs"] + metrics["gad/trust_old_pairs"]
        assert held_out % N == 0 and held_out < PROMPTS * N


@pytest.mark.parametrize("most", [0, 1, 2, None])
def test_groups_that_are_too_old_give_rewards_and_train_nobody(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    config.gad.off_policy.discriminator_max_age = most

    def versions(index: int, session: int, step: int) -> tuple[int, int]:
        return (max(0, step - 1 - index % 2), step - 1)

    run = FakeRun(config, monkeypatch, versions=versions).fit()
    assert run.discriminator is not None
    of_steps = run.discriminator.named("update", "score")
    assert len(of_steps) == STEPS
    for step, groups in enumerate(of_steps, start=1):
        too_old = sum(not group.trains for group in groups)
        # Where all are, nothing is left to learn from.
        assert run.metrics[step]["disc/updates"] == (too_old < len(groups))
        assert run.metrics[step]["disc/too_old_groups"] == too_old
        if step >= 3:
            # Ages are 1 and 2.
            older = {0: PROMPTS, 1: None, 2: 0, None: 0}[most]
            assert 0 < too_old < PROMPTS if older is None else too_old == older
    for rows in run.policy_rows():
        assert len(rows) == PROMPTS * N and any(row["rm_scores"].abs().sum() > 0 for row in rows)


@pytest.mark.parametrize("shared_memory", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_a_validation_parks_requests_only_where_it_wants_their_memory(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, mode: str, shared_memory: bool
) -> None:
    if mode == "gad_separate_async":
        separate(config, updates=1)
        config.actor_rollout_ref.hybrid_engine = shared_memory
    config.actor_rollout_ref.rollout.free_cache_engine = shared_memory
    config.trainer.test_freq = 2
    run = FakeRun(config, monkeypatch)
    told: list[list[str]] = []
    validate = type(run.trainer)._validate

    def noted(trainer: Any) -> Any:
        before, manager = len(run.replicas), trainer.checkpoint_manager
        found = validate(trainer)
        told.append(run.replicas[before:])
        assert trainer.checkpoint_manager is manager
        return found

    monkeypatch.setattr(type(run.trainer), "_validate", noted)
    run.fit()
    assert len(told) == 3
    for one in told:
        # One batch of validation. Whoever was aborted is resumed, behind the weights that it had.
        assert one == (["aborted", "asleep", "awake", "resumed"] if shared_memory else [])


@pytest.mark.parametrize("stopped", [2, 3, 5])
@pytest.mark.parametrize("mode", MODES)
def test_no_prompt_is_lost_and_none_trained_twice(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, mode: str, stopped: int
) -> None:
    """Killed in the step after a checkpoint; some rollouts were on their way for long."""
    if mode == "gad_separate_async":
        separate(config, updates=2)
    config.trainer.save_freq, config.gad.warmup_rollout_n = stopped, 2
    first = FakeRun(config, monkeypatch)
    first.rollouts.holds = lambda index, step: index % 6 == 0
    rows = note_rows(first)

    def die() -> None:
        if first.trainer.global_steps == stopped + 1:
            raise KeyboardInterrupt

    first.trainer.prepare_step, prepare = lambda: die() or prepare(), first.trainer.prepare_step
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    batches = stopped * config.trainer.v1.separate_async.parameter_sync_step if "separate" in mode else stopped
    trained = sum(rows[:batches], [])
    assert len(trained) == stopped * PROMPTS

    second = FakeRun(config, monkeypatch)
    rest = note_rows(second)
    second.trainer.init()
    waiting = second.queue.kv_list("train")["train"]
    prompts = {key for key, tag in waiting.items() if tag.get("is_prompt")}
    assert len(prompts) == PROMPTS
    # Trajectories of trained steps are gone: nobody would ever ask for them.
    assert all(key in prompts or key.split("_")[0] in prompts for key in waiting)
    unfinished = [key for key in prompts if waiting[key]["status"] == "running"]
    saved = [int(second.queue.fields["train"][key]["__rollout_n__"]) for key in waiting if key in unfinished]
    second.trainer.fit(second.rollouts)
    left = [
        int(second.queue.fields["train"][key]["index"])
        for key, tag in second.queue.kv_list("train")["train"].items()
        if tag.get("is_prompt")
    ]
    # At the end of the run prompts of the next pass are on their way, and may be done before late ones of this pass.
    next_pass = second.rollouts.asked[-PROMPTS:]
    assert Counter(trained + sum(rest, []) + left) == Counter([*range(ROWS), *next_pass])
    assert stopped == 5 or sorted(trained + sum(rest, [])) == list(range(ROWS))
    # What was asked for fewer rollouts, since the warmup was to train it, is asked for as many again.
    assert saved and second.rollouts.sessions[: len(saved)] == saved
    assert stopped > 2 or set(saved) == {2}


def test_at_the_switch_each_prompt_has_the_rollouts_of_its_step(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.gad.warmup_rollout_n = 2
    run = FakeRun(config, monkeypatch).fit()
    assert run.rollouts.sessions == [2] * 3 * PROMPTS + [N] * 4 * PROMPTS
    for step, metrics in run.metrics.items():
        assert metrics["gad/failed_rollouts"] == 0
        assert metrics["disc/num_pairs"] == PROMPTS * (2 if step <= 3 else N)


def test_a_response_without_siblings_has_no_direction(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt of the warmup that comes late, asked for one rollout: GRPO would take its score for an advantage."""
    config.gad.warmup_rollout_n = 1
    run = FakeRun(config, monkeypatch)
    ask = run.trainer.prompts.ask
    # The last prompt of each batch counts as one of the warmup.
    run.trainer.prompts.ask = lambda count: [
        1 if place % PROMPTS == 7 else step for place, step in enumerate(ask(count))
    ]
    run.fit()
    alone = 0
    for rows in run.policy_rows():
        counts: dict[str, int] = {}
        for row in rows:
            counts[row["uid"]] = counts.get(row["uid"], 0) + 1
        for row in rows:
            if counts[row["uid"]] == 1:
                alone += 1
                assert row["rm_scores"].abs().sum() == 0 and row["advantages"].abs().sum() == 0
    assert alone == 3
    assert all(metrics["gad/failed_rollouts"] == 0 for metrics in run.metrics.values())


def test_rollouts_that_always_fail_end_the_run(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(index: int, session: int, step: int) -> str | None:
        return None if step >= 2 and session == 3 else random_answer(index, session, step)

    run = FakeRun(config, monkeypatch, answer)
    with pytest.raises(GadStalledError, match="thrown away"):
        run.fit()


def test_a_group_that_fails_is_replaced(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config.gad.warmup_rollout_n = 2

    def answer(index: int, session: int, step: int) -> str | None:
        return None if index % 7 == 3 and session == 1 else random_answer(index, session, step)

    run = FakeRun(config, monkeypatch, answer)
    rows = note_rows(run)
    run.fit()
    assert all(len(set(one)) == PROMPTS and not any(index % 7 == 3 for index in one) for one in rows)
    # The replacements are of the step that they are for.
    assert [run.metrics[step]["disc/num_pairs"] for step in range(1, 7)] == [16, 16, 16, 32, 32, 32]


# ------------------------------ several updates a step ------------------------------


@pytest.mark.parametrize("updates", [1, 2, 4])
def test_a_step_of_several_updates_is_counted_as_one(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, updates: int
) -> None:
    separate(config, updates)
    config.gad.replay.capacity_steps, config.gad.replay.fraction = 2, 0.5
    config.gad.warmup.actor_lr, config.gad.adversarial.actor_lr = 2e-3, 1e-3
    seeds: list[int] = []
    draw = ReplayBuffer.draw
    monkeypatch.setattr(
        ReplayBuffer, "draw", lambda buffer, count, seed, *step: seeds.append(seed) or draw(buffer, count, seed, *step)
    )
    run = FakeRun(config, monkeypatch).fit()
    assert run.discriminator is not None
    rates = run.discriminator.named("begin_stage")
    assert rates and {horizon for _, horizon in rates} == {STEPS * updates}
    # No two updates draw by the same number, and two steps are remembered, whatever the number of their updates.
    assert len(set(seeds)) == len(seeds) == STEPS * updates
    replayed = [len(groups) - PROMPTS // updates for groups in run.discriminator.named("update")]
    assert replayed == [0, *[PROMPTS // updates] * (STEPS * updates - 1)]
    assert len(run.trainer.parts.stateful["discriminator"].state_dict()["replay"]["steps"]) == 2 * updates
    # Horizons of the student's stages in its own updates, which come `updates` a step.
    horizons = [given[1] for given in run.student.named("begin_stage")]
    assert horizons == [2 * updates, 3 * updates]
    assert len(run.policy_rows()) == 3 * updates
    supervised = run.student.named("supervised_update")
    assert len(supervised) == 2 * updates
    assert all(int(batch["num_mini_batch"]) == 1 for batch in supervised)
    for step, metrics in run.metrics.items():
        assert metrics["disc/num_pairs"] == PROMPTS * N and metrics["gad/prompts"] == PROMPTS
        assert metrics["disc/updates"] == metrics["disc/busy_s"] == updates
        if step > 2:
            assert metrics["disc/replayed_groups"] == PROMPTS


def test_old_log_probs_are_of_the_weights_that_began_the_step(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first update of a step learns from no scores where the discriminator is not trusted yet; the second may."""
    separate(config, updates=2)
    run = FakeRun(config, monkeypatch)
    learns = type(run.trainer)._learns_from_scores
    monkeypatch.setattr(
        type(run.trainer),
        "_learns_from_scores",
        property(lambda trainer: learns.fget(trainer) and trainer.local_trigger_step == 1),
    )
    run.fit()
    copies = [name for name, _ in run.student.calls if name in ("save_model_to_cpu", "compute_log_prob")]
    # Kept at the first update of each adversarial step; at the second the present weights are kept too, and come back.
    assert copies == ["save_model_to_cpu", "save_model_to_cpu", "compute_log_prob"] * 3
    assert run.student.named("restore_model_from_cpu") == [0, 1] * 3


def test_the_same_checkpoint_in_another_mode_begins_a_pass_anew(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """verl's place in the data counts fetches, and an asynchronous run fetches row by row."""
    config.trainer.save_freq = 3
    run = FakeRun(config, monkeypatch)
    stop: Callable[[], None] = lambda: (  # noqa: E731
        (Path(config.trainer.default_local_dir) / "stop").touch() if run.trainer.global_steps == 3 else None
    )
    run.trainer.on_step_begin = stop
    run.fit()
    other = OmegaConf.merge(config, {"trainer": {"v1": {"trainer_mode": "gad_sync"}}, "data": {"gen_batch_size": None}})
    again = FakeRun(other, monkeypatch).fit()
    assert sorted(again.metrics) == list(range(1, STEPS + 1))
    assert any(event["rule"] == "changed" and "trainer mode" in event["text"] for event in again.events)
