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
"""A student's weights go to vLLM by the names of its family's files, which vLLM reads."""

import ast
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_families import FAMILIES, build_family
from transformers import AutoConfig
from verl.utils.model import convert_weight_keys, get_hf_auto_model_class
from verl.workers.engine.fsdp.utils import unfuse_moe_params

from gad_verl.workers.rollout_names import names_of_files, send_names_of_files

if TYPE_CHECKING:
    from vllm.model_executor.models.utils import WeightsMapper

# Families whose names verl does not send as they stand in files, and others of experts that must stay as they are.
RENAMED = ("mixtral", "minimax_m2", "lfm2_moe", "ernie4_5_moe")
AS_SENT = ("qwen3_moe", "olmoe", "gpt_oss", "deepseek_v3", "granitemoe", "qwen3_5")
# Their files have other names by design: what vLLM reads of these is found by its own mapping.
OTHERWISE = ("nemotron_h", "phimoe", "gpt2")
# Sent by the names of the modules, written by those of older files: vLLM's own mapping makes both the same.
MAPPED = ("gemma3",)


class Engine:
    """verl's of a student: sends weights, or an adapter."""

    def __init__(self, folder: Path) -> None:
        config = AutoConfig.from_pretrained(folder)
        model_class = get_hf_auto_model_class(config)
        self.model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.model_config = SimpleNamespace(hf_config=config)

    def get_per_tensor_param(self, base_sync_done: bool = False, **_: Any) -> tuple[Any, Any]:
        weights = convert_weight_keys(self.model.state_dict(), self.model).items()
        return unfuse_moe_params(weights, self.model_config.hf_config.model_type), None


def compare(family: str, folder: Path) -> None:
    build_family(FAMILIES[family], folder)
    engine = Engine(folder)
    send_names_of_files(engine)
    weights, config = engine.get_per_tensor_param(base_sync_done=True)
    sent, files = dict(weights), load_file(folder / "model.safetensors")
    assert config is None
    if "lm_head.weight" not in files:
        # Tied to the embeddings, or the head has another name (GPT-NeoX: embed_out).
        sent.pop("lm_head.weight", None)
    assert sent.keys() == files.keys()
    for name, weight in files.items():
        assert torch.equal(sent[name], weight), name


@pytest.mark.parametrize("family", RENAMED + AS_SENT)
def test_names_and_weights_are_those_of_the_files(family: str, tmp_path: Path) -> None:
    compare(family, tmp_path / "model")


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(FAMILIES).difference(RENAMED, AS_SENT, OTHERWISE, MAPPED)))
def test_the_names_of_all_other_families_are_those_of_the_files(family: str, tmp_path: Path) -> None:
    compare(family, tmp_path / "model")


def mapping_of_vllm(architecture: str) -> "WeightsMapper":
    """Read from vLLM's source: its module of images imports torchvision, which an environment of CPUs lacks."""
    from vllm.model_executor.models.registry import ModelRegistry  # takes seconds
    from vllm.model_executor.models.utils import WeightsMapper

    entry = ModelRegistry.models[architecture]
    spec = find_spec(entry.module_name)
    assert spec is not None and spec.origin is not None
    classes = (node for node in ast.parse(Path(spec.origin).read_text()).body if isinstance(node, ast.ClassDef))
    (model,) = (node for node in classes if node.name == entry.class_name)
    (call,) = (
        node.value
        for node in model.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "hf_to_vllm_mapper"
    )
    assert isinstance(call, ast.Call) and ast.unparse(call.func) == "WeightsMapper" and not call.args
    return WeightsMapper(**{str(key.arg): ast.literal_eval(key.value) for key in call.keywords})


@pytest.mark.slow
@pytest.mark.parametrize("family", MAPPED)
def test_vllm_reads_names_and_weights_as_those_of_the_files(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    build_family(FAMILIES[family], folder)
    engine = Engine(folder)
    (architecture,) = AutoConfig.from_pretrained(folder).architectures
    mapping = mapping_of_vllm(architecture)
    sent = dict(mapping.apply(engine.get_per_tensor_param()[0]))
    files = dict(mapping.apply(load_file(folder / "model.safetensors").items()))
    head = "language_model.lm_head.weight"
    if head not in files:
        sent.pop(head)
    assert sent.keys() == files.keys()
    for name, weight in files.items():
        assert torch.equal(sent[name], weight), name


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_adapters_and_megatrons_weights_keep_their_names(family: str) -> None:
    name = "model.layers.0.mlp.experts.0.gate_proj.weight"

    class Sends:
        model_config = SimpleNamespace(hf_config=SimpleNamespace(model_type=family))

        def get_per_tensor_param(self, base_sync_done: bool = False, **_: Any) -> tuple[Any, Any]:
            return [(name, torch.ones(1))], {"r": 4}

    engine, megatron = Sends(), Sends()
    megatron.bridge = object()  # type: ignore[attr-defined]
    for one in (engine, megatron):
        send_names_of_files(one)
    assert [key for key, _ in engine.get_per_tensor_param(base_sync_done=True)[0]] == [name]
    assert [key for key, _ in megatron.get_per_tensor_param()[0]] == [name]
    # The base goes before its first adapter, whole.
    (base,) = [key for key, _ in engine.get_per_tensor_param(base_sync_done=False)[0]]
    assert (base == name) == (family == "qwen3_moe")


def test_a_family_without_rules_is_not_looked_at() -> None:
    weights = [("model.layers.0.mlp.gate_proj.weight", torch.ones(2))]
    assert list(names_of_files(weights, "llama")) == weights
