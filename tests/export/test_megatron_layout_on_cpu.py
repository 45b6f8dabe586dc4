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
"""A student's checkpoint as verl's Megatron engine lays it out: evaluated, exported, and told from other steps."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from run_folders import write_run
from tiny_model import build_model, build_rows
from transformers import AutoModelForCausalLM

from gad_verl import cli
from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.card.request import CardRequest
from gad_verl.tools.export.checkpoint import find_checkpoint
from gad_verl.tools.export.weights import export_part


@pytest.fixture
def run(tmp_path: Path, tiny_config: DictConfig) -> Path:
    """A run with the steps 5 and 6, whose weights alone differ."""
    for step, seed in ((5, 1), (6, 2)):
        checkpoint = write_run(tmp_path / "work" / "run", tiny_config, step)
        actor = checkpoint / "actor"
        build_model(actor / "model" / "huggingface", seed=seed, layers=1)
        (actor / "optimizer" / "dist_ckpt").mkdir(parents=True)
        torch.save({"step": step}, actor / "optimizer" / "dist_ckpt" / "common.pt")
        (actor / "ckpt_contents.json").write_text(json.dumps({"version": 2}))
    return tmp_path / "work" / "run"


def evaluate(model: Path, output: Path) -> int:
    data = output.parent.parent / "val.jsonl"
    output.parent.mkdir(exist_ok=True)
    pd.DataFrame(build_rows(4, seed=3)).to_json(data, orient="records", lines=True)
    options = ["--engine", "hf", "--max-response-length", "4", "--two-sample-splits", "1"]
    return cli.main(["evaluate", "--model", str(model), "--data", str(data), "--output", str(output), *options])


def test_it_is_evaluated_and_its_card_has_the_figures(run: Path, tmp_path: Path) -> None:
    checkpoint = run / "global_step_5"
    for step in (5, 6):
        assert evaluate(run / f"global_step_{step}", run.parent / "evaluations" / f"step_{step}") == 0
    folder = export_part(checkpoint, "student", tmp_path / "out", card=CardRequest())
    assert (folder / "README.md").read_text().count("`gad-verl evaluate` on") == 1
    found, saved = (
        AutoModelForCausalLM.from_pretrained(path) for path in (folder, checkpoint / "actor" / "model" / "huggingface")
    )
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(found(input_ids=ids).logits, saved(input_ids=ids).logits)


def test_steps_have_other_fingerprints_and_the_optimizer_none(run: Path) -> None:
    checkpoint = run / "global_step_5"
    before = find_checkpoint(checkpoint).fingerprint()
    assert find_checkpoint(run / "global_step_6").fingerprint() != before
    torch.save({"step": 9}, checkpoint / "actor" / "optimizer" / "dist_ckpt" / "common.pt")
    assert find_checkpoint(checkpoint).fingerprint() == before
    shutil.copytree(checkpoint, run / "copy")
    assert find_checkpoint(run / "copy").fingerprint() == before


@pytest.mark.parametrize(
    ("gone", "said"), [("ckpt_contents.json", "not saved to its end"), ("model/huggingface/config.json", "own format")]
)
def test_an_incomplete_one_is_one_error(run: Path, gone: str, said: str) -> None:
    (run / "global_step_5" / "actor" / gone).unlink()
    with pytest.raises(GadCheckpointError, match=said):
        find_checkpoint(run / "global_step_5")


def test_weights_without_a_fingerprint_do_not_fail_an_export(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert evaluate(run / "global_step_5", run.parent / "evaluations" / "step_5") == 0

    def refuse(path: Path) -> None:
        raise GadCheckpointError(f"{path} is of a layout to come")

    monkeypatch.setattr("gad_verl.tools.export.card.evaluation_facts.find_checkpoint", refuse)
    folder = export_part(run / "global_step_5", "student", tmp_path / "out", card=CardRequest())
    assert "Not evaluated" in (folder / "README.md").read_text()
    assert "without evaluations of" in caplog.text and "a layout to come" in caplog.text
