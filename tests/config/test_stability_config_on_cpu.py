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
"""Options of stable training: defaults that change nothing, checked values, presets."""

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig, load_gad_config
from gad_verl.core import PairLossOptions
from gad_verl.core.gating import GateOptions
from gad_verl.errors import GadConfigError
from gad_verl.preflight.options import check_held_out, check_task_columns, check_tools

SECTIONS = (
    "trust",
    "discriminator_loss",
    "discriminator_updates",
    "replay",
    "reward",
    "guardian",
    "record",
    "teachers",
    "curriculum",
)


def set_keys(config: DictConfig, values: dict[str, Any]) -> DictConfig:
    for key, value in values.items():
        OmegaConf.update(config, key, value)
    return config


def test_defaults_are_the_papers_training() -> None:
    config = GadConfig()
    assert config.discriminator_loss.pair_options() == PairLossOptions()
    assert config.discriminator_updates.gate_options() == GateOptions()
    assert config.replay.capacity_steps == 0 and not config.discriminator_updates.frozen
    assert not config.trust.enabled and not config.reward.credits_tokens and config.reward.task_weight == 0
    assert config.guardian.policy_of("saturated") == "warn" and config.curriculum.mode == "none"


def test_the_yaml_says_the_same(tiny_config: DictConfig) -> None:
    loaded, built = load_gad_config(tiny_config), GadConfig()
    for section in SECTIONS:
        for field in fields(getattr(built, section)):
            found, expected = (getattr(getattr(one, section), field.name) for one in (loaded, built))
            assert found == expected, (section, field.name)


WRONG = [
    ({"gad.discriminator_loss.kind": "hinge"}, "gad.discriminator_loss.kind"),
    ({"gad.discriminator_loss.temperature": 0}, "gad.discriminator_loss.temperature"),
    ({"gad.discriminator_loss.label_smoothing": 0.6}, "gad.discriminator_loss.label_smoothing"),
    ({"gad.discriminator_loss.gradient_penalty": -1}, "gad.discriminator_loss.gradient_penalty"),
    ({"gad.discriminator_loss.gradient_penalty_distance": 0}, "gradient_penalty_distance"),
    ({"gad.discriminator_loss.gradient_penalty_every": 0}, "gradient_penalty_every"),
    ({"gad.discriminator_updates.every_steps": 0}, "gad.discriminator_updates.every_steps"),
    ({"gad.discriminator_updates.accuracy_memory": 1.0}, "gad.discriminator_updates.accuracy_memory"),
    ({"gad.replay.fraction": 1.0}, "gad.replay.fraction"),
    ({"gad.replay.capacity_steps": -1}, "gad.replay.capacity_steps"),
    ({"gad.replay.order": "oldest"}, "gad.replay.order"),
    ({"gad.trust.held_out_fraction": 1.0}, "gad.trust.held_out_fraction"),
    ({"gad.trust.full_accuracy": 0.5}, "gad.trust.full_accuracy"),
    ({"gad.trust.otherwise": "texts"}, "gad.trust.otherwise"),
    ({"gad.supervised_weight": -0.1}, "gad.supervised_weight"),
    ({"gad.trust.window": 3}, "gad.trust.window"),
    ({"gad.reward.score_clip": 0.0}, "gad.reward.score_clip"),
    ({"gad.reward.length_correction": "per_token"}, "gad.reward.length_coefficient"),
    ({"gad.reward.length_coefficient": 0.1}, "length_correction=none does not read"),
    (
        {"gad.reward.length_correction": "regression", "gad.reward.length_coefficient": 0.1},
        "set that to per_token or log",
    ),
    ({"gad.reward.length_correction": "words"}, "gad.reward.length_correction"),
    ({"gad.reward.whitening": "all"}, "gad.reward.whitening"),
    ({"gad.reward.malformed_pattern": "("}, "gad.reward.malformed_pattern"),
    ({"gad.reward.malformed_pattern": "a"}, "malformed_penalty=0"),
    ({"gad.reward.token_weight": -0.1}, "gad.reward.token_weight"),
    ({"gad.reward.discriminator_weight": 0.0}, "there is no reward"),
    ({"gad.reward.sequence_weight": 0.0}, "there is no reward"),
    ({"gad.reward.phrase_unit": "word"}, "gad.reward.phrase_unit"),
    ({"gad.record.samples_every_steps": 0}, "gad.record.samples_every_steps"),
]


@pytest.mark.parametrize(("values", "named"), WRONG, ids=lambda value: str(value))
def test_a_wrong_value_is_named(tiny_config: DictConfig, values: dict[str, Any], named: str) -> None:
    with pytest.raises(GadConfigError, match=named.replace(".", r"\.")):
        load_gad_config(set_keys(tiny_config, values))


MISFITS = [
    ({"gad.reward.token_weight": 1.0, "algorithm.adv_estimator": "grpo"}, "adv_estimator=gad_process"),
    (
        {"gad.discriminator_loss.gradient_penalty": 1.0, "discriminator.fsdp.ulysses_sequence_parallel_size": 2},
        "ulysses_sequence_parallel_size to 1",
    ),
    ({"gad.replay.capacity_steps": 3, "gad.replay.fraction": 0.0}, "set the fraction above 0"),
]


@pytest.mark.parametrize(("values", "remedy"), MISFITS, ids=lambda value: str(value))
def test_options_that_do_not_fit_are_refused_with_the_remedy(
    tiny_config: DictConfig, values: dict[str, Any], remedy: str
) -> None:
    check_tools(tiny_config, load_gad_config(tiny_config))
    set_keys(tiny_config, values)
    with pytest.raises(GadConfigError, match=remedy):
        check_tools(tiny_config, load_gad_config(tiny_config))


@pytest.mark.parametrize("otherwise", ["hold", "supervised"])
@pytest.mark.parametrize(
    ("last", "remedy"), [(0.05, "raise the fraction to 0.06, "), (0.4321, "raise the fraction to 0.44, "), (0.6, "")]
)
def test_too_few_prompts_held_out_end_a_run_that_learns_from_nothing_else(
    tiny_config: DictConfig, otherwise: str, last: float, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"held_out_fraction": 0.04, "least_prompts": 3, "otherwise": otherwise}
    set_keys(tiny_config, {f"gad.trust.{key}": value for key, value in changes.items()})
    config = load_gad_config(tiny_config)
    for first, wanted in (([0.01, 0.02, 0.04, last], remedy), ([0.01, 0.02], "")):
        wanted = f"holds out 2 different prompts.*from scores: {wanted}lower least"
        caplog.clear()
        if otherwise == "hold":
            with pytest.raises(GadConfigError, match=wanted):
                check_held_out(config, 480, first)
        else:
            check_held_out(config, 480, first)
            assert re.search(wanted, caplog.text) and "learns from the texts alone" in caplog.text
    caplog.clear()
    check_held_out(config, 480, [0.01, 0.02, 0.0399, last])
    # Where no scores teach, none are waited for.
    tiny_config.gad.stage = "warmup"
    check_held_out(load_gad_config(tiny_config), 480, [])
    tiny_config.gad.trust.held_out_fraction = 0.0
    tiny_config.gad.trust.otherwise = "hold"
    check_held_out(load_gad_config(tiny_config), 480, [])
    assert not caplog.text


def test_a_task_reward_wants_its_columns(tiny_config: DictConfig) -> None:
    set_keys(tiny_config, {"gad.reward.task_weight": 1.0})
    with pytest.raises(GadConfigError, match="'reward_model'.*train.parquet.*task_weight=0"):
        check_task_columns(tiny_config, load_gad_config(tiny_config))


def test_the_recommended_preset_composes_over_every_configuration(compose_config: Callable[..., DictConfig]) -> None:
    for name in ("gad_cpu", "gad_trainer", "gad_megatron_trainer"):
        plain, recommended = compose_config(name, "gad=paper"), compose_config(name)
        assert recommended == compose_config(name, "gad=recommended")
        config = load_gad_config(recommended)
        assert config.reward.length_correction == "none" and config.replay.capacity_steps == 0
        # The objective: nats, texts, two rates.
        assert config.trust.enabled and config.trust.otherwise == "supervised"
        assert plain.algorithm.norm_adv_by_std_in_grpo and not recommended.algorithm.norm_adv_by_std_in_grpo
        # verl's rate is that of the scores.
        assert config.adversarial.actor_lr is None
        assert 0 < recommended.actor_rollout_ref.actor.optim.lr < config.warmup.actor_lr
        assert set(recommended.gad) == set(plain.gad)


def test_the_published_method_has_a_name(compose_config: Callable[..., DictConfig]) -> None:
    for name in ("gad_cpu", "gad_trainer", "gad_megatron_trainer"):
        assert compose_config(name, "gad=paper") == compose_config(name, "gad=gad")
