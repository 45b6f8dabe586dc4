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
"""What the check before a run says of an estimator is what verl's estimator does."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, get_adv_estimator_fn

import gad_verl.trainer.estimators  # noqa: F401  registers gad_process
from gad_verl.errors import GadConfigError
from gad_verl.preflight.config_check import check_config

PAIRS, TRIPLES = [0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1]


def advantages(estimator: str, rewards: torch.Tensor, prompts: Sequence[int]) -> torch.Tensor | None:
    """As a step of verl's V1 trainer computes them; None where it does not have what the estimator asks for."""
    data: dict[str, Any] = {"token_level_rewards": rewards.clone(), "response_mask": torch.ones_like(rewards)}
    if estimator == "gae":
        data |= {"values": torch.zeros_like(rewards), "gamma": 1.0, "lam": 1.0}
    else:
        data |= {"index": np.array(prompts), "config": AlgoConfig()}
    if estimator == "gdpo":
        data |= {"batch": {}, "non_tensor_batch": {}}
    try:
        return get_adv_estimator_fn(estimator)(**data)[0]
    except (TypeError, AssertionError) as error:
        assert "missing" in str(error) or "requires" in str(error)
        return None


def refusal(config: DictConfig, estimator: str, **changes: Any) -> str:
    """What the check says against it; empty if nothing."""
    config = copy.deepcopy(config)
    for key, value in {"algorithm.adv_estimator": estimator, **changes}.items():
        OmegaConf.update(config, key, value)
    try:
        check_config(config)
    except GadConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("estimator", sorted(map(str, ADV_ESTIMATOR_REGISTRY)))
def test_the_check_knows_what_each_estimator_does(tiny_config: DictConfig, estimator: str) -> None:
    rewards = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    found = advantages(estimator, rewards, PAIRS)
    if found is None:
        assert estimator in refusal(tiny_config, estimator) and "V1" in refusal(tiny_config, estimator)
        # Where no advantages are computed it does not matter.
        assert not refusal(tiny_config, estimator, **{"gad.stage": "warmup"})
        return
    assert not refusal(tiny_config, estimator)
    at_the_end = torch.zeros_like(rewards)
    at_the_end[:, -1] = rewards.sum(dim=1)
    compares = not torch.allclose(found, advantages(estimator, rewards, TRIPLES))
    sums = torch.allclose(found, advantages(estimator, at_the_end, PAIRS), atol=1e-5)
    alone = refusal(tiny_config, estimator, **{"actor_rollout_ref.rollout.n": 1})
    credit = refusal(tiny_config, estimator, **{"gad.reward.token_weight": 1.0})
    assert compares == ("rollout.n=1" in alone) == bool(alone)
    assert sums == ("gad_process" in credit) == bool(credit)
