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
"""A key or a configuration of a wrong name: one line that says which one was meant."""

import random

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from gad_verl.config import load_gad_config
from gad_verl.config.near_keys import near_keys
from gad_verl.errors import GadConfigError
from gad_verl.preflight.composing import compose_config

MEANT = {
    "gad.warmup_step": "gad.warmup_steps",
    "warmup_steps": "gad.warmup_steps",
    "gad.adversarial.lr": "gad.adversarial.actor_lr",
    "gad.rollout.n": "actor_rollout_ref.rollout.n",
    "gad.temperature": "actor_rollout_ref.rollout.temperature",
    "data.train_file": "data.train_files",
    "trainer.n_gpu_per_node": "trainer.n_gpus_per_node",
    "rollout.n": "actor_rollout_ref.rollout.n",
    "actor.optim.lr": "actor_rollout_ref.actor.optim.lr",
}


@pytest.mark.parametrize("key", MEANT)
def test_a_key_of_a_wrong_name_or_section_is_answered_with_the_right_one(key: str) -> None:
    with pytest.raises(GadConfigError) as raised:
        compose_config("gad_trainer", [f"{key}=1"])
    message = str(raised.value)
    assert message.startswith(f"{key}: no such key in gad_trainer. Did you mean ") and MEANT[key] in message
    assert "+" not in message and "\n" not in message


def test_a_key_that_is_like_none_is_named_alone() -> None:
    with pytest.raises(GadConfigError, match=r"^xyzzy: no such key in gad_cpu\.$"):
        compose_config("gad_cpu", ["xyzzy=1"])


@pytest.mark.parametrize("value", ["/run=1/x", "/Müller/x", "/a (1)/x", "/a,b/x", "/it's/x", "/a/[b"])
def test_a_value_that_hydra_cannot_read_is_named_with_the_remedy(value: str) -> None:
    with pytest.raises(GadConfigError) as raised:
        compose_config("gad_cpu", ["data.train_batch_size=8", f"data.train_files={value}"])
    message = str(raised.value)
    assert message.startswith(f"data.train_files={value}: Hydra cannot read the value") and "\n" not in message
    remedy = message.rpartition(': "')[2].removesuffix('"')
    (override,) = OverridesParser.create().parse_overrides([remedy])
    assert (override.key_or_group, override.value()) == ("data.train_files", value)


def test_a_key_that_was_added_is_answered_too() -> None:
    with pytest.raises(GadConfigError, match=r"^gad\.warmup_step: no such key\. Did you mean gad\.warmup_steps\?"):
        load_gad_config(OmegaConf.create({"gad": {"warmup_step": 3}}))
    with pytest.raises(GadConfigError, match=r"^gad\.trust\.windw: no such key\. Did you mean gad\.trust\.window\?"):
        load_gad_config(OmegaConf.create({"gad": {"trust": {"windw": 3}}}))


@pytest.mark.parametrize("name", ["gad", "gad_trainr", "ppo"])
def test_a_configuration_of_a_wrong_name_is_answered_with_those_that_there_are(name: str) -> None:
    with pytest.raises(
        GadConfigError, match=f"^--config-name {name}: no such configuration; gad_verl has gad_async, gad_cpu, gad"
    ):
        compose_config(name)


def test_a_letter_too_few_is_always_found() -> None:
    keys = [f"section{number}.some_longer_name_{number}" for number in range(10)]
    generator = random.Random(0)
    for _ in range(50):
        key = generator.choice(keys)
        place = generator.randrange(len("section0."), len(key) - 1)
        assert near_keys(key[:place] + key[place + 1 :], keys)[0] == key
