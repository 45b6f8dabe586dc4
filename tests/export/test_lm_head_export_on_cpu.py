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
"""An exported discriminator with a scalar head in the place of its LM head: plain transformers, and vLLM's names."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doc_blocks import blocks
from omegaconf import DictConfig
from run_folders import last_values, save_part, write_run
from safetensors.torch import load_file
from tiny_families import FAMILIES, build_family
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from vllm_classify import classify
from vllm_probe import build_vllm_family

from gad_verl.discriminator.conversion import read_head, to_classifier, to_megatron
from gad_verl.discriminator.model import load_discriminator, prepare_config
from gad_verl.tools.evaluation.engines import load_model
from gad_verl.tools.export.card.request import CardRequest
from gad_verl.tools.export.weights import export_part

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"
TOLERANCE = 1e-5
# Of these vLLM makes a classifier in tests of their own.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gemma3_text", "olmo2", "cohere2")]
ROWS = [[1, 2, 3], [7, 8, 9, 10, 11, 12, 13, 14, 15], [200]]


def export_family(
    name: str, root: Path, config: DictConfig, build: Callable[..., Path] = build_family
) -> tuple[Path, Any]:
    """An exported discriminator, and the model that was trained."""
    source = build(FAMILIES[name], root / "source", seed=0)
    family = AutoConfig.from_pretrained(source, attn_implementation="eager")
    prepare_config(family, None)
    model = load_discriminator(source, family, torch.float32, fresh_head=True, seed=3)
    with torch.no_grad():
        model.lm_head.weight.mul_(20.0)
    checkpoint = write_run(root / "run", config.copy(), 7)
    save_part(checkpoint / "discriminator", model, source)
    return export_part(checkpoint, "discriminator", root / "exported", card=CardRequest()), model.eval()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, _tiny_base: DictConfig) -> tuple[Path, Any]:
    """Of a Granite."""
    return export_family("granite", tmp_path_factory.mktemp("granite"), _tiny_base)


def test_the_lines_of_the_page_and_of_the_card_give_the_trainers_scores(
    made: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = made
    (of_page,) = (block for block in blocks(PAGE, "python") if "LM_HEAD_FOLDER" in block)
    monkeypatch.setenv("LM_HEAD_FOLDER", str(folder))
    exec(of_page, {"__name__": "page"})
    assert float(capsys.readouterr().out) == pytest.approx(last_values(model, [[1, 2, 3]]).item(), abs=TOLERANCE)
    monkeypatch.chdir(folder)
    tokens, of_card, by_vllm = blocks(folder / "README.md", "python")
    names: dict[str, Any] = {"__name__": "card"}
    exec(tokens + of_card, names)
    expected = last_values(model, names["rows"])
    assert expected.std() > 1e-3
    torch.testing.assert_close(torch.tensor(names["scores"]), expected, atol=TOLERANCE, rtol=0)
    assert 'convert="classify"' in by_vllm


def test_vllm_finds_a_classifier_and_its_head_by_name(made: tuple[Path, Any]) -> None:
    """vLLM makes a classifier of a language model where the configuration names one, and reads ``score.weight``."""
    folder, model = made
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(weights["score.weight"], weights["lm_head.weight"])
    assert torch.equal(weights["score.weight"], model.lm_head.weight)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["GraniteForSequenceClassification"]
    assert config["problem_type"] == "regression"
    assert AutoConfig.from_pretrained(folder).num_labels == 1


@pytest.mark.e2e
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.parametrize("family", ["granite", *SLOW])
def test_vllm_gives_the_trainers_scores(family: str, tmp_path: Path, tiny_config: DictConfig) -> None:
    """Real vLLM on this CPU, by the block of the card."""
    folder, model = export_family(family, tmp_path, tiny_config, build_vllm_family)
    tokens, _, by_vllm = blocks(folder / "README.md", "python")
    # vLLM's Cohere wants a head that is the embedding, whatever becomes of it: docs/export.md.
    options = {"hf_overrides": {"tie_word_embeddings": True}} if family == "cohere2" else {}
    result = classify(folder, [tokens, by_vllm], ROWS, tmp_path, **options)
    assert last_values(model, ROWS).std() > 1e-3
    for scores, of in (("scores", result["rows"]), ("more", ROWS)):
        torch.testing.assert_close(torch.tensor(result[scores]), last_values(model, of), atol=1e-4, rtol=0)


def test_an_exported_discriminator_goes_on_as_one(made: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = made
    config = AutoConfig.from_pretrained(folder)
    prepare_config(config, None)
    again = load_discriminator(folder, config, torch.float32, fresh_head=False, seed=0).eval()
    weights = again.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())
    # Where its weights lie in memory decides the last digit.
    torch.testing.assert_close(last_values(again, ROWS), last_values(model, ROWS), atol=TOLERANCE, rtol=0)
    assert torch.equal(read_head(folder).weight, model.lm_head.weight)
    # It has Megatron's form already but for the second copy of the head; there and back nothing changes.
    assert to_megatron(folder, tmp_path / "megatron") == tmp_path / "megatron"
    assert "score.weight" not in load_file(tmp_path / "megatron" / "model.safetensors")
    back = to_classifier(tmp_path / "megatron", tmp_path / "back")
    config = AutoConfig.from_pretrained(back)
    prepare_config(config, None)
    returned = load_discriminator(back, config, torch.float32, fresh_head=False, seed=0).eval()
    torch.testing.assert_close(last_values(returned, ROWS), last_values(model, ROWS), atol=TOLERANCE, rtol=0)


def test_a_student_of_such_a_family_is_an_ordinary_model(made: tuple[Path, Any], tmp_path: Path) -> None:
    source = build_family(FAMILIES["granite"], tmp_path / "source", seed=5)
    student = AutoModelForCausalLM.from_pretrained(source)
    save_part(tmp_path / "run" / "global_step_1" / "actor", student, source)
    exported = export_part(tmp_path / "run" / "global_step_1", "student", tmp_path / "student")
    found = AutoModelForCausalLM.from_pretrained(exported)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(found(input_ids=ids).logits, student(input_ids=ids).logits)


def test_a_student_with_a_nested_configuration_is_loaded_as_it_was_trained(
    tmp_path: Path, tiny_config: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``AutoModelForCausalLM`` of Qwen3.5 finds none of the weights and begins with new ones, without an error."""
    source = build_family(FAMILIES["qwen3_5"], tmp_path / "source")
    student = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32).eval()
    checkpoint = write_run(tmp_path / "run", tiny_config, 7)
    save_part(checkpoint / "actor", student, source)
    folder = export_part(checkpoint, "student", tmp_path / "exported", card=CardRequest())
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])
    expected = student(input_ids=ids).logits
    torch.testing.assert_close(load_model(folder, "float32", False)(input_ids=ids).logits.cpu(), expected)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "card"}
    exec(blocks(folder / "README.md", "python")[0], names)
    torch.testing.assert_close(names["model"].float()(input_ids=ids).logits, expected)
