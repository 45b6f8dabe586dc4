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
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY, get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage

from gad_verl.config import load_gad_config
from gad_verl.errors import GadConfigError
from gad_verl.preflight.config_check import check_config
from gad_verl.preflight.names_check import check_names
from gad_verl.preflight.objective_check import check_objective
from gad_verl.preflight.options import _NEVER_MADE, DIVIDE_BY_SPREAD, KEEP_UNIT
from gad_verl.trainer.estimators import WITHOUT_SIBLINGS

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


def in_a_step(estimator: str, rewards: torch.Tensor, **options: Any) -> torch.Tensor:
    """Advantages as verl's trainer asks for them, critic and flag included."""
    fields = {"token_level_rewards": rewards, "response_mask": torch.ones_like(rewards), "values": 0 * rewards}
    data = DataProto.from_dict(fields, {"uid": np.array(PAIRS, dtype=object)})
    config = AlgoConfig(adv_estimator=estimator, **options)
    return compute_advantage(data, estimator, num_repeat=2, config=config, **options).batch["advantages"]


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
    assert compares == ("rollout.n=1" in alone) == bool(alone) == (estimator not in WITHOUT_SIBLINGS)
    assert sums == ("gad_process" in credit) == bool(credit)


@pytest.mark.parametrize("estimator", sorted(set(map(str, ADV_ESTIMATOR_REGISTRY)) - set(_NEVER_MADE)))
def test_an_estimator_that_divides_by_a_spread_is_warned_of_where_scores_are_weighed_in_nats(
    tiny_config: DictConfig, estimator: str, caplog: pytest.LogCaptureFixture
) -> None:
    rewards = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    whole, small = (in_a_step(estimator, size * rewards, norm_adv_by_std_in_grpo=False) for size in (1.0, 0.001))
    keeps = torch.allclose(small, 0.001 * whole, rtol=1e-3, atol=1e-7)
    assert (estimator in KEEP_UNIT) == keeps and (estimator in DIVIDE_BY_SPREAD) != keeps
    values = {
        "gad.trust.held_out_fraction": 0.5,
        "gad.trust.otherwise": "supervised",
        "gad.reset_optimizer_at_switch": True,
    }
    for key, value in {**values, "algorithm.adv_estimator": estimator}.items():
        OmegaConf.update(tiny_config, key, value)
    for flag in (False, True):
        caplog.clear()
        tiny_config.algorithm.norm_adv_by_std_in_grpo = flag
        with caplog.at_level(logging.WARNING, logger="gad_verl"):
            check_objective(tiny_config, load_gad_config(tiny_config))
        said = [record.getMessage() for record in caplog.records if "in nats" in record.getMessage()]
        assert len(said) == (flag or not keeps) and all(("rloo" in one) == (not keeps) for one in said)


def own_module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    name = f"registers_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    return name


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("algorithm.adv_estimator", "grpoo", "grpo"),
        ("actor_rollout_ref.actor.policy_loss.loss_mode", "gsop", "gspo"),
        ("actor_rollout_ref.actor.kl_loss_type", "lowvar_kl", "low_var_kl"),
        ("actor_rollout_ref.actor.kl_loss_type", "full", "low_var_kl"),
        ("algorithm.kl_penalty", "k4", "k3"),
    ],
)
def test_a_name_that_verl_does_not_have_is_answered_with_those_that_there_are(
    tiny_config: DictConfig, key: str, value: str, meant: str
) -> None:
    reads = {"actor_rollout_ref.actor.use_kl_loss": True, "algorithm.use_kl_in_reward": True}
    estimator = value if "adv_est" in key else "grpo"
    said = refusal(tiny_config, estimator, **reads, **{key: value})
    assert said.startswith(f"{key}={value}: ") and meant in said and "\n" not in said
    assert not refusal(tiny_config, estimator, **reads, **{key: value, "gad.stage": "seqkd"})
    assert not refusal(
        tiny_config, meant if "adv_est" in key else "grpo", **reads, **({} if "adv_est" in key else {key: meant})
    )


def test_a_kind_of_kl_that_nobody_reads_is_no_matter(tiny_config: DictConfig) -> None:
    kinds = {"actor_rollout_ref.actor.kl_loss_type": "none", "algorithm.kl_penalty": "none"}
    assert not refusal(tiny_config, "grpo", **kinds, **{"actor_rollout_ref.actor.use_kl_loss": False})


@pytest.mark.parametrize("loss", sorted(POLICY_LOSS_REGISTRY))
def test_every_loss_of_verl_passes(tiny_config: DictConfig, loss: str) -> None:
    check_names(set_loss(tiny_config, loss), load_gad_config(tiny_config))


def set_loss(config: DictConfig, loss: str) -> DictConfig:
    OmegaConf.update(config, "actor_rollout_ref.actor.policy_loss.loss_mode", loss)
    return config


def test_what_a_library_registers_is_known(
    tiny_config: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from verl.trainer.ppo.core_algos import register_adv_est, register_policy_loss\n"
    text += "register_policy_loss('of_mine')(print)\n"
    name = own_module(tmp_path, monkeypatch, text)
    monkeypatch.setattr(core_algos, "POLICY_LOSS_REGISTRY", dict(POLICY_LOSS_REGISTRY))
    loss, library = "actor_rollout_ref.actor.policy_loss.loss_mode", "actor_rollout_ref.model.external_lib"
    assert "of_mine" in refusal(tiny_config, "grpo", **{loss: "of_mine"})
    assert not refusal(tiny_config, "grpo", **{loss: "of_mine", library: name})
    folder = tmp_path / "broken"
    folder.mkdir()
    broken = own_module(folder, monkeypatch, "import no_such_package")
    said = refusal(tiny_config, "grpo", **{library: broken})
    assert said.startswith(f"{library}={broken} ") and "no_such_package" in said
