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
"""Rows longer than a model reads: the check before a run, the doctor, and what the models really do."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from tiny_families import FAMILIES, Family, family_config
from tiny_model import build_model
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CodeGenConfig,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MptConfig,
    Qwen2Config,
    XGLMConfig,
)

from gad_verl import preflight
from gad_verl.errors import GadConfigError
from gad_verl.preflight.position_check import STUDENT, check_rows, positions_of
from gad_verl.tools.doctor.finding import ERROR, OK, WARNING
from gad_verl.tools.doctor.tokenizers import check_positions

JUDGE = "discriminator.model"
POSITIONS = 256


def changed(config: DictConfig, **values: Any) -> DictConfig:
    """Set dotted keys (``__`` for the dot)."""
    for key, value in values.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    return config


def refused(check: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(GadConfigError) as error:
        check(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_rows_longer_than_a_model_reads(
    tiny_config: DictConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model(tmp_path / "short", layers=1, max_position_embeddings=100)
    limits = {"data__max_prompt_length": 64, "data__max_response_length": 36}
    config = changed(tiny_config, actor_rollout_ref__model__path=str(model), gad__discriminator_head="fresh", **limits)
    changed(config, actor_rollout_ref__rollout__max_model_len=None)
    for name in ("hf", "vllm"):
        preflight.run_preflight(changed(config, actor_rollout_ref__rollout__name=name))
    assert "positions" not in caplog.text
    message = refused(preflight.run_preflight, changed(config, data__max_response_length=37))
    assert "64 + 37 = 101, but actor_rollout_ref.model reads 100 tokens" in message
    # Rotary positions go on: transformers computes, and what comes of it is said to be unknown.
    with caplog.at_level(logging.WARNING, "gad_verl"):
        preflight.run_preflight(changed(config, actor_rollout_ref__rollout__name="hf"))
    assert "actor_rollout_ref.model reads 100 tokens" in caplog.text


# ------------------------------ what models really do ------------------------------


def reads(hf_config: Any, length: int) -> bool:
    """Whether a model of random weights computes a row of so many tokens."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(hf_config).eval()
    try:
        with torch.no_grad():
            model(input_ids=torch.randint(0, 40, (1, length)))
    except (IndexError, RuntimeError):
        return False
    return True


def agrees(config: DictConfig, hf_config: Any) -> None:
    """The check lets a row pass if the model computes it, and the other way round."""
    hf_config = hf_config.get_text_config()
    changed(config, actor_rollout_ref__rollout__name="hf", data__max_prompt_length=POSITIONS)
    for beyond in (0, 9):
        changed(config, data__max_response_length=beyond)
        try:
            found = check_rows(config, JUDGE, hf_config)
        except GadConfigError:
            found = None
        assert (found is not None) == reads(hf_config, POSITIONS + beyond), (hf_config.model_type, beyond)
        # What is read though it is longer than what is trained on is said.
        limit = None if found is None else found.positions.limit
        assert found is None or found.warning == (limit is not None and POSITIONS + beyond > limit)


OTHERS = {
    "mpt": MptConfig(vocab_size=64, d_model=32, n_layers=1, n_heads=4, max_seq_len=POSITIONS),
    "codegen": CodeGenConfig(vocab_size=64, n_embd=32, n_layer=1, n_head=4, n_positions=POSITIONS, rotary_dim=4),
    "xglm": XGLMConfig(
        vocab_size=64, d_model=32, num_layers=1, attention_heads=4, ffn_dim=32, max_position_embeddings=POSITIONS
    ),
    "falcon with slopes": FalconConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        alibi=True,
        max_position_embeddings=POSITIONS,
    ),
}
# One for each kind of positions; the others cost a minute.
KINDS = ("llama", "gpt2", "opt", "gptj", "bloom", "nemotron_h")


@pytest.mark.parametrize("name", OTHERS)
def test_the_check_says_what_a_model_does(tiny_config: DictConfig, name: str) -> None:
    agrees(tiny_config, OTHERS[name])


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, id=key, marks=() if family.model_type in KINDS else pytest.mark.slow)
        for key, family in FAMILIES.items()
    ],
)
def test_the_check_says_what_a_family_does(tiny_config: DictConfig, family: Family) -> None:
    agrees(tiny_config, family_config(family))


# ------------------------------ servers of the rollout ------------------------------


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_a_server_of_verl_takes_no_more_than_the_positions(tiny_config: DictConfig, name: str) -> None:
    config = changed(tiny_config, data__max_prompt_length=100, data__max_response_length=29)
    changed(config, actor_rollout_ref__rollout__name=name, actor_rollout_ref__rollout__max_model_len=None)
    for hf_config in (Qwen2Config(max_position_embeddings=128), GPT2Config(n_positions=128)):
        message = refused(check_rows, config, STUDENT, hf_config)
        assert "100 + 29 = 129, but actor_rollout_ref.model reads 128 tokens" in message
    # The discriminator is read by no server.
    assert check_rows(config, JUDGE, Qwen2Config(max_position_embeddings=128)).warning


@pytest.mark.parametrize("hf_config", [BloomConfig(), MptConfig()], ids=lambda shape: shape.model_type)
def test_a_server_of_verl_wants_a_number_of_positions(tiny_config: DictConfig, hf_config: Any) -> None:
    pytest.importorskip("vllm")
    from verl.workers.rollout.utils import get_max_position_embeddings

    with pytest.raises(ValueError, match="max_position_embeddings"):
        get_max_position_embeddings(hf_config)
    changed(tiny_config, actor_rollout_ref__rollout__name="vllm")
    assert "rollout.name=hf" in refused(check_rows, tiny_config, STUDENT, hf_config)
    changed(tiny_config, actor_rollout_ref__rollout__name="hf")
    assert not check_rows(tiny_config, STUDENT, hf_config).warning


def test_a_context_beyond_the_positions(tiny_config: DictConfig) -> None:
    config = changed(tiny_config, actor_rollout_ref__rollout__max_model_len=1025)
    preflight.run_preflight(changed(config, actor_rollout_ref__rollout__name="hf"))
    changed(config, actor_rollout_ref__rollout__name="vllm")
    assert "max_model_len=1025 is more than the 1024 positions" in refused(preflight.run_preflight, config)


def stretched(kind: type[Any] = Qwen2Config, **rope: Any) -> Any:
    shape = kind(max_position_embeddings=100)
    shape.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0, **rope}
    return shape


@pytest.mark.parametrize(
    ("hf_config", "limit"),
    [
        (stretched(), 100),
        (stretched(rope_type="yarn", factor=4.0), 400),
        (stretched(rope_type="yarn", factor=4.0, original_max_position_embeddings=25), 100),
        (stretched(rope_type="linear", factor=2.0), 200),
        (stretched(rope_type="dynamic", factor=2.0), 200),
        (stretched(LlamaConfig, rope_type="llama3", factor=8.0, original_max_position_embeddings=12), 100),
        (stretched(Gemma3TextConfig, rope_type="linear", factor=8.0), 100),
    ],
)
def test_stretched_positions_count_but_for_a_server_of_verl(
    tiny_config: DictConfig, hf_config: Any, limit: int
) -> None:
    rope = hf_config.rope_parameters
    if rope["rope_type"] != "yarn" or "original_max_position_embeddings" in rope:
        vllm = pytest.importorskip("vllm.config.model")
        arch = SimpleNamespace(derived_max_model_len_and_key=(100, "max_position_embeddings"))
        assert vllm._get_and_verify_max_len(hf_config, arch, None, None, False, None) == limit
    changed(tiny_config, actor_rollout_ref__rollout__name="vllm")
    assert positions_of(tiny_config, JUDGE, hf_config).limit == limit
    assert positions_of(tiny_config, STUDENT, hf_config).limit == 100
    changed(tiny_config, actor_rollout_ref__rollout__name="hf")
    assert positions_of(tiny_config, STUDENT, hf_config).limit == limit


def test_positions_that_vllm_counts_lower_than_verl(tiny_config: DictConfig) -> None:
    shape = stretched(rope_type="yarn", factor=2.0, original_max_position_embeddings=40)
    config = changed(tiny_config, actor_rollout_ref__rollout__name="vllm", data__max_prompt_length=40)
    changed(config, data__max_response_length=30, actor_rollout_ref__rollout__max_model_len=None)
    assert "max_model_len=null is more than the 80 positions" in refused(check_rows, config, STUDENT, shape)
    assert not check_rows(changed(config, actor_rollout_ref__rollout__max_model_len=80), STUDENT, shape).warning


# ------------------------------ the doctor ------------------------------


@pytest.mark.parametrize("rollout", ["hf", "vllm"])
@pytest.mark.parametrize("response", [36, 37])
def test_the_doctor_says_what_the_run_does(
    tiny_config: DictConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, rollout: str, response: int
) -> None:
    model = build_model(tmp_path / "short", layers=1, max_position_embeddings=100)
    limits = {"data__max_prompt_length": 64, "data__max_response_length": response}
    config = changed(tiny_config, actor_rollout_ref__model__path=str(model), gad__discriminator_head="fresh", **limits)
    changed(config, actor_rollout_ref__rollout__max_model_len=None, actor_rollout_ref__rollout__name=rollout)
    student, judge = (finding.level for finding in check_positions(config, True))
    # It is the same model, and no server reads it.
    assert judge == {36: OK, 37: WARNING}[response]
    try:
        with caplog.at_level(logging.WARNING, "gad_verl"):
            preflight.run_preflight(config)
    except GadConfigError:
        assert student == ERROR
    else:
        assert student == (WARNING if "what lies beyond them" in caplog.text else OK)
    assert student == {36: OK, 37: {"hf": WARNING, "vllm": ERROR}[rollout]}[response]
