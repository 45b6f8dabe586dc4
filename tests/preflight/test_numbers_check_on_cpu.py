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
"""What a user mistypes in verl's sections: rates that are no numbers, a greedy rollout, options that nobody reads."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from gad_verl.config import load_gad_config
from gad_verl.core.schedule import StageSchedule
from gad_verl.errors import GadConfigError
from gad_verl.preflight import check_config
from gad_verl.preflight.numbers_check import check_folder, check_numbers
from gad_verl.preflight.unread_check import check_read, check_stages_read

ROLLOUT = "actor_rollout_ref.rollout"


def refused(config: DictConfig, key: str, value: Any) -> str:
    OmegaConf.update(config, key, value, force_add=True)
    with pytest.raises(GadConfigError) as raised:
        check_config(config)
    message = str(raised.value)
    assert key in message and str(value) in message and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"{ROLLOUT}.temperature", 0),
        (f"{ROLLOUT}.temperature", -1.0),
        (f"{ROLLOUT}.temperature", "warm"),
        (f"{ROLLOUT}.top_p", 90),
        (f"{ROLLOUT}.top_p", 0.0),
        (f"{ROLLOUT}.top_k", 0.5),
        ("actor_rollout_ref.actor.optim.lr", "1e-6x"),
        ("actor_rollout_ref.actor.optim.lr", float("nan")),
        ("actor_rollout_ref.actor.kl_loss_coef", "small"),
        ("discriminator.optim.lr", -1e-6),
        ("discriminator.optim.clip_grad", 0),
        ("trainer.save_freq", 0.5),
        ("trainer.test_freq", "often"),
        # verl compares both with 0.
        ("trainer.save_freq", None),
        ("trainer.test_freq", None),
        ("trainer.total_epochs", 1.5),
        ("data.seed", "abc"),
        (f"{ROLLOUT}.top_k", -2),
        (f"{ROLLOUT}.val_kwargs.temperature", -0.1),
        (f"{ROLLOUT}.val_kwargs.temperature", float("inf")),
        (f"{ROLLOUT}.val_kwargs.top_p", 2),
        (f"{ROLLOUT}.val_kwargs.top_k", 1.5),
        (f"{ROLLOUT}.val_kwargs.top_k", -3),
        (f"{ROLLOUT}.gpu_memory_utilization", 1.5),
        (f"{ROLLOUT}.agent.num_workers", 0),
        (f"{ROLLOUT}.max_num_seqs", 0),
        (f"{ROLLOUT}.max_num_batched_tokens", -8),
        (f"{ROLLOUT}.dtype", "foo"),
        ("trainer.resume_mode", "always"),
    ],
)
def test_a_number_that_is_none_or_out_of_range_is_named(tiny_config: DictConfig, key: str, value: Any) -> None:
    refused(tiny_config, key, value)


def test_greedy_rollouts_are_refused_with_the_reason_but_not_where_there_are_none(tiny_config: DictConfig) -> None:
    assert "all answers to a prompt are the same" in refused(tiny_config, f"{ROLLOUT}.temperature", 0.0)
    tiny_config.gad.stage = "seqkd"
    check_numbers(tiny_config, load_gad_config(tiny_config))


def test_what_is_legal_stays_legal(tiny_config: DictConfig) -> None:
    legal = {
        "data.seed": None,
        "trainer.save_freq": -1,
        "trainer.test_freq": 0,
        f"{ROLLOUT}.top_k": 1,
        f"{ROLLOUT}.val_kwargs.temperature": 0,
        f"{ROLLOUT}.val_kwargs.top_k": 0,
        f"{ROLLOUT}.gpu_memory_utilization": 1.0,
        f"{ROLLOUT}.top_p": 1,
        "actor_rollout_ref.actor.optim.lr": 0,
    }
    for key, value in legal.items():
        OmegaConf.update(tiny_config, key, value, force_add=True)
    check_numbers(tiny_config, load_gad_config(tiny_config))


@pytest.mark.parametrize("below", ["", "run", "run/deeper"])
def test_a_file_in_the_place_of_the_folder_of_the_run(tiny_config: DictConfig, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    message = refused(tiny_config, "trainer.default_local_dir", str(tmp_path / "file" / below))
    assert f"{tmp_path / 'file'} is a file" in message
    for place in (tmp_path, tmp_path / "new" / "run"):
        tiny_config.trainer.default_local_dir = str(place)
        check_folder(tiny_config)


def test_a_folder_of_the_run_that_cannot_be_written_to(
    tiny_config: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may = os.access
    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and may(path, mode))
    message = refused(tiny_config, "trainer.default_local_dir", str(tmp_path / "new" / "run"))
    assert f"nothing can be written to {tmp_path}:" in message
    # On a cluster the run may start on another machine, and `gad-verl doctor --cluster` asks there.
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_folder(tiny_config)


def test_a_checkpoint_that_is_named_is_gone_on_from_or_an_error_says_why_not(tiny_config: DictConfig) -> None:
    message = refused(tiny_config, "trainer.resume_from_path", "/checkpoints/global_step_5")
    assert "trainer.resume_mode=resume_path" in message
    for mode in ("resume_path", "disable"):
        tiny_config.trainer.resume_mode = mode
        check_read(tiny_config, load_gad_config(tiny_config))


def warnings_of(config: DictConfig, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check_read(config, load_gad_config(config))
    return [record.getMessage() for record in caplog.records]


def test_a_warmup_of_a_run_without_one_is_warned_of(tiny_config: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    tiny_config.gad.warmup_steps = 7
    for stage in ("auto", "soda"):
        tiny_config.gad.stage = stage
        assert warnings_of(tiny_config, caplog) == []
    for stage in ("seqkd", "warmup"):
        tiny_config.gad.stage = stage
        (said,) = warnings_of(tiny_config, caplog)
        assert "gad.warmup_steps=7" in said and f"gad.stage={stage}" in said


def test_gad_with_a_discriminator_that_knows_nothing_is_warned_of(
    tiny_config: DictConfig, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_config.gad.stage, tiny_config.gad.warmup_steps = "gad", None
    (said,) = warnings_of(tiny_config, caplog)
    assert "gad.discriminator_only_steps" in said and "discriminator.model.path" in said
    tiny_config.discriminator.model.path = "/exported/discriminator"
    assert warnings_of(tiny_config, caplog) == []
    tiny_config.gad.discriminator_head = "fresh"
    assert len(warnings_of(tiny_config, caplog)) == 1


def test_nodes_of_a_discriminator_without_gpus_of_its_own_are_warned_of(
    tiny_config: DictConfig, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_config.gad.discriminator_nnodes = 2
    (said,) = warnings_of(tiny_config, caplog)
    assert "gad.discriminator_nnodes=2" in said and "gad.discriminator_n_gpus_per_node" in said
    tiny_config.gad.discriminator_n_gpus_per_node = 4
    assert warnings_of(tiny_config, caplog) == []


@pytest.mark.parametrize(
    ("key", "value", "without", "with_them"),
    [
        ("discriminator_only_updates", 3, StageSchedule("auto", 9, 4), StageSchedule("auto", 9, 4, 2)),
        ("discriminator_only_updates", 3, StageSchedule("gad", 9), StageSchedule("warmup", 9, 0, 2)),
        ("warmup_rollout_n", 1, StageSchedule("auto", 9), StageSchedule("auto", 9, 4)),
        ("warmup_rollout_n", 1, StageSchedule("seqkd", 9), StageSchedule("warmup", 9)),
    ],
)
def test_what_only_steps_read_that_a_run_has_not_is_warned_of(
    tiny_config: DictConfig,
    caplog: pytest.LogCaptureFixture,
    key: str,
    value: int,
    without: StageSchedule,
    with_them: StageSchedule,
) -> None:
    tiny_config.gad[key] = value
    gad_config = load_gad_config(tiny_config)
    with caplog.at_level(logging.WARNING):
        check_stages_read(gad_config, with_them)
        assert caplog.messages == []
        check_stages_read(gad_config, without)
    (said,) = caplog.messages
    assert f"gad.{key}={value}" in said


@pytest.mark.parametrize("name", ["prompt_length", "response_length"])
@pytest.mark.parametrize("change", [-1, 1])
def test_lengths_of_the_rollout_are_those_of_the_data(tiny_config: DictConfig, name: str, change: int) -> None:
    limit = tiny_config.data[f"max_{name}"]
    assert f"data.max_{name}={limit}" in refused(tiny_config, f"{ROLLOUT}.{name}", limit + change)


@pytest.mark.parametrize("stage", ["seqkd", "warmup", "soda"])
def test_several_epochs_of_a_stage_that_takes_one_are_warned_of(
    tiny_config: DictConfig, caplog: pytest.LogCaptureFixture, stage: str
) -> None:
    tiny_config.actor_rollout_ref.actor.ppo_epochs = 2
    assert warnings_of(tiny_config, caplog) == []
    tiny_config.gad.stage = stage
    (said,) = warnings_of(tiny_config, caplog)
    assert "actor_rollout_ref.actor.ppo_epochs=2" in said and f"gad.stage={stage}" in said


@pytest.mark.parametrize("model", ["actor_rollout_ref.actor", "discriminator"])
def test_checkpoints_that_do_not_hold_the_model_are_refused(tiny_config: DictConfig, model: str) -> None:
    key = f"{model}.checkpoint"
    others = ["optimizer", "extra"]
    assert "model" in refused(tiny_config, f"{key}.save_contents", others)
    # Loading follows saving, unless somebody says otherwise.
    OmegaConf.update(tiny_config, f"{key}.save_contents", ["model"])
    check_config(tiny_config)
    assert "model" in refused(tiny_config, f"{key}.load_contents", others)
    tiny_config.trainer.resume_mode = "disable"
    check_config(tiny_config)
    # What never is written may lack everything.
    OmegaConf.update(tiny_config, f"{key}.save_contents", others)
    tiny_config.trainer.save_freq = -1
    check_config(tiny_config)


def test_the_discriminators_checkpoint_of_a_run_without_one_does_not_matter(tiny_config: DictConfig) -> None:
    tiny_config.gad.stage, tiny_config.discriminator.checkpoint.save_contents = "seqkd", ["extra"]
    check_config(tiny_config)
