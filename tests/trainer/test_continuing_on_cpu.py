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
"""A checkpoint knows its run: whole runs (tests/tools/fake_run.py) that go on with other data, batches or settings."""

import json
import logging
import os
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from fake_run import FakeRun
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from gad_verl.core.schedule import ADVERSARIAL, SEQKD, WARMUP, StageSchedule, stage_of
from gad_verl.errors import GadCheckpointError
from gad_verl.trainer.begun import BegunRun
from gad_verl.trainer.checkpoints import GadState
from gad_verl.trainer.data_state import DataState
from gad_verl.trainer.lease import Lease

BATCH = 8


@pytest.fixture
def config(tiny_config: DictConfig) -> DictConfig:
    """An epoch is two steps of 8 prompts: one of the discriminator alone, one of warmup, then the adversarial stage."""
    tiny_config.data.train_max_samples, tiny_config.data.train_batch_size = 2 * BATCH, BATCH
    tiny_config.data.seed = 3
    tiny_config.actor_rollout_ref.actor.ppo_mini_batch_size = 1
    tiny_config.trainer.total_training_steps, tiny_config.trainer.total_epochs = None, 3
    tiny_config.trainer.val_before_train = False
    tiny_config.trainer.test_freq, tiny_config.trainer.save_freq = -1, 100
    tiny_config.gad.discriminator_only_steps = 1
    tiny_config.gad.warmup_steps, tiny_config.gad.warmup_epochs = None, 1.0
    return tiny_config


def stop_after(run: FakeRun, step: int) -> None:
    """Ask for the end as a person does."""

    def ask() -> None:
        if run.trainer.global_steps == step:
            (Path(run.config.trainer.default_local_dir) / "stop").touch()

    run.trainer.on_step_begin = ask


def stages(run: FakeRun) -> list[float]:
    return [metrics["gad/stage"] for _, metrics in sorted(run.metrics.items())]


def saved_steps(config: DictConfig) -> list[int]:
    root = Path(config.trainer.default_local_dir)
    return sorted(int(path.name.rsplit("_", 1)[1]) for path in root.glob("global_step_*") if (path / "actor").is_dir())


def references(config: DictConfig) -> list[str]:
    return sorted(path.name for path in Path(config.trainer.default_local_dir).glob("kl_reference_step_*"))


# ------------------------------ the length of a run ------------------------------


@pytest.mark.parametrize(("epochs", "steps"), [(1, 5), (2, 7), (9, 3)])
def test_the_steps_that_are_asked_for_are_made_and_the_last_one_is_saved(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, epochs: int, steps: int
) -> None:
    config.trainer.total_epochs, config.trainer.total_training_steps = epochs, steps
    run = FakeRun(config, monkeypatch).fit()
    assert stages(run) == [0, 1, *[2] * (steps - 2)]
    assert saved_steps(config) == [steps]
    info = json.loads((Path(config.trainer.default_local_dir) / "record" / "run.json").read_text())
    assert info["finished"] is not None


@pytest.mark.parametrize("frequency", [100, 3])
def test_minutes_save_beside_steps(config: DictConfig, monkeypatch: pytest.MonkeyPatch, frequency: int) -> None:
    """A step takes a minute; every two minutes a checkpoint is due, and one by steps counts too."""
    config.trainer.save_freq, config.gad.save_minutes = frequency, 2.0
    run = FakeRun(config, monkeypatch)
    minutes = SimpleNamespace(monotonic=lambda: 60.0 * getattr(run.trainer, "global_steps", 0))
    monkeypatch.setattr("gad_verl.trainer.checkpoints.time", minutes)
    run.fit()
    assert saved_steps(config) == ([2, 4, 6] if frequency == 100 else [2, 3, 5, 6])


def test_a_run_that_has_lost_its_folder_saves_nothing(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config.trainer.save_freq = 2
    run = FakeRun(config, monkeypatch)

    def other_run() -> None:
        if run.trainer.global_steps == 3:
            Lease(Path(config.trainer.default_local_dir)).take()

    run.trainer.on_step_begin = other_run
    with pytest.raises(GadCheckpointError, match="belongs to another run now"):
        run.fit()
    assert saved_steps(config) == [2]


# ------------------------------ going on ------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_run_goes_on_in_its_stage_whatever_happened_to_the_data(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    cut, total = (seed % 5) + 1, 6
    rows, batch = rng.choice([(48, 8), (16, 4), (40, 2), (48, 16), (9, 8), (16, 16)])
    config.gad.curriculum.mode = rng.choice(["none", "none", "pool"])
    first = FakeRun(config, monkeypatch)
    stop_after(first, cut)
    first.fit()
    assert saved_steps(config) == [cut]
    config.data.train_max_samples, config.data.train_batch_size = rows, batch
    second = FakeRun(config, monkeypatch).fit()
    assert stages(second) == [0, 1, 2, 2, 2, 2]
    assert saved_steps(config) == sorted({cut, total}) and references(config) == ["kl_reference_step_2"]
    # The optimizer begins anew at the switch alone, and its schedule knows the length of the stage.
    resets = [len(run.student.named("reset_moments")) for run in (first, second)]
    assert resets == ([0, 1] if cut <= 2 else [1, 0])
    assert [restart for *_, restart in first.student.named("begin_stage")] == [True] * (1 if cut <= 2 else 2)
    # A resumed run gives the workers the rate of its stage anew; the schedule goes on.
    begun = [given[1:] for given in second.student.named("begin_stage")]
    assert begun == ([(1, False)] * (cut < 2) + [(4, True)] if cut <= 2 else [(4, False)])
    assert second.student.named("resume_stage") == [1 if cut <= 2 else 4]
    (event,) = [event for event in second.events if event["rule"] == "changed"]
    assert event["step"] == cut and event["action"] == "warn" and "6 steps" in event["text"]
    if rows != 16:
        assert f"{rows} rows instead of 16" in event["text"]
    if batch != BATCH:
        assert f"{batch} prompts a step instead of {BATCH}" in event["text"]
    groups = second.discriminator.named("update", "begin_update")
    assert {len(given) for given in groups} == {batch}


def test_nothing_is_said_where_nothing_has_changed(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FakeRun(config, monkeypatch)
    stop_after(first, 3)
    first.fit()
    # The same rows in another place.
    content = Path(str(config.data.train_files)).read_bytes()
    elsewhere = Path(config.trainer.default_local_dir).parent / "elsewhere.parquet"
    elsewhere.write_bytes(content)
    config.data.train_files = str(elsewhere)
    second = FakeRun(config, monkeypatch).fit()
    assert [event for event in second.events if event["rule"] == "changed"] == []
    assert stages(second) == [0, 1, 2, 2, 2, 2]


def test_other_texts_of_as_many_rows_are_noticed(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.read_parquet(str(config.data.train_files))
    path = Path(config.trainer.default_local_dir).parent / "own.parquet"
    rows.to_parquet(path)
    config.data.train_files = str(path)
    first = FakeRun(config, monkeypatch)
    stop_after(first, 3)
    first.fit()
    rows["teacher_response"] = [f"{text} indeed" for text in rows["teacher_response"]]
    rows.to_parquet(path)
    second = FakeRun(config, monkeypatch).fit()
    (event,) = [event for event in second.events if event["rule"] == "changed"]
    assert "own.parquet" in event["text"] and stages(second) == [0, 1, 2, 2, 2, 2]


def test_a_longer_run_keeps_its_boundary(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config.trainer.total_epochs = 2
    FakeRun(config, monkeypatch).fit()
    config.data.train_max_samples, config.trainer.total_epochs = 48, 4
    second = FakeRun(config, monkeypatch).fit()
    assert stages(second) == [0, 1, *[2] * 6] and saved_steps(config) == [4, 8]


def test_the_end_is_the_end(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FakeRun(config, monkeypatch).fit()
    with caplog.at_level(logging.INFO, "gad_verl"):
        again = FakeRun(config, monkeypatch).fit()
    assert "nothing is left to train" in caplog.text and not again.student.named("policy_update")
    config.trainer.total_training_steps = 4
    with pytest.raises(GadCheckpointError, match=r"global_step_6 .* 4 steps.*trainer.total_training_steps"):
        FakeRun(config, monkeypatch).fit()


@pytest.mark.parametrize(
    ("cut", "changes", "named"),
    [
        (4, {"gad.warmup_epochs": 2.0}, "gad.warmup_steps=2"),
        (4, {"gad.warmup_steps": 3}, "gad.warmup_steps=2"),
        (4, {"gad.stage": "warmup"}, "gad.stage=auto"),
        (4, {"gad.stage": "seqkd"}, "gad.stage=auto"),
        (2, {"gad.discriminator_only_steps": 2}, "gad.discriminator_only_steps=1"),
    ],
)
def test_a_run_that_would_go_back_is_refused(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, cut: int, changes: dict[str, Any], named: str
) -> None:
    first = FakeRun(config, monkeypatch)
    stop_after(first, cut)
    first.fit()
    for key, value in changes.items():
        section, name = key.split(".")
        config[section][name] = value
    with pytest.raises(GadCheckpointError, match=rf"global_step_{cut}.*{named}.*trainer\.resume_mode=disable"):
        FakeRun(config, monkeypatch).fit()


def test_a_warmup_that_goes_on_may_become_longer(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FakeRun(config, monkeypatch)
    stop_after(first, 2)
    first.fit()
    config.gad.warmup_steps = 4
    second = FakeRun(config, monkeypatch).fit()
    assert stages(second) == [0, 1, 1, 1, 2, 2] and references(config) == ["kl_reference_step_4"]


# ------------------------------ the rule ------------------------------


@st.composite
def schedules(draw: st.DrawFn) -> StageSchedule:
    total = draw(st.integers(2, 12))
    stage = draw(st.sampled_from(["auto", "auto", "seqkd", "warmup", "gad"]))
    warmup = draw(st.integers(0, total - 1))
    alone = draw(st.integers(0, warmup))
    return StageSchedule(stage, total, warmup, alone)


@given(before=schedules(), now=schedules(), data=st.data())
def test_what_is_not_refused_has_only_stages_that_follow(
    before: StageSchedule, now: StageSchedule, data: st.DataObject
) -> None:
    step = data.draw(st.integers(1, before.total_steps))
    stage = stage_of(before.phase(step))
    begun = BegunRun(Path("global_step_1"), GadState(step, stage, True, None, None, schedule=before), None)
    try:
        begun.check(now)
    except GadCheckpointError as error:
        assert now != before and "trainer.resume_mode=disable" in str(error)
        return
    phases = [(before if n <= step else now).phase(n) for n in range(1, now.total_steps + 1)]
    names = [stage_of(phase) for phase in phases]
    assert step <= now.total_steps
    if SEQKD in names:
        assert set(names) == {SEQKD}
    else:
        assert names == [WARMUP] * names.count(WARMUP) + [ADVERSARIAL] * names.count(ADVERSARIAL)
        # The phases too: the discriminator is not alone again once the student has learned.
        values = [phase.value for phase in phases]
        assert values == sorted(values)


def test_a_checkpoint_of_before_is_read_and_still_does_not_go_back(tmp_path: Path) -> None:
    old = {"step": 4, "stage": "adversarial", "has_discriminator": True, "kl_reference": None}
    state = GadState(**old, discriminator_shape=None)
    begun = BegunRun(tmp_path / "global_step_4", state, None)
    begun.check(StageSchedule("auto", 12, 2, 1))
    assert begun.steps_per_epoch(6) == 6
    with pytest.raises(GadCheckpointError, match="would be of stage warmup"):
        begun.check(StageSchedule("auto", 12, 6, 1))


def test_the_epoch_is_that_of_the_beginning(tmp_path: Path) -> None:
    begun = BegunRun(tmp_path, GadState(4, "warmup", True, None, None), DataState("verl", 3, 24, 8))
    assert begun.steps_per_epoch(99) == 3


def test_a_run_without_a_place_for_its_metrics_logs_below_its_folder(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(until: int | None) -> dict[int, dict[str, float]]:
        run = FakeRun(config, monkeypatch)
        monkeypatch.delenv("VERL_FILE_LOGGER_PATH")
        if until is not None:
            stop_after(run, until)
        trainer = config.trainer
        run.log_file = Path(trainer.default_local_dir) / trainer.project_name / f"{trainer.experiment_name}.jsonl"
        return run.fit().metrics

    first, second = start(3), start(None)
    assert sorted(first) == [1, 2, 3] and sorted(second) == [1, 2, 3, 4, 5, 6]
    assert {step: second[step] for step in first} == first
    assert "VERL_FILE_LOGGER_PATH" not in os.environ
