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
"""An attention that a GPU of this machine cannot compute is refused before Ray starts, with the one to take instead."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.utils
from omegaconf import DictConfig, OmegaConf, open_dict

from gad_verl.errors import GadConfigError
from gad_verl.preflight.attention_check import check_attention


@pytest.fixture
def gpu_config(compose_config: Any, tiny_folder: Path) -> DictConfig:
    """``gad_trainer`` as it is, on the tiny model."""
    return compose_config("gad_trainer", f"actor_rollout_ref.model.path={tiny_folder / 'model'}")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with a GPU."""

    def build(flash: bool = False, kernels: bool = False, capability: int = 9) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (capability, 0))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a card")
        monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: flash)
        monkeypatch.setattr(transformers.utils, "is_kernels_available", lambda *_: kernels)

    return build


def refusal(config: DictConfig, **settings: Any) -> str:
    with pytest.raises(GadConfigError) as raised:
        check_attention(config, **({"has_discriminator": True} | settings))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_default_without_its_package_is_refused_and_the_remedy_helps(gpu_config: DictConfig, machine: Any) -> None:
    machine()
    text = refusal(gpu_config)
    assert text.startswith("actor_rollout_ref.model: ") and "flash-attn is not installed" in text
    remedies = [word for word in text.split() if word.count("=") == 1 and word.split("=")[0].endswith(("n", "g"))]
    given = dict(word.removeprefix("++").split("=") for word in remedies)
    assert set(given) == {
        "actor_rollout_ref.model.override_config.attn_implementation",
        "actor_rollout_ref.model.use_remove_padding",
    }
    with open_dict(gpu_config):
        for key, value in given.items():
            OmegaConf.update(gpu_config, key, value, force_add=True)
    # The discriminator takes the student's.
    check_attention(gpu_config, has_discriminator=True)


def test_a_discriminator_with_an_attention_of_its_own_is_named(gpu_config: DictConfig, machine: Any) -> None:
    machine()
    with open_dict(gpu_config):
        gpu_config.actor_rollout_ref.model.override_config = {"attn_implementation": "sdpa"}
        gpu_config.discriminator.model.override_config = {}
    assert refusal(gpu_config).startswith("discriminator.model: ")
    check_attention(gpu_config, has_discriminator=False)


def test_an_old_gpu_is_named(gpu_config: DictConfig, machine: Any) -> None:
    machine(flash=True, capability=7)
    assert "a card is older" in refusal(gpu_config)


def test_verls_critic_has_no_other_attention(gpu_config: DictConfig, machine: Any) -> None:
    machine()
    with open_dict(gpu_config):
        gpu_config.actor_rollout_ref.model.override_config = {"attn_implementation": "sdpa"}
        gpu_config.algorithm.adv_estimator = "gae"
    assert "adv_estimator=grpo" in refusal(gpu_config)


@pytest.mark.parametrize("there", [{"flash": True}, {"kernels": True}])
def test_what_can_be_computed_passes(gpu_config: DictConfig, machine: Any, there: dict[str, bool]) -> None:
    machine(**there)
    check_attention(gpu_config, has_discriminator=True)


def test_a_machine_without_gpus_is_not_asked(gpu_config: DictConfig, tiny_config: DictConfig, machine: Any) -> None:
    """A launch from a node without GPUs says nothing of the nodes that train; gad_cpu has torch's attention."""
    check_attention(gpu_config, has_discriminator=True)
    machine()
    check_attention(tiny_config, has_discriminator=True)
