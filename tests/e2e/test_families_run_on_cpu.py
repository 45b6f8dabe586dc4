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
"""Families through ``main_ppo``: warmup, GAD, an end on request, the rest of it, and the export of both models.

vLLM is the rollout of the mixture of experts: Mixtral calls its experts otherwise than verl sends them. vLLM's classes
of families with images want torchvision and a processor, which are not here: there the rollout is transformers.
"""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from main_ppo import Run, end_after, run_main_ppo
from tiny_families import FAMILIES
from tiny_model import build_rows
from transformers import AutoConfig
from vllm_probe import build_vllm_family

from gad_verl.tools.evaluation.engines import load_model

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WARMUP_STEPS, FIRST_END, TOTAL_STEPS = 2, 3, 6
ROLLOUT_OF = {"qwen3_5": "hf", "gemma3": "hf", "mixtral": "vllm"}
SETTINGS = (
    # The default objective, of which some evidence is there at once.
    "gad=recommended",
    "gad.trust.held_out_fraction=0.5",
    "gad.trust.least_prompts=2",
    "gad.trust.confidence=0.0",
    f"gad.warmup_steps={WARMUP_STEPS}",
    "gad.discriminator_only_steps=1",
    f"trainer.total_training_steps={TOTAL_STEPS}",
    f"trainer.save_freq={TOTAL_STEPS}",
)


@pytest.fixture(scope="module", params=ROLLOUT_OF)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Run, Run]:
    family: str = request.param
    if ROLLOUT_OF[family] == "vllm" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    folder = tmp_path_factory.mktemp(family)
    build_vllm_family(FAMILIES[family], folder / "model", seed=0)
    pd.DataFrame(build_rows(48, seed=1)).to_parquet(folder / "train.parquet")
    pd.DataFrame(build_rows(8, seed=2)).to_parquet(folder / "val.parquet")
    (folder / "checkpoints").mkdir()
    settings = (*SETTINGS, f"actor_rollout_ref.rollout.name={ROLLOUT_OF[family]}")
    ask = end_after(FIRST_END, folder / "curves.jsonl")
    first = run_main_ppo(folder, "first", *settings, metrics_name="curves", while_running=ask, timeout_s=540)
    assert first.returncode == 0, first.output[-4000:]
    second = run_main_ppo(folder, "second", *settings, metrics_name="curves", timeout_s=540)
    assert second.returncode == 0, second.output[-4000:]
    return family, folder, first, second


def test_both_stages_were_trained_and_the_run_went_on(runs: tuple[str, Path, Run, Run]) -> None:
    _, folder, first, second = runs
    last = max(first.metrics)
    assert FIRST_END <= last < TOTAL_STEPS and (folder / "checkpoints" / f"global_step_{last}").is_dir()
    assert "Training from scratch" in first.output and "Training from scratch" not in second.output
    assert sorted(second.metrics) == list(range(1, TOTAL_STEPS + 1))
    stages = [second.metrics[step]["gad/stage"] for step in sorted(second.metrics)]
    assert stages == sorted(stages) and stages[0] == 0 and stages[-1] == 2
    for step, metrics in second.metrics.items():
        assert 0 < metrics["disc/grad_norm"] < float("inf"), step
        if step > WARMUP_STEPS:
            assert metrics["gad/policy_weight"] == metrics["gad/trust_factor"] == 1 - metrics["gad/texts_weight"]
            assert ("actor/pg_loss" in metrics) == (metrics["gad/policy_weight"] > 0), step
            assert (metrics["gad/supervised_tokens"] > 0) == (metrics["gad/texts_weight"] > 0), step
    # The learning goes on over the second start: the discriminator is not a new one.
    assert second.metrics[last + 1]["disc/loss"] < first.metrics[1]["disc/loss"]


def test_answers_come_from_the_student_after_every_update(runs: tuple[str, Path, Run, Run]) -> None:
    """Where the rollout computes otherwise than the student, by its weights or its arithmetic, these are apart."""
    for step in range(WARMUP_STEPS + 1, TOTAL_STEPS + 1):
        assert runs[3].metrics[step]["training/rollout_probs_diff_max"] < 1e-4


@pytest.mark.parametrize("part", ["student", "discriminator"])
def test_both_models_are_exported(runs: tuple[str, Path, Run, Run], part: str) -> None:
    family, folder, *_ = runs
    target = folder / f"exported_{part}"
    command = [
        sys.executable,
        "-m",
        "gad_verl.cli",
        "export",
        str(folder / "checkpoints" / f"global_step_{TOTAL_STEPS}"),
    ]
    done = subprocess.run(
        [*command, "--part", part, "--output", str(target)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert AutoConfig.from_pretrained(target).model_type == family
    if part == "student":
        trained = load_model(target, "float32", False)
        before = load_model(folder / "model", "float32", False)
        ids = torch.tensor([[5, 6, 7, 8]])
        assert not torch.allclose(trained(input_ids=ids).logits, before(input_ids=ids).logits)
        return
    card = (target / "README.md").read_text(encoding="utf-8")
    tokens, by_transformers = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)[:2]
    shown = "import json\nprint(json.dumps([float(score) for score in scores]))"
    scored = subprocess.run(
        [sys.executable, "-c", f"{tokens}\n{by_transformers}\n{shown}"],
        cwd=target,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert scored.returncode == 0, scored.stderr[-3000:]
    scores = json.loads(scored.stdout.splitlines()[-1])
    assert len(scores) > 1 and len(set(scores)) > 1
