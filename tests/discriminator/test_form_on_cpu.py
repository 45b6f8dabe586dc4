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
"""The forms of a discriminator: which class a family gives, a strict head, no dropout, the first layers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES, build_family, family_config
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from gad_verl.discriminator.form import attention_for, discriminator_form, language_model_class
from gad_verl.discriminator.model import (
    fresh_head_weight,
    load_discriminator,
    prepare_config,
    switch_off_dropout,
)
from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.reward_model import saved_weights

ROW = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13]])
LM_HEADS = ["granite", "cohere2", "gemma3_text", "lfm2", "olmo2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tiny models by their family, built when asked for."""
    root = tmp_path_factory.mktemp("families")

    def folder(name: str, **settings: Any) -> Path:
        path = root / "-".join([name, *map(str, settings)])
        return path if path.exists() else build_family(FAMILIES[name], path)

    return folder


def loaded(folder: Path, fresh_head: bool = True, num_layers: int | None = None) -> Any:
    config = AutoConfig.from_pretrained(folder, attn_implementation="eager")
    prepare_config(config, num_layers)
    return load_discriminator(folder, config, torch.float32, fresh_head, seed=3)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_a_classifier_where_transformers_has_one_else_its_language_model(name: str) -> None:
    from transformers import AutoModelForTokenClassification

    config = family_config(FAMILIES[name])
    form = discriminator_form(config)
    assert form.is_classifier == (type(config) in AutoModelForTokenClassification._model_mapping)
    assert ("TokenClassification" in str(form)) == form.is_classifier
    assert ("LM head" in str(form)) != form.is_classifier
    if not form.is_classifier:
        assert form.model_class is language_model_class(config)


@pytest.mark.parametrize("name", LM_HEADS)
def test_scores_are_the_head_on_the_last_hidden_state_and_nothing_else(folders: Any, name: str) -> None:
    """Scales and caps of a language model's output are left out (Granite divides by 8, Cohere by 16)."""
    module = loaded(folders(name)).train()
    plain = AutoModelForCausalLM.from_pretrained(folders(name), attn_implementation="eager").eval()
    head = fresh_head_weight(plain.config, 3)
    expected = plain.model(input_ids=ROW, use_cache=False).last_hidden_state @ head[0]
    torch.testing.assert_close(module(input_ids=ROW, use_cache=False).logits[..., 0], expected, atol=1e-6, rtol=0)
    assert module.lm_head.weight.dtype == torch.float32
    assert not module.config.tie_word_embeddings
    assert module.get_input_embeddings().weight.shape[0] == plain.config.vocab_size


def test_a_cap_of_the_output_does_not_bound_the_scores(folders: Any, tmp_path: Path) -> None:
    module = loaded(folders("gemma3n_text"))
    with torch.no_grad():
        module.lm_head.weight.mul_(1e3)
    body = module.model(input_ids=ROW, use_cache=False).last_hidden_state
    expected = (body @ module.lm_head.weight[0]).detach()
    assert expected.abs().max() > 100
    torch.testing.assert_close(module(input_ids=ROW, use_cache=False).logits[..., 0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", LM_HEADS)
def test_a_saved_discriminator_loads_strictly_and_a_language_model_does_not(
    folders: Any, name: str, tmp_path: Path
) -> None:
    with pytest.raises(GadCheckpointError, match="lm_head.weight.*discriminator_head=fresh"):
        loaded(folders(name), fresh_head=False)
    module = loaded(folders(name))
    module.save_pretrained(tmp_path / "saved", state_dict=saved_weights(module))
    again = loaded(tmp_path / "saved", fresh_head=False)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in module.state_dict().items())
    # A new head replaces the one that is there.
    other = AutoConfig.from_pretrained(tmp_path / "saved")
    prepare_config(other, None)
    fresh = load_discriminator(tmp_path / "saved", other, torch.float32, fresh_head=True, seed=4)
    assert not torch.equal(fresh.lm_head.weight, module.lm_head.weight)


@pytest.mark.parametrize("name", ["granite", "llama"])
def test_a_weight_of_the_body_that_is_missing_or_of_another_size_is_named(
    folders: Any, name: str, tmp_path: Path
) -> None:
    module = loaded(folders(name))
    lost = "model.layers.1.mlp.down_proj.weight" if name == "llama" else "model.norm.weight"
    for change in ("missing", "narrow"):
        target = tmp_path / change
        module.save_pretrained(target)
        weights = load_file(target / "model.safetensors")
        tensor = weights.pop(lost)
        if change == "narrow":
            weights[lost] = tensor[:7].clone()
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(GadCheckpointError, match=lost.replace(".", r"\.")):
            loaded(target, fresh_head=False)


@pytest.mark.parametrize(
    "name", ["seed_oss", "phi", "phi3", "falcon", "bloom", "opt", "gpt2", "starcoder2", "stablelm"]
)
def test_no_dropout_is_left_while_the_discriminator_trains(folders: Any, name: str) -> None:
    """Seed-OSS keeps its rate as a number of the layer, Falcon in the configuration, Phi in modules."""
    module = loaded(folders(name)).train()
    first, second = (module(input_ids=ROW, use_cache=False).logits for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(module.eval()(input_ids=ROW, use_cache=False).logits, first, atol=1e-6, rtol=0)


@given(rate=st.floats(0.01, 1.0), flag=st.booleans(), count=st.integers(0, 3))
def test_rates_are_found_by_their_names_and_nothing_else_is_touched(rate: float, flag: bool, count: int) -> None:
    module = nn.Sequential(nn.Dropout(rate), nn.Dropout2d(rate), nn.Linear(2, 2))
    layer: Any = module[2]
    layer.residual_dropout, layer.resid_pdrop, layer.layerdrop, layer.router_jitter_noise = rate, rate, rate, rate
    layer.use_dropout, layer.drop_count, layer.dropout_name = flag, count, "none"
    switch_off_dropout(module)
    assert module[0].p == module[1].p == 0.0
    assert (layer.residual_dropout, layer.resid_pdrop, layer.layerdrop, layer.router_jitter_noise) == (0.0,) * 4
    assert (layer.use_dropout, layer.drop_count, layer.dropout_name) == (flag, count, "none")


@pytest.mark.parametrize("name", ["olmo3", "smollm3", "granitemoehybrid", "falcon_h1", "exaone4", "qwen3_5"])
def test_lists_of_the_layers_are_cut_with_them(name: str) -> None:
    config = family_config(FAMILIES[name])
    before = json.loads(json.dumps(config.get_text_config().to_dict(), default=str))
    prepare_config(config, 1)
    text_config = config.get_text_config()
    assert text_config.num_hidden_layers == 1
    for key in ("layer_types", "no_rope_layers"):
        if before.get(key):
            assert getattr(text_config, key) == before[key][:1]
    # As long as there are layers, but of something else.
    for key in ("mlp_multipliers", "rope_parameters", "time_step_limit"):
        if key in before:
            assert json.loads(json.dumps(getattr(text_config, key), default=str)) == before[key]


def test_one_table_for_all_layers_cannot_be_cut() -> None:
    for name in ("gemma3n_text", "gemma4_text"):
        with pytest.raises(GadCheckpointError, match="discriminator_num_layers=1.*one table"):
            prepare_config(family_config(FAMILIES[name]), 1)


def test_the_nearest_attention_that_a_class_has_is_taken() -> None:
    def kind(sdpa: bool, flash: bool) -> Any:
        return SimpleNamespace(_supports_sdpa=sdpa, _supports_flash_attn=flash, _compatible_flash_implementations=None)

    assert attention_for(kind(True, True), "flash_attention_2") == "flash_attention_2"
    assert attention_for(kind(True, False), "flash_attention_2") == "sdpa"
    assert attention_for(kind(False, False), "flash_attention_2") == "eager"
    assert attention_for(kind(False, True), "sdpa") == "eager"
    assert attention_for(kind(True, True), "eager") == "eager"
    assert attention_for(kind(True, True), None) is None
