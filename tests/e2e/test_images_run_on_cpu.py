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
"""A student with eyes through ``main_ppo``: a language whose teacher names the colour of a picture.

Prompts are the same text in every row. Who does not look can only guess: the cross-entropy of a text is the entropy of
the colours at least. Warmup, GAD with an anchor and past pairs, an end on request, the rest of it.
"""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from main_ppo import Run, end_after, run_main_ppo
from tiny_vlm import build_colours, build_vlm_tokenizer

from gad_verl import cli
from gad_verl.tools.evaluation.responses import read_responses

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WARMUP_STEPS, FIRST_END, TOTAL_STEPS = 60, 61, 64
SETTINGS = (
    f"gad.warmup_steps={WARMUP_STEPS}",
    "gad.discriminator_only_steps=0",
    "gad.warmup_rollout_n=1",
    "gad.warmup.actor_lr=3e-3",
    "gad.replay.capacity_steps=2",
    "gad.supervised_weight=0.2",
    f"trainer.total_training_steps={TOTAL_STEPS}",
    f"trainer.test_freq={WARMUP_STEPS}",
    f"trainer.save_freq={TOTAL_STEPS}",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, Run]:
    folder = build_colours(tmp_path_factory.mktemp("colours"))
    (folder / "checkpoints").mkdir()
    ask = end_after(FIRST_END, folder / "curves.jsonl")
    first = run_main_ppo(folder, "first", *SETTINGS, metrics_name="curves", while_running=ask, timeout_s=540)
    assert first.returncode == 0, first.output[-4000:]
    second = run_main_ppo(folder, "second", *SETTINGS, metrics_name="curves", timeout_s=540)
    assert second.returncode == 0, second.output[-4000:]
    return folder, first, second


def least_of_the_blind(folder: Path) -> float:
    """Cross-entropy of the held-out texts, in nats a token, of a student that knows how often each colour comes."""
    texts = pd.read_parquet(folder / "val.parquet")["teacher_response"]
    tokenizer = build_vlm_tokenizer()
    tokens = sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts)
    shares = texts.value_counts(normalize=True)
    return -sum(len(texts) * share * math.log(share) for share in shares) / tokens


def test_the_student_has_learned_to_look(runs: tuple[Path, Run, Run]) -> None:
    folder, first, _ = runs
    assert first.metrics[WARMUP_STEPS]["val-gad/text_loss"] < 0.6 * least_of_the_blind(folder)


def test_the_checkpoint_answers_held_out_pictures(runs: tuple[Path, Run, Run], tmp_path: Path) -> None:
    """Each by the name of its colour: one question, four answers."""
    folder, _, _ = runs
    model = folder / "checkpoints" / f"global_step_{TOTAL_STEPS}"
    given = ["--model", str(model), "--data", str(folder / "val.parquet"), "--output", str(tmp_path / "out")]
    assert cli.main(["evaluate", *given, "--max-response-length", "8", "--two-sample-splits", "2"]) == 0
    answers = sorted(read_responses(tmp_path / "out" / "responses.jsonl"), key=lambda one: one.prompt)
    texts = pd.read_parquet(folder / "val.parquet")["teacher_response"]
    right = [one.text == text for one, text in zip(answers, texts, strict=True)]
    # Whoever does not look gives one answer to all of them.
    assert sum(right) > max(texts.value_counts())


def test_the_run_went_on_where_it_was_ended(runs: tuple[Path, Run, Run]) -> None:
    _, first, second = runs
    assert FIRST_END <= max(first.metrics) < TOTAL_STEPS
    assert "Training from scratch" not in second.output
    assert sorted(second.metrics) == list(range(1, TOTAL_STEPS + 1))
    for step in range(WARMUP_STEPS + 1, TOTAL_STEPS + 1):
        metrics = second.metrics[step]
        assert metrics["gad/stage"] == 2 and "actor/pg_loss" in metrics and metrics["gad/supervised_tokens"] > 0
        assert 0 < metrics["disc/grad_norm"] < float("inf")
        # A rollout that saw another picture than the student, or none, would be far from it.
        assert metrics["training/rollout_probs_diff_max"] < 1e-2
    assert second.metrics[TOTAL_STEPS]["disc/replayed_groups"] > 0


def test_both_sides_were_asked_alike_and_nothing_holds_pixels(runs: tuple[Path, Run, Run]) -> None:
    folder, first, second = runs
    assert "renders prompts differently" not in first.output + second.output
    samples = (folder / "checkpoints" / "record" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    # Of the tokens of an image one is shown.
    assert all(json.loads(line)["prompt"].count("<|image_pad|>") == 1 for line in samples) and len(samples) > 0
    parts = folder / "checkpoints" / f"global_step_{TOTAL_STEPS}" / "gad_parts.pt"
    past = torch.load(parts, weights_only=True)["discriminator"]["replay"]["steps"]
    groups = [group for _, of_step in past for group in of_step]
    assert len(groups) > 0
    for group in groups:
        assert [file.dtype for file in group["images"]] == [torch.uint8]
        assert len(group["images"][0]) < 2000
