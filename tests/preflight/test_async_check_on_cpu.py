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
"""Every refusal of verl in the asynchronous modes is a readable error before the run, and what it takes passes."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync

from gad_verl.config.modes import shares_devices, updates_of_step
from gad_verl.errors import GadConfigError
from gad_verl.preflight.config_check import check_config

COLOCATE: dict[str, Any] = {"trainer.v1.trainer_mode": "gad_colocate_async"}
SEPARATE: dict[str, Any] = {
    "trainer.v1.trainer_mode": "gad_separate_async",
    "trainer.v1.separate_async.parameter_sync_step": 2,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
    "actor_rollout_ref.rollout.nnodes": 1,
    "actor_rollout_ref.rollout.n_gpus_per_node": 1,
    "ray_kwargs.ray_init.num_gpus": 2,
}
ENGINE = "actor_rollout_ref.rollout.checkpoint_engine"


@pytest.fixture
def changed(tiny_config: DictConfig) -> Callable[[dict[str, Any]], DictConfig]:
    def made(settings: dict[str, Any]) -> DictConfig:
        tiny_config.algorithm.rollout_correction.rollout_is = "token"
        for key, value in settings.items():
            OmegaConf.update(tiny_config, key, value, force_add=True)
        return tiny_config

    return made


@pytest.mark.parametrize("mode", [COLOCATE, SEPARATE, SEPARATE | {"actor_rollout_ref.hybrid_engine": False}])
def test_what_verl_takes_passes(changed: Callable[..., DictConfig], mode: dict[str, Any]) -> None:
    config = changed(mode)
    check_config(config)
    separate = mode is not COLOCATE
    assert updates_of_step(config) == (2 if separate else 1)
    assert shares_devices(config) == ("actor_rollout_ref.hybrid_engine" not in mode)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (COLOCATE | {"gad.stage": "seqkd"}, "its steps that learn generate nothing"),
        (COLOCATE | {"gad.stage": "soda"}, "its steps that learn generate nothing"),
        (SEPARATE | {"gad.stage": "seqkd"}, "trainer_mode=gad_sync"),
        ({"gad.off_policy.discriminator_max_age": 1}, "no rollout is older"),
        (COLOCATE | {"trainer.v1.sampler.max_off_policy_threshold": 0}, "max_off_policy_threshold=0"),
        (COLOCATE | {"trainer.v1.sampler.max_off_policy_threshold": 1.5}, "max_off_policy_threshold=1.5"),
        (COLOCATE | {"trainer.v1.sampler.max_off_policy_strategy": "keep"}, "drop, wait"),
        (COLOCATE | {"trainer.v1.colocate_async.num_warmup_batches": -1}, "num_warmup_batches=-1"),
        (COLOCATE | {"actor_rollout_ref.rollout.calculate_log_probs": False}, "calculate_log_probs=True"),
        (COLOCATE | {"skip.rollout_tq.enable": True}, "skip.rollout_tq.enable=True"),
        (SEPARATE | {"actor_rollout_ref.actor.ppo_mini_batch_size": 8}, "ppo_mini_batch_size (8): set the latter to 4"),
        (SEPARATE | {"trainer.v1.separate_async.parameter_sync_step": 3}, "parameter_sync_step (3)"),
        (SEPARATE | {"actor_rollout_ref.rollout.nnodes": 0}, "machines of its own"),
        (SEPARATE | {"actor_rollout_ref.rollout.n_gpus_per_node": 0}, "machines of its own"),
        (SEPARATE | {f"{ENGINE}.backend": "naive"}, "within one process"),
        (SEPARATE | {f"{ENGINE}.backend": "pigeon"}, "pigeon not registered"),
        (SEPARATE | {f"{ENGINE}.custom_backend_module": "no.such.module"}, "No module named 'no'"),
        (SEPARATE | {"ray_kwargs.ray_init.num_gpus": 1}, "take 2 together"),
        (SEPARATE | {"gad.discriminator_n_gpus_per_node": 1}, "take 3 together"),
        (SEPARATE | {"actor_rollout_ref.model.lora_rank": 8}, "lora.merge=True"),
        (
            SEPARATE | {"actor_rollout_ref.rollout.name": "vllm", "actor_rollout_ref.rollout.data_parallel_size": 2},
            "does not divide the 1",
        ),
    ],
)
def test_each_refusal_is_one_line(
    changed: Callable[..., DictConfig], settings: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(GadConfigError) as raised:
        check_config(changed(settings))
    assert expected in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"actor_rollout_ref.actor.ppo_mini_batch_size": 8},
        {"actor_rollout_ref.rollout.nnodes": 0},
        {"actor_rollout_ref.rollout.n_gpus_per_node": 0},
        {f"{ENGINE}.backend": "naive"},
    ],
)
def test_verl_refuses_the_same(changed: Callable[..., DictConfig], settings: dict[str, Any]) -> None:
    """What is refused here for verl's sake, verl does refuse; else the check would be in the way."""
    with pytest.raises(AssertionError):
        PPOTrainerSeparateAsync(changed(SEPARATE | settings))


def test_no_correction_is_said(changed: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_config(changed(COLOCATE))
        assert "rollout_correction" not in caplog.text
        check_config(changed(COLOCATE | {"algorithm.rollout_correction.rollout_is": None}))
    assert "algorithm.rollout_correction.rollout_is is null" in caplog.text


def test_gad_async_is_gad_trainer_with_three_keys(compose_config: Callable[..., DictConfig]) -> None:
    def flat(config: DictConfig) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def walk(value: Any, name: str) -> None:
            if isinstance(value, dict):
                for key, item in value.items():
                    walk(item, f"{name}.{key}" if name else str(key))
            else:
                found[name] = value

        walk(OmegaConf.to_container(config, resolve=False), "")
        return found

    for name, plain, more in (("gad_async", "gad_trainer", ()), ("gad_cpu", "gad_cpu", ("+gad_mode=async",))):
        changed, base = flat(compose_config(name, *more)), flat(compose_config(plain))
        different = {key: value for key, value in changed.items() if base.get(key, "-") != value}
        different.pop("actor_rollout_ref.rollout.calculate_log_probs", None)
        assert different == {
            "algorithm.rollout_correction.rollout_is": "token",
            "trainer.v1.trainer_mode": "gad_colocate_async",
        }
        assert changed["actor_rollout_ref.rollout.calculate_log_probs"] is True
