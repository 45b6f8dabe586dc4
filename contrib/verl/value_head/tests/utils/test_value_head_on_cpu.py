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
"""A value model of any causal or vision-language model: one value a token in ``logits``, without TRL."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, BertConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from verl.utils.model import load_valuehead_model

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "out_hidden_size": 16,
    "fullatt_block_indexes": [0],
}
# llama has a token classifier, the others have none. cohere and granite scale their logits, cohere ties its head.
FAMILIES = {
    "llama": SIZES,
    "olmo2": SIZES,
    "cohere": SIZES | {"logit_scale": 0.0625, "tie_word_embeddings": True},
    "granite": SIZES | {"logits_scaling": 8.0},
    "qwen2_5_vl": {
        "text_config": SIZES | {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        "vision_config": VISION,
        "tie_word_embeddings": False,
    },
}
TOKENS = torch.arange(3, 15).view(2, 6)


def _config(name: str):
    config = CONFIG_MAPPING[name](**FAMILIES[name])
    config._attn_implementation = "eager"
    return config


def _language_model(name: str, folder):
    """A language model with weights of its own, saved in ``folder``."""
    config = _config(name)
    auto_class = AutoModelForImageTextToText if name == "qwen2_5_vl" else AutoModelForCausalLM
    torch.manual_seed(0)
    model = auto_class.from_config(config).eval()
    model.save_pretrained(folder)
    return model


def _load(folder, config):
    return load_valuehead_model(str(folder), torch.float32, config, trust_remote_code=False).eval()


def _states(model) -> torch.Tensor:
    return model(input_ids=TOKENS, output_hidden_states=True).hidden_states[-1]


@pytest.mark.parametrize("name", FAMILIES)
def test_body_is_the_language_model_and_the_head_gives_one_value(name, tmp_path):
    language_model = _language_model(name, tmp_path)
    model = _load(tmp_path, _config(name))
    output = model(input_ids=TOKENS, output_hidden_states=True)

    assert output.logits.shape == (*TOKENS.shape, 1)
    torch.testing.assert_close(output.hidden_states[-1], _states(language_model))
    # Nothing stands between the head and the value: no scale, no cap.
    head = getattr(model, "score", None) or model.lm_head
    values = torch.nn.functional.linear(output.hidden_states[-1], head.weight, head.bias)
    torch.testing.assert_close(output.logits, values)


@pytest.mark.parametrize("name", FAMILIES)
def test_trained_value_model_comes_back_as_it_was(name, tmp_path):
    _language_model(name, tmp_path / "language_model")
    model = _load(tmp_path / "language_model", _config(name))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model(input_ids=TOKENS).logits
    before.square().mean().backward()
    head = getattr(model, "score", None) or model.lm_head
    assert head.weight.grad.abs().sum() > 0 and model.get_input_embeddings().weight.grad.abs().sum() > 0
    optimizer.step()
    trained = model(input_ids=TOKENS).logits
    assert not torch.equal(trained, before)

    model.save_pretrained(tmp_path / "value_model")
    config = type(model.config).from_pretrained(tmp_path / "value_model", attn_implementation="eager")
    torch.testing.assert_close(_load(tmp_path / "value_model", config)(input_ids=TOKENS).logits, trained)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["llama", "olmo2"])
def test_attention_is_what_was_asked_for(name, attention, tmp_path):
    _language_model(name, tmp_path)
    config = _config(name)
    config._attn_implementation = attention
    assert _load(tmp_path, config).config._attn_implementation == attention


def test_what_cannot_become_a_value_model_says_why(tmp_path):
    config = _config("olmo2")
    _language_model("olmo2", tmp_path)
    config.num_hidden_layers = 3
    config.layer_types = None
    with pytest.raises(ValueError, match="lacks weights of a value model"):
        _load(tmp_path, config)

    class UnknownConfig(BertConfig):
        model_type = "unknown"

    with pytest.raises(ValueError, match="no value model can be made of .*UnknownConfig"):
        _load(tmp_path, UnknownConfig())
