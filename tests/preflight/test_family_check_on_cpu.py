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
"""Families that cannot be trained as configured are refused before a run, in one sentence with the remedy."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict
from tiny_families import FAMILIES, family_config
from transformers import AutoConfig

from gad_verl.config import load_gad_config
from gad_verl.errors import GadCheckpointError, GadConfigError
from gad_verl.preflight import check_discriminator, check_families

STUDENT, DISCRIMINATOR = "actor_rollout_ref.model", "discriminator.model"


def write_family(folder: Path, config: Any) -> Path:
    """A model's folder without weights: the check reads its configuration alone."""
    config.architectures = None
    config.save_pretrained(folder)
    return folder


@pytest.fixture
def with_models(tiny_config: DictConfig, tmp_path: Path) -> Any:
    """The tiny run with other families."""

    def build(student: str = "llama", discriminator: str = "llama", **settings: Any) -> DictConfig:
        for key, name in ((STUDENT, student), (DISCRIMINATOR, discriminator)):
            folder = tmp_path / name
            if not folder.exists():
                write_family(folder, family_config(FAMILIES[name]))
            OmegaConf.update(tiny_config, f"{key}.path", str(folder))
        for key, value in settings.items():
            OmegaConf.update(tiny_config, key.replace("__", "."), value)
        return tiny_config

    return build


def remedies(message: str) -> dict[str, str]:
    """``++key=value`` of a message."""
    return dict(re.findall(r"\+\+(\S+?)=(\S+)", message))


@pytest.mark.parametrize(
    ("family", "named"),
    [
        ("gpt_oss", {"attn_implementation": "eager"}),
        ("gpt_neox", {"num_key_value_heads": 4}),
        ("bloom", {"num_key_value_heads": 4, "attn_implementation": "eager"}),
        ("gpt2", {"num_key_value_heads": 4, "architectures": ["GPT2ForCausalLM"]}),
    ],
)
def test_what_verls_engine_needs_is_named_and_helps(with_models: Any, family: str, named: dict[str, Any]) -> None:
    config = with_models(student=family, discriminator=family)
    with pytest.raises(GadConfigError, match=f"actor_rollout_ref.model.path=.*{family}") as raised:
        check_families(config, has_discriminator=True)
    assert "\n" not in str(raised.value)
    asked = remedies(str(raised.value))
    assert set(asked) == {f"{STUDENT}.override_config.{key}" for key in named}
    with open_dict(config):
        for key, value in named.items():
            OmegaConf.update(config, f"{STUDENT}.override_config.{key}", value, force_add=True)
    check_families(config, has_discriminator=True)


def test_a_discriminator_takes_the_attention_that_it_has_and_needs_no_override(with_models: Any) -> None:
    for family in ("gpt_oss", "gpt_neox", "gpt2"):
        check_families(with_models(discriminator=family), has_discriminator=True)


def test_an_override_for_the_student_does_not_change_a_discriminator_of_another_family(with_models: Any) -> None:
    """``discriminator.model.override_config`` is the student's unless it is given."""
    config = with_models(student="gpt_neox", discriminator="llama")
    with open_dict(config):
        OmegaConf.update(config, f"{STUDENT}.override_config.num_key_value_heads", 4, force_add=True)
    with pytest.raises(GadConfigError, match="num_key_value_heads=4, but .*llama has 2: it is the student's"):
        check_families(config, has_discriminator=True)
    with open_dict(config):
        OmegaConf.update(config, f"{DISCRIMINATOR}.override_config", {"attn_implementation": "sdpa"}, merge=False)
    check_families(config, has_discriminator=True)


@pytest.mark.parametrize(
    "family", ["lfm2", "qwen3_5", "qwen3_next", "falcon_h1", "nemotron_h", "llama4_text", "opt", "falcon", "gpt_oss"]
)
def test_packed_rows_that_would_leak_into_each_other_are_refused(with_models: Any, family: str) -> None:
    key = f"{DISCRIMINATOR}.use_remove_padding"
    config = with_models(discriminator=family)
    check_families(config, has_discriminator=True)
    OmegaConf.update(config, key, True)
    with pytest.raises(GadConfigError, match=f"{DISCRIMINATOR}.path=.*packed.*{key}=False"):
        check_families(config, has_discriminator=True)
    check_families(config, has_discriminator=False)
    OmegaConf.update(config, key, False)
    with open_dict(config):
        config.actor_rollout_ref.model.use_remove_padding = True
        config.discriminator.model.use_remove_padding = False
    check_families(config, has_discriminator=True)


def test_a_family_without_a_causal_language_model_is_refused(with_models: Any, tmp_path: Path) -> None:
    write_family(tmp_path / "vit", AutoConfig.for_model("vit"))
    config = with_models()
    OmegaConf.update(config, f"{DISCRIMINATOR}.path", str(tmp_path / "vit"))
    with pytest.raises(GadConfigError, match="no causal language model of the family 'vit'.*were tried"):
        check_families(config, has_discriminator=True)
    check_families(config, has_discriminator=False)


def test_a_family_whose_head_lies_deeper_is_refused_with_what_was_tried(with_models: Any, tmp_path: Path) -> None:
    text = family_config(FAMILIES["llama4_text"]).to_dict()
    nested = AutoConfig.for_model("llama4", text_config=text, vision_config={"num_hidden_layers": 1, "hidden_size": 16})
    write_family(tmp_path / "llama4", nested)
    config = with_models()
    OmegaConf.update(config, f"{DISCRIMINATOR}.path", str(tmp_path / "llama4"))
    with pytest.raises(GadConfigError, match="llama4 has no token classifier.*no linear lm_head"):
        check_families(config, has_discriminator=True)


def test_a_family_that_draws_its_experts_is_no_discriminator(with_models: Any) -> None:
    check_families(with_models(student="phimoe"), has_discriminator=True)
    with pytest.raises(GadConfigError, match="phimoe draws its experts at random"):
        check_families(with_models(discriminator="phimoe"), has_discriminator=True)


@pytest.mark.parametrize(
    ("section", "key"), [("actor_rollout_ref.actor", STUDENT), ("discriminator", DISCRIMINATOR)], ids=["student", "D"]
)
def test_adapters_on_experts_need_fsdp2(with_models: Any, section: str, key: str) -> None:
    config = with_models("qwen3_moe", "qwen3_moe")
    check_families(config, has_discriminator=True)
    OmegaConf.update(config, f"{key}.lora_rank", 4)
    for other in {STUDENT, DISCRIMINATOR} - {key}:
        OmegaConf.update(config, f"{other}.lora_rank", 0)
    OmegaConf.update(config, f"{section}.strategy", "fsdp")
    with pytest.raises(GadConfigError, match=f"{key}.path=.*{key}.target_modules.*or {section}.strategy=fsdp2"):
        check_families(config, has_discriminator=True)
    OmegaConf.update(config, f"{section}.strategy", "fsdp2")
    check_families(config, has_discriminator=True)
    OmegaConf.update(config, f"{section}.strategy", "fsdp")
    OmegaConf.update(config, f"{key}.target_modules", ["q_proj"])
    check_families(config, has_discriminator=True)


@pytest.mark.parametrize("key", [STUDENT, DISCRIMINATOR], ids=["student", "D"])
@pytest.mark.parametrize(
    ("targets", "named"),
    [
        (["foo"], "q_proj"),
        ("foo.*", "q_proj"),
        # A block, no layer.
        (["mlp"], "LlamaMLP"),
    ],
)
def test_adapters_on_modules_that_a_model_has_not_are_refused(
    with_models: Any, key: str, targets: Any, named: str
) -> None:
    config = with_models()
    OmegaConf.update(config, f"{key}.target_modules", targets)
    OmegaConf.update(config, f"{key}.lora_rank", 0)
    check_families(config, has_discriminator=True)
    OmegaConf.update(config, f"{key}.lora_rank", 2)
    with pytest.raises(GadConfigError, match=rf"^{key}\.target_modules=.*{named}") as raised:
        check_families(config, has_discriminator=True)
    assert "\n" not in str(raised.value)


def test_adapters_on_modules_that_a_model_has_are_not(with_models: Any, caplog: pytest.LogCaptureFixture) -> None:
    config = with_models()
    OmegaConf.update(config, f"{STUDENT}.lora_rank", 2)
    for targets in (["q_proj", "v_proj"], r".*\.mlp\.\w+_proj", ["self_attn.q_proj"], "all-linear", ["embed_tokens"]):
        OmegaConf.update(config, f"{STUDENT}.target_modules", targets)
        check_families(config, has_discriminator=True)
    assert caplog.messages == []
    # PEFT passes over one of several.
    OmegaConf.update(config, f"{STUDENT}.target_modules", ["q_proj", "kproj"])
    check_families(config, has_discriminator=True)
    (said,) = caplog.messages
    assert "kproj" in said and f"{STUDENT}.target_modules" in said


@pytest.mark.parametrize("section", [STUDENT, DISCRIMINATOR], ids=["student", "D"])
@pytest.mark.parametrize("method", ["mxfp4", "fp8"])
def test_quantized_weights_are_refused(with_models: Any, tmp_path: Path, section: str, method: str) -> None:
    """gpt-oss comes in MXFP4: transformers refuses to train it in the worker, after everything was started."""
    folder = write_family(tmp_path / "quantized", family_config(FAMILIES["llama"]))
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": {"quant_method": method}}))
    config = with_models()
    OmegaConf.update(config, f"{section}.path", str(folder))
    with pytest.raises(GadConfigError, match=f"{section}.path=.*quantized \\({method}\\).*bfloat16") as raised:
        check_families(config, has_discriminator=True)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_next", "gpt_oss"])
def test_what_vllm_on_a_cpu_computes_in_bfloat16_alone(with_models: Any, family: str) -> None:
    """It ended at the first answer, inside of vLLM."""
    eager = {"actor_rollout_ref__model__override_config__attn_implementation": "eager"}
    config = with_models(student=family, actor_rollout_ref__rollout__name="vllm", **eager)
    with pytest.raises(GadConfigError, match=f"rollout.dtype=float32.*{family}.*rollout.dtype=bfloat16") as raised:
        check_families(config, has_discriminator=False)
    assert "\n" not in str(raised.value)
    for name, dtype in (("vllm", "bfloat16"), ("hf", "float32")):
        config.actor_rollout_ref.rollout.name, config.actor_rollout_ref.rollout.dtype = name, dtype
        check_families(config, has_discriminator=False)
    check_families(with_models(student="llama", actor_rollout_ref__rollout__name="vllm"), has_discriminator=False)


def test_a_nested_configuration_is_read(with_models: Any) -> None:
    """Qwen3.5 ended the check with a traceback: its sizes are those of its text_config."""
    config = with_models("qwen3_5", "qwen3_5")
    check_families(config, has_discriminator=True)
    check_discriminator(config, load_gad_config(config))
    OmegaConf.update(config, "gad.discriminator_num_layers", 3)
    with pytest.raises(GadConfigError, match="has 2 layers"):
        check_discriminator(config, load_gad_config(config))


def test_layers_that_cannot_be_cut_are_refused_before_the_run(with_models: Any) -> None:
    config = with_models(discriminator="gemma4_text")
    check_discriminator(config, load_gad_config(config))
    OmegaConf.update(config, "gad.discriminator_num_layers", 1)
    with pytest.raises(GadCheckpointError, match="discriminator_num_layers=1.*gemma4_text keeps one table"):
        check_discriminator(config, load_gad_config(config))


def test_every_family_of_the_page_is_trained_or_refused_in_one_line(with_models: Any, tmp_path: Path) -> None:
    for name in FAMILIES:
        config = with_models(discriminator=name)
        try:
            check_families(config, has_discriminator=True)
        except GadConfigError as error:
            assert "\n" not in str(error) and name in str(error)
