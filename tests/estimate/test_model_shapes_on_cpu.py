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
"""Parameter counts and work are those of transformers' own modules."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification

from gad_verl.errors import GadConfigError
from gad_verl.tools.estimate import shape as shape_module
from gad_verl.tools.estimate.adapters import ALL_LINEAR, Adapters, Names
from gad_verl.tools.estimate.roles import Layout, Role
from gad_verl.tools.estimate.shape import find_shape, known_models, shape_of_config
from gad_verl.tools.estimate.timing import row_work

_SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "vocab_size": 97,
    "tie_word_embeddings": False,
}
_EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 10, "head_dim": 8}
_MIXTRAL = {"num_local_experts": 5, "num_experts_per_tok": 2}

TINY = [
    ("llama", {}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"head_dim": 16, "tie_word_embeddings": True}),
    ("mistral", {}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    ("qwen3", {"head_dim": 8}),
    ("qwen3", {"head_dim": 8, "attention_bias": True}),
    ("qwen3_moe", _EXPERTS),
    ("mixtral", _MIXTRAL),
]


def build(family: str, figures: dict[str, Any], factory: Any, device: str = "meta") -> Any:
    config = AutoConfig.for_model(family, **figures, num_labels=1)
    with torch.device(device):
        return factory.from_config(config)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("family", "changed"), TINY, ids=lambda value: str(value))
def test_tiny_configurations_of_every_family(family: str, changed: dict[str, Any], tmp_path: Path) -> None:
    figures = _SMALL | changed
    student = build(family, figures, AutoModelForCausalLM)
    # Read back from what transformers writes, which is what a user's folder holds.
    student.config.save_pretrained(tmp_path)
    shape = find_shape(str(tmp_path), "actor_rollout_ref.model.path")
    assert shape.language_model_parameters == count(student)
    judge = build(family, figures, AutoModelForTokenClassification)
    assert shape.discriminator_parameters == count(judge)


@pytest.mark.parametrize("name", list(known_models()))
def test_the_table_is_counted_exactly(name: str) -> None:
    figures = dict(known_models()[name])
    family = figures.pop("model_type")
    shape = find_shape(name, "key")
    assert shape.language_model_parameters == count(build(family, figures, AutoModelForCausalLM))


@pytest.mark.parametrize(
    ("name", "billions"),
    # As their model cards say.
    [
        ("Qwen/Qwen2.5-3B-Instruct", 3.09),
        ("Qwen/Qwen2.5-7B-Instruct", 7.61),
        ("Qwen/Qwen2.5-14B-Instruct", 14.7),
        ("meta-llama/Llama-3.2-3B-Instruct", 3.21),
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03),
        ("Qwen/Qwen3-30B-A3B", 30.5),
    ],
)
def test_the_table_agrees_with_the_published_sizes(name: str, billions: float) -> None:
    assert find_shape(name, "key").language_model_parameters / 1e9 == pytest.approx(billions, rel=0.006)


def test_a_model_is_found_by_the_end_of_its_path() -> None:
    for path in ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B", "/models/qwen2.5-7b-instruct/"):
        assert find_shape(path, "key").name == "Qwen/Qwen2.5-7B-Instruct"
    assert find_shape("meta-llama/Meta-Llama-3.1-8B-Instruct", "key").layers == 32


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(GadConfigError, match="discriminator.model.path=nobody/nothing.*Qwen/Qwen2.5-7B"):
        find_shape("nobody/nothing", "discriminator.model.path")
    with pytest.raises(GadConfigError, match="has no config.json"):
        find_shape(str(tmp_path), "key")
    file = tmp_path / "config.json"
    file.write_text("{", encoding="utf-8")
    with pytest.raises(GadConfigError, match="not readable"):
        find_shape(str(tmp_path), "key")
    file.write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
    with pytest.raises(GadConfigError, match="'gpt2'.*llama"):
        find_shape(str(tmp_path), "key")
    with pytest.raises(GadConfigError, match="lacks hidden_size, vocab_size"):
        shape_of_config({"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 1}, "x")
    with pytest.raises(GadConfigError, match="dense layers between"):
        shape_of_config(_SMALL | _EXPERTS | {"model_type": "qwen3_moe", "mlp_only_layers": [0]}, "x")


@pytest.mark.parametrize(("family", "changed"), [TINY[2], TINY[4], TINY[6]], ids=lambda value: str(value))
def test_work_is_what_torch_counts(family: str, changed: dict[str, Any]) -> None:
    """Multiply-adds of a forward pass; torch counts all pairs of the attention, masked ones too."""
    tokens = 11
    figures = _SMALL | changed
    model = build(family, figures, AutoModelForCausalLM, "cpu")
    model.config._attn_implementation = "eager"
    shape = shape_of_config(figures | {"model_type": family}, "x")
    role = Role("student", shape, Layout("fsdp", 1))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    # Rotary angles are a product of matrices of width 1.
    angles = 2 * tokens * (shape.head_dim // 2)
    masked = role.pair_work * tokens**2 / 2
    assert 2 * (row_work(role, tokens) + masked) == counter.get_total_flops() - angles


_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_ALL = (*_ATTENTION, "gate_proj", "up_proj", "down_proj")
_TARGETS: list[tuple[Names, Names]] = [
    (ALL_LINEAR, ()),
    (ALL_LINEAR, ("q_proj",)),
    (_ATTENTION, ()),
    (_ALL, ()),
    (_ALL, ("down_proj",)),
    (("q_proj", "gate"), ()),
    (("q_proj", "w1", "w3", "w2"), ()),
    (("layers.0.self_attn.q_proj", "lm_head", "embed_tokens"), ()),
]


@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize(("targets", "excluded"), _TARGETS, ids=lambda value: str(value))
@pytest.mark.parametrize("family", ["qwen2", "qwen3_moe", "mixtral"])
def test_adapters_are_counted_as_peft_makes_them(rank: int, targets: Names, excluded: Names, family: str) -> None:
    figures = _SMALL | {"qwen3_moe": _EXPERTS, "mixtral": _MIXTRAL}.get(family, {})
    model = build(family, figures, AutoModelForCausalLM, "cpu")
    target_modules = targets if isinstance(targets, str) else list(targets)
    exclude_modules = (excluded if isinstance(excluded, str) else list(excluded)) or None
    config = LoraConfig(r=rank, target_modules=target_modules, exclude_modules=exclude_modules)
    adapted = get_peft_model(model, config)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    shape = shape_of_config(figures | {"model_type": family}, "x")
    assert Adapters(rank, targets, excluded).parameters(shape) == trained


def test_adapters_chosen_by_an_expression_are_counted_as_peft_makes_them() -> None:
    targets, excluded = r".*\.1\.self_attn\..*", r".*k_proj"
    config = LoraConfig(r=4, target_modules=targets, exclude_modules=excluded)
    adapted = get_peft_model(build("qwen2", _SMALL, AutoModelForCausalLM, "cpu"), config)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert Adapters(4, targets, excluded).parameters(shape_of_config(_SMALL | {"model_type": "qwen2"}, "x")) == trained


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("tied", [None, True, False])
@pytest.mark.parametrize(
    "family", [*shape_module._TIE, *shape_module._ASK_TEXT, "idefics3", "llava_next", "smolvlm", "video_llava"]
)
def test_a_head_is_tied_where_the_model_with_images_says_so(family: str, tied: bool | None, text: bool) -> None:
    written = {"model_type": family, "text_config": {**_SMALL, "model_type": "qwen2", "tie_word_embeddings": text}}
    if tied is not None:
        written["tie_word_embeddings"] = tied
    figures = {key: value for key, value in written.items() if key != "model_type"}
    model = AutoConfig.for_model(family, **figures)
    assert shape_of_config(written, "x").tied == bool(model.tie_word_embeddings)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ([], "no object"),
        ({"model_type": "llava", "text_config": "x"}, "text_config in config.json is no object"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"hidden_size": True}, "hidden_size"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"num_key_value_heads": "two"}, "num_key_value_heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"head_dim": 0.5}, "head_dim"),
        ({"intermediate_size": None}, "intermediate_size"),
        ({"model_type": "mixtral", "num_local_experts": "all", "num_experts_per_tok": 2}, "experts"),
    ],
    ids=lambda value: str(value),
)
def test_a_damaged_configuration_is_one_clear_sentence(config: Any, part: str) -> None:
    whole = config if not config or "text_config" in config else {**_SMALL, "model_type": "qwen2", **config}
    with pytest.raises(GadConfigError, match=part):
        shape_of_config(whole, "x")


def test_the_first_layers_alone() -> None:
    shape = find_shape("Qwen/Qwen2.5-7B-Instruct", "key")
    cut = shape.cut_to(7)
    assert shape.body_parameters - cut.body_parameters == 21 * shape.layer_parameters
    assert shape.cut_to(None) == shape and shape.cut_to(99).layers == shape.layers


def test_a_token_passes_its_experts_alone() -> None:
    shape = find_shape("Qwen/Qwen3-30B-A3B", "key")
    # Published: 3.3 billion active, the looked-up embedding among them.
    assert (shape.active_parameters + shape.embedding_parameters) / 1e9 == pytest.approx(3.3, rel=0.02)
    assert shape.active_parameters < 0.12 * shape.language_model_parameters
