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
"""Models that bring classes of their own: exported where the user trusts them, and else one line that says so."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from doc_blocks import blocks
from run_folders import build_discriminator, last_values, save_part, write_run
from tiny_model import build_model
from transformers import AutoModelForCausalLM

from gad_verl import cli
from gad_verl.discriminator.model import load_discriminator, prepare_config

CONFIGURATION = """
from transformers import Qwen2Config


class OwnConfig(Qwen2Config):
    model_type = "own_model"
"""
MODEL = """
import torch
from transformers import Qwen2ForCausalLM, Qwen2Model, Qwen2PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

from .configuration_own import OwnConfig


class OwnForCausalLM(Qwen2ForCausalLM):
    config_class = OwnConfig


class OwnForTokenClassification(Qwen2PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.score = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids):
        return TokenClassifierOutput(logits=self.score(self.model(input_ids=input_ids).last_hidden_state))
"""


def bring_code(folder: Path, **classes: str) -> None:
    """Make the configuration of a folder that of a model with its own code."""
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "configuration_own.OwnConfig", **classes}
    config |= {"model_type": "own_model", "architectures": ["OwnForCausalLM"], "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_own.py").write_text(CONFIGURATION)
    (folder / "modeling_own.py").write_text(MODEL)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return build_model(tmp_path / "source", layers=1)


@pytest.fixture
def checkpoint(tmp_path: Path, source: Path) -> Path:
    """A student with its own code."""
    checkpoint = write_run(tmp_path / "run", {"gad": {"stage": "auto"}}, 3)
    save_part(checkpoint / "actor", AutoModelForCausalLM.from_pretrained(source), source)
    bring_code(checkpoint / "actor" / "huggingface", AutoModelForCausalLM="modeling_own.OwnForCausalLM")
    return checkpoint


def test_code_is_not_run_unasked(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = checkpoint / "actor" / "huggingface" / "configuration_own.py"
    code.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n{CONFIGURATION}")
    assert cli.main(["export", str(checkpoint), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "--trust-remote-code" in said.err and said.err.count("\n") == 1 and "[y/N]" not in said.out + said.err
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_a_student(checkpoint: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert cli.main(["export", str(checkpoint), "--output", str(out), "--trust-remote-code"]) == 0
    model = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    assert type(model).__name__ == "OwnForCausalLM"
    ids = torch.tensor([[5, 6, 7]])
    expected = AutoModelForCausalLM.from_pretrained(source)(input_ids=ids).logits
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
    monkeypatch.chdir(out)
    exec("".join(blocks(out / "README.md", "python")), {})


def test_an_evaluation_asks_for_the_same_trust(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"prompt": [{"role": "user", "content": "What is it?"}], "teacher_response": "It is."}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    paths = ["--model", str(checkpoint), "--data", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "eval")]
    command = ["evaluate", *paths, "--engine", "hf", "--max-response-length", "4"]
    assert cli.main(command) == 2
    said = capsys.readouterr()
    assert "--trust-remote-code" in said.err and "[y/N]" not in said.out + said.err
    assert cli.main([*command, "--trust-remote-code"]) == 0
    assert (tmp_path / "eval" / "results.json").is_file()


@pytest.mark.parametrize("form", ["OwnForTokenClassification", "OwnForCausalLM"])
def test_a_discriminator(
    checkpoint: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """As the family's token classifier, and as its language model with a scalar head."""
    from transformers import AutoConfig

    part = checkpoint / "discriminator"
    if form == "OwnForTokenClassification":
        model = build_discriminator(source)
        auto = {"AutoModelForTokenClassification": f"modeling_own.{form}"}
    else:
        auto = {"AutoModelForCausalLM": f"modeling_own.{form}"}
        bring_code(source, **auto)
        config = AutoConfig.from_pretrained(source, trust_remote_code=True)
        prepare_config(config, None)
        model = load_discriminator(source, config, torch.float32, fresh_head=True, seed=3).eval()
    save_part(part, model, source)
    bring_code(part / "huggingface", **auto)
    out = tmp_path / "out"
    options = ["--part", "discriminator", "--output", str(out), "--trust-remote-code"]
    assert cli.main(["export", str(checkpoint), *options]) == 0
    monkeypatch.chdir(out)
    names: dict[str, Any] = {"__name__": "card"}
    exec("".join(blocks(out / "README.md", "python")), names)
    expected = last_values(model, names["rows"])
    assert expected.std() > 1e-4
    torch.testing.assert_close(torch.tensor(names["scores"]), expected, atol=1e-5, rtol=0)
