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
"""Exactness of the training workers on a device: against plain transformers, and of each form against the others."""

import math
from typing import Any

import pytest
import torch

PARTS = ("worker_fsdp", "worker_fsdp2", "student_fsdp", "student_fsdp2", "lora", "flash")
STRATEGIES = ("fsdp", "fsdp2")
FORMS = ("large", "small", "two", "split", "packed", "checkpointing")
FP32_TOLERANCE, BF16_GRADIENT, BF16_SCORE = 5e-5, 0.05, 0.05


def distance(gradient: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """Of two gradients, over the length of the second."""
    assert set(gradient) == set(wanted)
    difference = sum((gradient[name] - wanted[name]).double().square().sum() for name in wanted)
    return math.sqrt(difference / sum(wanted[name].double().square().sum() for name in wanted))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("form", FORMS)
def test_float32_is_what_transformers_computes(parts: Any, strategy: str, form: str) -> None:
    results = parts.of(f"worker_{strategy}")
    result, wanted = results[f"{form}_fp32"], results["plain_fp32"]
    assert result["loss"] == pytest.approx(wanted["loss"], abs=FP32_TOLERANCE)
    torch.testing.assert_close(result["scores"], wanted["scores"], atol=FP32_TOLERANCE, rtol=0)
    torch.testing.assert_close(result["scores"], result["evaluated_scores"], atol=FP32_TOLERANCE, rtol=0)
    assert distance(result["gradient"], wanted["gradient"]) < 1e-3
    assert result["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_is_near_float32_and_its_scores_are_not_rounded(parts: Any, strategy: str, form: str) -> None:
    results = parts.of(f"worker_{strategy}")
    result, wanted, autocast = results[f"{form}_bf16"], results["plain_fp32"], results["plain_bf16"]
    assert abs(result["loss"] - wanted["loss"]) < 0.02
    assert distance(result["gradient"], wanted["gradient"]) < max(
        BF16_GRADIENT, 2 * distance(autocast["gradient"], wanted["gradient"])
    )
    scores = result["scores"]
    assert (scores != scores.bfloat16().float()).float().mean() > 0.8
    torch.testing.assert_close(scores, result["evaluated_scores"], atol=BF16_SCORE, rtol=0)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("form", ["shared", "shared_packed"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_shared_prompt_changes_nothing(parts: Any, strategy: str, form: str, precision: str) -> None:
    results = parts.of(f"worker_{strategy}")
    result, apart = results[f"{form}_{precision}"], results[f"apart_{precision}"]
    loose = precision == "bf16"
    assert result["loss"] == pytest.approx(apart["loss"], abs=0.02 if loose else FP32_TOLERANCE)
    assert distance(result["gradient"], apart["gradient"]) < (BF16_GRADIENT if loose else 1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("form", ["offloaded", "split_offloaded"])
def test_offloading_changes_nothing(parts: Any, strategy: str, form: str) -> None:
    results = parts.of(f"worker_{strategy}")
    assert distance(results[form]["gradient"], results["large_fp32"]["gradient"]) < 1e-4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_brings_weights_and_optimizer_back(parts: Any, strategy: str) -> None:
    results = parts.of(f"worker_{strategy}")
    assert torch.equal(results["saved"], results["loaded"])
    torch.testing.assert_close(results["saved_next"], results["loaded_next"], atol=1e-4, rtol=0)
    assert not torch.equal(results["saved"], results["saved_next"])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["fp32", "fp32_offloaded", "bf16", "bf16_offloaded"])
def test_the_reference_takes_the_weights_of_the_warmed_up_student(parts: Any, strategy: str, name: str) -> None:
    results = parts.of(f"student_{strategy}")
    # A bfloat16 reference rounds the weights themselves.
    tolerance = 1e-4 if name.startswith("fp32") else 0.2
    torch.testing.assert_close(results[f"reference_{name}"], results[f"end_{name}"], atol=tolerance, rtol=0)
    moved = (results[f"reference_before_{name}"] - results[f"end_{name}"]).abs().max()
    assert moved > 5 * tolerance
    torch.testing.assert_close(results[f"after_{name}"], results[f"end_{name}"], atol=1e-6, rtol=0)
    losses = results[f"losses_{name}"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_offloaded_student_learns_the_same(parts: Any, strategy: str, precision: str) -> None:
    results = parts.of(f"student_{strategy}")
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    torch.testing.assert_close(
        results[f"end_{precision}"], results[f"end_{precision}_offloaded"], atol=tolerance, rtol=0
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rows", ["padded", "packed"])
def test_flash_attention_is_near_float32(parts: Any, strategy: str, rows: str) -> None:
    results = parts.of("flash")
    result = results[f"flash_{strategy}_{rows}"]
    assert distance(result["gradient"], results["plain"]["gradient"]) < BF16_GRADIENT
    assert distance(result["gradient"], results[f"sdpa_{strategy}"]["gradient"]) < BF16_GRADIENT
    torch.testing.assert_close(result["scores"], result["evaluated_scores"], atol=BF16_SCORE, rtol=0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_shared_prompt_changes_nothing_under_flash_attention(parts: Any, strategy: str) -> None:
    results = parts.of("flash")
    result, apart = results[f"always_{strategy}"], results[f"never_{strategy}"]
    assert result["loss"] == pytest.approx(apart["loss"], abs=0.02)
    torch.testing.assert_close(result["scores"], apart["scores"], atol=BF16_SCORE, rtol=0)
    assert distance(result["gradient"], results["plain_prompted"]["gradient"]) < BF16_GRADIENT
    assert distance(apart["gradient"], results["plain_prompted"]["gradient"]) < BF16_GRADIENT


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_adapter_is_frozen_and_thawed(parts: Any, strategy: str) -> None:
    results = parts.of("lora")
    assert torch.equal(results[f"frozen_{strategy}"], results[f"then_{strategy}"])
    assert torch.equal(results[f"thawed_{strategy}"], results[f"later_{strategy}"])
    assert not torch.equal(results[f"start_{strategy}"], results[f"then_{strategy}"])
    assert results[f"adapter_{strategy}"] > 0
