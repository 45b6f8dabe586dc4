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
"""The check of the objective before a run: what cannot be in one batch, rates, and evidence that comes in time."""

import logging
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict

from gad_verl.config import load_gad_config
from gad_verl.core.schedule import StageSchedule
from gad_verl.errors import GadConfigError
from gad_verl.preflight.objective_check import (
    COMMON_ACTOR_LR,
    ENOUGH_TEXTS,
    check_evidence,
    check_objective,
    check_texts,
)


def set_keys(config: DictConfig, values: dict[str, Any]) -> DictConfig:
    with open_dict(config):
        for key, value in values.items():
            OmegaConf.update(config, key, value, force_add=True)
    return config


TURNS = {"gad.trust.otherwise": "supervised", "gad.trust.held_out_fraction": 0.5}
REFUSED = [
    ({"gad.trust.otherwise": "supervised"}, r"gad\.trust\.held_out_fraction above 0"),
    (TURNS | {"actor_rollout_ref.model.use_fused_kernels": True}, r"use_fused_kernels=False, or the temperature to 1"),
    (TURNS | {"actor_rollout_ref.actor.use_prefix_grouper": True}, r"use_prefix_grouper=False"),
    (TURNS | {"distillation.enabled": True}, r"distillation\.enabled=False"),
    ({"gad.supervised_weight": 0.1, "actor_rollout_ref.model.use_fused_kernels": True}, r"use_fused_kernels=False"),
    ({"gad.reward.whitening": "group", "algorithm.norm_adv_by_std_in_grpo": False}, r"set one of them otherwise"),
]


@pytest.mark.parametrize(("values", "remedy"), REFUSED, ids=lambda value: str(value)[-60:])
def test_what_does_not_fit_is_refused(tiny_config: DictConfig, values: dict[str, Any], remedy: str) -> None:
    check_objective(tiny_config, load_gad_config(tiny_config))
    set_keys(tiny_config, values)
    with pytest.raises(GadConfigError, match=remedy):
        check_objective(tiny_config, load_gad_config(tiny_config))
    # Without an adversarial stage there is no such batch.
    tiny_config.gad.stage = "seqkd"
    check_objective(tiny_config, load_gad_config(tiny_config))


def test_what_is_not_asked_about_the_discriminator_is_not_weighed_by_it_unsaid(
    tiny_config: DictConfig, caplog: pytest.LogCaptureFixture
) -> None:
    judged = {"gad.reward.task_weight": 1.0, "gad.reward.discriminator_weight": 0.0}
    set_keys(tiny_config, judged)
    check_objective(tiny_config, load_gad_config(tiny_config))
    for values, rest in (({"gad.trust.held_out_fraction": 0.1}, "the student waits"), (TURNS, "the texts teach")):
        set_keys(tiny_config, values | judged)
        with pytest.raises(GadConfigError, match="discriminator_weight=0 leaves it out .* set gad=paper"):
            check_objective(tiny_config, load_gad_config(tiny_config))
        lines = said(tiny_config, caplog, {"gad.reward.discriminator_weight": 1.0})
        assert sum("f weighs the whole reward" in line and rest in line for line in lines) == 1
        assert not any("f weighs" in line for line in said(tiny_config, caplog, {"gad.reward.task_weight": 0.0}))


@pytest.mark.parametrize("stage", ["seqkd", "warmup"])
def test_a_rate_that_one_has_set_is_not_passed_over(tiny_config: DictConfig, stage: str) -> None:
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        assert compose("gad_trainer").actor_rollout_ref.actor.optim.lr == COMMON_ACTOR_LR
    set_keys(tiny_config, {"gad.stage": stage, "actor_rollout_ref.actor.optim.lr": 1e-4})
    check_objective(tiny_config, load_gad_config(tiny_config))
    tiny_config.gad.warmup.actor_lr = 5e-6
    with pytest.raises(GadConfigError, match=r"optim\.lr=0\.0001 has no effect in stage .*gad\.warmup\.actor_lr=5e-06"):
        check_objective(tiny_config, load_gad_config(tiny_config))
    for rate in (5e-6, COMMON_ACTOR_LR):
        tiny_config.actor_rollout_ref.actor.optim.lr = rate
        check_objective(tiny_config, load_gad_config(tiny_config))


def test_recorded_experts_are_refused_on_megatron(tiny_config: DictConfig) -> None:
    set_keys(tiny_config, TURNS | {"actor_rollout_ref.actor.megatron.router_replay.mode": "R3"})
    check_objective(tiny_config, load_gad_config(tiny_config))
    tiny_config.actor_rollout_ref.actor.strategy = "megatron"
    with pytest.raises(GadConfigError, match="router_replay.mode=disabled"):
        check_objective(tiny_config, load_gad_config(tiny_config))


def test_fused_kernels_at_temperature_one(tiny_config: DictConfig) -> None:
    set_keys(tiny_config, TURNS | {"actor_rollout_ref.model.use_fused_kernels": True})
    tiny_config.actor_rollout_ref.rollout.temperature = 1.0
    check_objective(tiny_config, load_gad_config(tiny_config))


def said(config: DictConfig, caplog: pytest.LogCaptureFixture, *values: dict[str, Any]) -> list[str]:
    for each in values:
        set_keys(config, each)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        check_objective(config, load_gad_config(config))
    return [record.getMessage() for record in caplog.records]


def test_both_rates_are_named(tiny_config: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    in_nats = {"algorithm.norm_adv_by_std_in_grpo": False}
    assert "set algorithm.norm_adv_by_std_in_grpo=False" in said(tiny_config, caplog, TURNS)[0]
    rates = in_nats | {
        "gad.adversarial.actor_lr": 1e-6,
        "gad.warmup.actor_lr": 5e-6,
        "actor_rollout_ref.actor.optim.lr": 1e-6,
    }
    (line,) = said(tiny_config, caplog, TURNS, rates)
    assert "1e-06 where it learns from scores, 5e-06 from texts" in line
    _, line = said(tiny_config, caplog, {"gad.warmup.actor_lr": 1e-6})
    assert "would learn hardly anything" in line
    _, line = said(tiny_config, caplog, {"gad.warmup.actor_lr": 5e-6, "actor_rollout_ref.actor.optim.lr": 3e-5})
    assert "actor_rollout_ref.actor.optim.lr=3e-05 has no effect" in line
    # What the common rate is for one of the stages does have an effect.
    assert len(said(tiny_config, caplog, {"gad.adversarial.actor_lr": None, "gad.warmup.actor_lr": 1e-4})) == 1


@pytest.mark.parametrize(
    ("rows", "warmup", "adversarial", "share"),
    # 60 rows hold out 15 prompts, or by the hash enough; of 30 all together are too few, which another check says.
    [
        (10_000, 10, 60, None),
        (10_000, 2, 60, 0.38),
        (100, 3, 40, 0.43),
        (100, 2, 20, 9),
        (60, 50, 60, 0.40),
        (30, 50, 60, None),
    ],
)
def test_evidence_that_comes_late_is_said_with_the_share_that_would_do(
    tiny_config: DictConfig,
    caplog: pytest.LogCaptureFixture,
    rows: int,
    warmup: int,
    adversarial: int,
    share: float | None,
) -> None:
    set_keys(tiny_config, {"gad.trust.held_out_fraction": 0.25, "data.train_batch_size": 8})
    schedule = StageSchedule("auto", total_steps=warmup + adversarial, warmup_steps=warmup)
    check_evidence(tiny_config, load_gad_config(tiny_config), rows, schedule)
    text = caplog.text
    if share is None:
        assert text == ""
    else:
        # 24 prompts are wanted: one and a half times gad.trust.least_prompts, among those seen by then.
        seen = min(rows, 8 * (warmup + adversarial // 10))
        assert f"ends after {seen} different prompts" in text
        assert (f"hold out {share:.2f} of them" in text) if share <= 0.5 else ("take more prompts" in text)


def test_no_evidence_is_wanted_without_trust_or_adversarial_stage(
    tiny_config: DictConfig, caplog: pytest.LogCaptureFixture
) -> None:
    check_evidence(tiny_config, load_gad_config(tiny_config), 10, StageSchedule("gad", 10))
    set_keys(tiny_config, {"gad.trust.held_out_fraction": 0.25})
    check_evidence(tiny_config, load_gad_config(tiny_config), 10, StageSchedule("warmup", 10))
    assert caplog.text == ""


@pytest.mark.parametrize("rows", [ENOUGH_TEXTS - 1, ENOUGH_TEXTS])
@pytest.mark.parametrize("stage", ["gad", "auto", "warmup", "seqkd"])
def test_few_texts_are_said_where_gad_is_asked_for(
    rows: int, stage: str, tiny_config: DictConfig, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_config.gad.stage = stage
    check_texts(load_gad_config(tiny_config), rows, StageSchedule(stage, 10, warmup_steps=4 if stage == "auto" else 0))
    assert ("499 training rows" in caplog.text) == (rows < ENOUGH_TEXTS and stage in ("gad", "auto"))
