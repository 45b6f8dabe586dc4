# Copyright 2025 Individual Contributor: The gad_verl Authors
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
"""``trainer.v1.sampler.poll_interval`` reaches the replay buffer, and only a time that can be waited is taken."""

import math
from pathlib import Path
from unittest.mock import patch

import pytest
from omegaconf import OmegaConf

import verl.trainer
import verl.trainer.ppo.v1.replay_buffer as replay_buffer_module
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

CONFIGS = sorted((Path(verl.trainer.__file__).parent / "config").glob("*ppo*trainer.yaml"))


class _StubTrainer(PPOTrainer):
    def on_step_end(self):
        pass

    def on_sample_end(self):
        pass


class _CustomSampler:
    def __init__(self, **kwargs):
        self.kwargs = kwargs


def _trainer(trainer_mode: str, **sampler) -> _StubTrainer:
    trainer = _StubTrainer.__new__(_StubTrainer)
    trainer.trainer_mode = trainer_mode
    settings = {
        "custom_sampler": None,
        "max_off_policy_threshold": 1,
        "max_off_policy_strategy": "drop",
        "sampler_kwargs": {},
    }
    trainer.config = OmegaConf.create(
        {
            "algorithm": {"filter_groups": {"enable": False}},
            "data": {"train_batch_size": 64, "gen_batch_size": 8},
            "reward": {"reward_model": {"enable": False, "enable_resource_pool": False}},
            "trainer": {"v1": {trainer_mode: {}, "sampler": settings | sampler}},
        }
    )
    return trainer


@pytest.mark.parametrize("trainer_mode", ["sync", "colocate_async", "separate_async"])
@pytest.mark.parametrize(("sampler", "expected"), [({"poll_interval": 0.05}, 0.05), ({"poll_interval": 3}, 3), ({}, 2)])
def test_built_in_samplers_wait_as_long_as_configured(monkeypatch, trainer_mode, sampler, expected):
    waited = []
    monkeypatch.setattr(replay_buffer_module.time, "sleep", waited.append)

    buffer = _trainer(trainer_mode, **sampler)._build_replay_buffer()
    buffer._wait_for_next_poll("train", last_debug_time=math.inf)

    assert type(buffer) is (ReplayBuffer if trainer_mode == "sync" else ReplayBufferAsync)
    assert waited == [expected]


@pytest.mark.parametrize("wrong", [0, -1.0, math.inf, math.nan])
def test_what_cannot_be_waited_is_refused(wrong):
    with pytest.raises(ValueError, match="poll_interval"):
        _trainer("sync", poll_interval=wrong)._build_replay_buffer()


def test_custom_samplers_are_built_as_before():
    trainer = _trainer("sync", poll_interval=0.05)
    trainer.config.trainer.v1.sampler.custom_sampler = {"path": "custom.py", "name": "CustomSampler"}
    with patch("verl.trainer.ppo.v1.trainer_base.load_extern_type", return_value=_CustomSampler):
        sampler = trainer._build_replay_buffer()
    assert "poll_interval" not in sampler.kwargs


def test_every_configuration_with_a_sampler_has_the_key():
    samplers = [OmegaConf.select(OmegaConf.load(path), "trainer.v1.sampler") for path in CONFIGS]
    samplers = [sampler for sampler in samplers if sampler is not None]
    assert len(samplers) >= 5
    assert [sampler.poll_interval for sampler in samplers] == [2.0] * len(samplers)
