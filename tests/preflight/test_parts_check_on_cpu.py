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
"""What verl refuses when it builds rollout, student and discriminator is one line before the run."""

import copy
import importlib.util
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from gad_verl.config import load_gad_config
from gad_verl.errors import GadConfigError
from gad_verl.preflight import check_config
from gad_verl.preflight.parts_check import check_parts

ACTOR, ROLLOUT, REF = (f"actor_rollout_ref.{name}" for name in ("actor", "rollout", "ref"))
SIZE, TOKENS = "micro_batch_size_per_gpu", "max_token_len_per_gpu"
# Rows of equal number for all three.
EQUAL = {f"{ACTOR}.use_dynamic_bsz": False, f"{ROLLOUT}.log_prob_use_dynamic_bsz": False}
SIZES = {f"{ACTOR}.ppo_{SIZE}": 1, f"{ROLLOUT}.log_prob_{SIZE}": 1}


def changed(config: DictConfig, values: dict[str, Any]) -> DictConfig:
    config = copy.deepcopy(config)
    for key, value in values.items():
        OmegaConf.update(config, key, value, force_add=True)
    return config


def said(config: DictConfig, values: dict[str, Any]) -> str:
    config = changed(config, values)
    try:
        check_parts(config, load_gad_config(config))
    except GadConfigError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


@pytest.fixture(autouse=True)
def every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all rollouts of verl were installed, but TensorRT-LLM."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorrt_llm" else name)


@pytest.mark.parametrize(
    ("values", "key", "words"),
    [
        ({f"{ROLLOUT}.name": "vLLM"}, f"{ROLLOUT}.name=vLLM", "vllm"),
        ({f"{ROLLOUT}.name": "trtllm"}, f"{ROLLOUT}.name=trtllm", "tensorrt_llm"),
        ({f"{ROLLOUT}.mode": "sync"}, f"{ROLLOUT}.mode=sync", "async"),
        ({f"{ROLLOUT}.name": "vllm", f"{ROLLOUT}.pipeline_model_parallel_size": 2}, ROLLOUT, "pipeline_model"),
        ({f"{ROLLOUT}.expert_parallel_size": 2}, ROLLOUT, "expert_parallel_size"),
        ({"discriminator.optim.lr_scheduler_type": "linear"}, "discriminator.optim", "lr_scheduler_type"),
        ({f"{ACTOR}.optim.lr_scheduler_type": "linear"}, f"{ACTOR}.optim", "lr_scheduler_type"),
        ({f"{ACTOR}.loss_agg_mode": "token"}, ACTOR, "loss_agg_mode"),
        ({f"{ACTOR}.optim.optimizer": "Foo"}, f"{ACTOR}.optim", "'Foo' not found in module 'torch.optim'"),
        ({f"{ACTOR}.optim.optimizer_impl": "no.such"}, f"{ACTOR}.optim", "'no.such'"),
        ({"discriminator.optim.optimizer": "foo"}, "discriminator.optim", "'foo' not found"),
        ({"discriminator.optim.override_optimizer_config": {"foo": 1}}, "discriminator.optim", "'foo'"),
        ({f"{ACTOR}.fsdp_config.model_dtype": "foo"}, f"{ACTOR}.fsdp_config.model_dtype=foo", "bf16"),
        ({f"{REF}.fsdp_config.model_dtype": "foo"}, f"{REF}.fsdp_config.model_dtype=foo", "bf16"),
        ({"discriminator.fsdp.model_dtype": "float8"}, "discriminator.fsdp.model_dtype=float8", "bf16"),
        (
            {f"{ACTOR}.fsdp_config.mixed_precision": {"reduce_dtype": "half"}},
            f"{ACTOR}.fsdp_config.mixed_precision.reduce_dtype=half",
            "fp16",
        ),
        ({f"{ROLLOUT}.log_prob_use_dynamic_bsz": False}, f"{ACTOR}.use_dynamic_bsz=True", "log_prob_use_dynamic_bsz"),
        ({**EQUAL, **SIZES, f"{ROLLOUT}.log_prob_{SIZE}": None}, ACTOR, f"{ROLLOUT}.log_prob_{SIZE}"),
        ({**EQUAL, **SIZES, f"{ACTOR}.ppo_{SIZE}": None, f"{ACTOR}.ppo_micro_batch_size": 8}, ACTOR, f"ppo_{SIZE}"),
        ({f"{ACTOR}.ppo_{TOKENS}": None}, ACTOR, f"{ACTOR}.ppo_{TOKENS}"),
        ({f"{REF}.log_prob_use_dynamic_bsz": False, f"{REF}.log_prob_{SIZE}": None}, REF, f"log_prob_{SIZE}"),
    ],
)
def test_what_verl_refuses_is_one_line(tiny_config: DictConfig, values: dict[str, Any], key: str, words: str) -> None:
    message = said(tiny_config, {f"{ACTOR}.use_kl_loss": True, **values})
    assert message.startswith(key) and words in message


def test_what_verl_takes_passes(compose_config: Any, tiny_config: DictConfig) -> None:
    assert not said(tiny_config, {})
    assert not said(tiny_config, {**EQUAL, **SIZES, f"{REF}.log_prob_{SIZE}": 1})
    assert not said(tiny_config, {f"{ROLLOUT}.name": "sglang"})
    experts = {"expert_parallel_size": 2, "tensor_model_parallel_size": 2}
    assert not said(tiny_config, {f"{ROLLOUT}.{name}": value for name, value in experts.items()})
    # What no step reads does not matter.
    unread = {f"{REF}.log_prob_use_dynamic_bsz": False, f"{REF}.log_prob_{SIZE}": None}
    assert not said(tiny_config, {**unread, f"{ACTOR}.use_kl_loss": False})
    assert not said(tiny_config, {"discriminator.optim.lr_scheduler_type": "linear", "gad.stage": "seqkd"})
    for name in ("gad_cpu", "gad_trainer", "gad_megatron_trainer", "gad_async"):
        assert not said(compose_config(name), {})


def test_the_check_of_a_configuration_looks(tiny_config: DictConfig) -> None:
    with pytest.raises(GadConfigError, match=r"^discriminator\.optim: verl refuses"):
        check_config(changed(tiny_config, {"discriminator.optim.lr_scheduler_type": "linear"}))


def test_building_changes_nothing(tiny_config: DictConfig) -> None:
    before = copy.deepcopy(tiny_config)
    check_parts(tiny_config, load_gad_config(tiny_config))
    assert tiny_config == before and tiny_config.discriminator._get_full_key("model") == "discriminator.model"


def test_types_and_optimizers_that_verl_has_are_accepted(tiny_config: DictConfig) -> None:
    for dtype in ("bf16", "bfloat16", "fp16", "float32", 32, None):
        assert said(tiny_config, {f"{ACTOR}.fsdp_config.model_dtype": dtype}) == ""
    without_reference = {f"{ACTOR}.use_kl_loss": False, "algorithm.use_kl_in_reward": False}
    for values in (
        {f"{ACTOR}.optim.optimizer": "SGD"},
        {f"{ACTOR}.optim.override_optimizer_config": {"foreach": False}},
        {f"{ACTOR}.fsdp_config.mixed_precision": {"param_dtype": "fp32"}},
        # Read by a run with a reference alone.
        {f"{REF}.fsdp_config.model_dtype": "foo", **without_reference},
    ):
        assert said(tiny_config, values) == ""
