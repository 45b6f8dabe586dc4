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
"""Checkpoints of verl, and vLLM: the same responses as from the Hugging Face folder by transformers."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_model import build_model, build_rows
from transformers import AutoModelForCausalLM

from gad_verl import cli
from gad_verl.errors import GadConfigError
from gad_verl.tools.evaluation.engines import check_positions
from gad_verl.tools.evaluation.responses import read_responses
from gad_verl.tools.export.checkpoint import find_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model/``, the same weights as ``global_step_3/``, ``val.jsonl``, and the responses of ``model/`` in ``hf/``."""
    path = tmp_path_factory.mktemp("layouts")
    model = build_model(path / "model", layers=1)
    actor = path / "global_step_3" / "actor"
    shutil.copytree(model, actor / "huggingface", ignore=shutil.ignore_patterns("*.safetensors"))
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 1, "world_size": 1}))
    torch.save(AutoModelForCausalLM.from_pretrained(model).state_dict(), actor / "model_world_size_1_rank_0.pt")
    torch.save({"step": 3}, actor / "optim_world_size_1_rank_0.pt")
    pd.DataFrame(build_rows(6, seed=3)).to_json(path / "val.jsonl", orient="records", lines=True)
    assert cli.main(["evaluate", *arguments(path, "model", "hf", "hf")]) == 0
    return path


def arguments(path: Path, model: str, output: str, engine: str) -> list[str]:
    paths = ["--model", str(path / model), "--data", str(path / "val.jsonl"), "--output", str(path / output)]
    return [*paths, "--engine", engine, "--max-response-length", "8", "--two-sample-splits", "1"]


def texts(folder: Path) -> dict[tuple[int, int], str]:
    return {response.key: response.text for response in read_responses(folder / "responses.jsonl")}


def test_a_checkpoint_of_verl_answers_like_its_export(folder: Path) -> None:
    assert cli.main(["evaluate", *arguments(folder, "global_step_3", "verl", "hf")]) == 0
    assert texts(folder / "verl") == texts(folder / "hf")
    assert not list((folder / "verl").glob(".exported*"))
    # Everything is there: neither an export nor a model is needed again.
    assert cli.main(["evaluate", *arguments(folder, "global_step_3", "verl", "hf"), "--keep-export"]) == 0
    assert not list((folder / "verl").glob(".exported*"))
    assert cli.main(["evaluate", *arguments(folder, "global_step_3", "kept", "hf"), "--keep-export"]) == 0
    (export,) = (folder / "kept").glob(".exported*")
    assert (export / "model.safetensors").is_file()


def test_the_optimizer_is_no_part_of_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    before = find_checkpoint(folder / "global_step_3").fingerprint()
    copy = shutil.copytree(folder / "global_step_3", tmp_path / "copy")
    torch.save({"step": 4}, copy / "actor" / "optim_world_size_1_rank_0.pt")
    assert find_checkpoint(copy).fingerprint() == before
    state = torch.load(copy / "actor" / "model_world_size_1_rank_0.pt")
    torch.save({name: weight + 0.01 for name, weight in state.items()}, copy / "actor" / "model_world_size_1_rank_0.pt")
    assert find_checkpoint(copy).fingerprint() != before


def test_another_checkpoint_in_the_same_folder_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_model(folder / "other", seed=5, layers=1)
    assert cli.main(["evaluate", *arguments(folder, "other", "hf", "hf")]) == 2
    assert "weights: '" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config",
    [
        {"max_position_embeddings": 100},
        {"n_positions": 100},
        {"max_seq_len": 100},
        {"text_config": {"max_position_embeddings": 100}, "vision_config": {"max_position_embeddings": 9}},
    ],
)
def test_positions_by_all_their_names(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    check_positions(tmp_path, 100)
    with pytest.raises(GadConfigError, match="the model has 100 positions"):
        check_positions(tmp_path, 101)


@pytest.mark.e2e
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_answers_like_transformers(folder: Path) -> None:
    # A process of its own: vLLM binds the threads of the one it runs in.
    command = [sys.executable, "-m", "gad_verl.cli", "evaluate", *arguments(folder, "model", "vllm", "vllm")]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    # The report is the last thing that a user sees, not the leaks that libraries count at their end.
    assert "leaked" not in result.stderr
    assert texts(folder / "vllm") == texts(folder / "hf")
    reasons = [
        {response.key: response.finish_reason for response in read_responses(folder / name / "responses.jsonl")}
        for name in ("vllm", "hf")
    ]
    assert reasons[0] == reasons[1]
