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
"""Generation of many requests at once equals that of each alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gad_verl.rollout.batching import SamplingSettings, generate_batch, left_padded

PROMPTS = [[5, 6, 7], [40], [9, 8, 7, 6, 5, 4, 3, 2, 1], [100, 101], [200, 13, 77, 21, 5]]
NOTHING: frozenset[int] = frozenset()


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        # A random model of initializer range 0.02 is nearly uniform: make its choices distinct.
        model.lm_head.weight.mul_(20)
    return model


@pytest.fixture
def pad(tokenizer: Any) -> int:
    return tokenizer.pad_token_id


def teacher_forced(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """Log-probabilities (tokens, vocabulary) of a plain forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.double(), dim=-1)


def test_batched_greedy_equals_one_by_one(model: Any, pad: int) -> None:
    settings = SamplingSettings(max_new_tokens=12, temperature=0.0, logprobs=True)
    together = generate_batch(model, PROMPTS, settings, NOTHING, pad)
    assert len(together) == len(PROMPTS)
    for prompt, response in zip(PROMPTS, together, strict=True):
        (alone,) = generate_batch(model, [prompt], settings, NOTHING, pad)
        assert alone.token_ids == response.token_ids and len(response.token_ids) == 12
        assert alone.log_probs == pytest.approx(response.log_probs, abs=1e-5)
        forced = teacher_forced(model, prompt, response.token_ids)
        assert forced.argmax(dim=-1).tolist() == response.token_ids


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 1.7])
def test_log_probs_are_those_of_a_forward_pass(model: Any, pad: int, temperature: float) -> None:
    torch.manual_seed(3)
    settings = SamplingSettings(max_new_tokens=10, temperature=temperature, logprobs=True)
    for prompt, response in zip(PROMPTS, generate_batch(model, PROMPTS, settings, NOTHING, pad), strict=True):
        forced = teacher_forced(model, prompt, response.token_ids)
        forced = torch.log_softmax(forced / (temperature or 1.0), dim=-1)
        expected = forced[torch.arange(len(response.token_ids)), response.token_ids]
        assert response.log_probs == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("limits", [{"top_k": 3}, {"top_p": 0.6}, {"top_k": 5, "top_p": 0.9}])
def test_log_probs_are_those_of_what_top_k_and_top_p_leave(model: Any, pad: int, limits: dict[str, Any]) -> None:
    torch.manual_seed(6)
    settings = SamplingSettings(max_new_tokens=6, temperature=2.0, logprobs=True, **limits)
    for prompt, response in zip(PROMPTS, generate_batch(model, PROMPTS, settings, NOTHING, pad), strict=True):
        for place, token in enumerate(response.token_ids):
            forced = teacher_forced(model, prompt, [*response.token_ids[:place], 0])[-1]
            ranked, order = torch.sort(torch.softmax(forced / 2.0, dim=-1), descending=True)
            ranked[limits.get("top_k", len(ranked)) :] = 0
            # The fewest of the likeliest tokens that hold the mass.
            before = (ranked / ranked.sum()).cumsum(dim=0) - ranked / ranked.sum()
            ranked[before >= limits.get("top_p", 1.0)] = 0
            left = torch.zeros_like(ranked).scatter(0, order, ranked / ranked.sum())
            assert response.log_probs[place] == pytest.approx(left[token].log().item(), abs=1e-4)


def test_sampling_follows_the_distribution(model: Any, pad: int) -> None:
    torch.manual_seed(4)
    prompt, count = PROMPTS[0], 2000
    settings = SamplingSettings(max_new_tokens=1, temperature=0.8)
    found = generate_batch(model, [prompt] * count, settings, NOTHING, pad)
    counts = torch.bincount(torch.tensor([r.token_ids[0] for r in found]), minlength=model.config.vocab_size).double()
    probabilities = torch.softmax(teacher_forced(model, prompt, [0])[0] / 0.8, dim=-1)
    deviation = (probabilities * (1 - probabilities) / count).sqrt()
    # Five standard deviations of the likelier tokens.
    likely = probabilities * count > 20
    assert likely.any()
    assert ((counts / count - probabilities).abs()[likely] < 5 * deviation[likely]).all()
    # Nothing restricts the unlikely ones: top_k and top_p are off.
    assert (counts > 0).sum() > 50


def test_top_k_and_top_p_restrict(model: Any, pad: int) -> None:
    torch.manual_seed(5)
    best = teacher_forced(model, PROMPTS[0], [0])[0].argsort(descending=True)
    settings = SamplingSettings(max_new_tokens=1, temperature=3.0, top_k=3)
    found = {r.token_ids[0] for r in generate_batch(model, [PROMPTS[0]] * 200, settings, NOTHING, pad)}
    assert found == set(best[:3].tolist())
    settings = SamplingSettings(max_new_tokens=1, temperature=1.0, top_p=1e-6)
    found = {r.token_ids[0] for r in generate_batch(model, [PROMPTS[0]] * 50, settings, NOTHING, pad)}
    assert found == {best[0].item()}


def test_stops_after_any_stop_token(model: Any, pad: int) -> None:
    greedy = SamplingSettings(max_new_tokens=12, temperature=0.0, logprobs=True)
    free = generate_batch(model, PROMPTS, greedy, NOTHING, pad)
    # The third token of two of the responses; others may hold one of them anywhere.
    stops = frozenset({free[0].token_ids[2], free[3].token_ids[2]})
    stopped = generate_batch(model, PROMPTS, greedy, stops, pad)
    for before, after in zip(free, stopped, strict=True):
        ends = [position for position, token in enumerate(before.token_ids) if token in stops]
        length = ends[0] + 1 if ends else 12
        assert after.token_ids == before.token_ids[:length]
        assert len(after.log_probs) == length
        assert after.log_probs == pytest.approx(before.log_probs[:length], abs=1e-5)
    assert any(len(response.token_ids) < 12 for response in stopped)


def test_ignore_eos_goes_on(model: Any, pad: int) -> None:
    greedy = SamplingSettings(max_new_tokens=8, temperature=0.0)
    free = generate_batch(model, PROMPTS, greedy, NOTHING, pad)
    stops = frozenset({free[0].token_ids[1]})
    settings = SamplingSettings(max_new_tokens=8, temperature=0.0, ignore_eos=True)
    model.generation_config.eos_token_id, before = free[0].token_ids[1], model.generation_config.eos_token_id
    try:
        assert generate_batch(model, PROMPTS, settings, stops, pad) == free
    finally:
        model.generation_config.eos_token_id = before


@pytest.mark.parametrize(
    "defaults",
    [{"repetition_penalty": 5.0}, {"no_repeat_ngram_size": 1}, {"min_new_tokens": 5}, {"bad_words_ids": [[1], [2]]}],
)
def test_the_models_own_generation_defaults_do_not_leak(model: Any, pad: int, defaults: dict[str, Any]) -> None:
    # Qwen2.5 ships repetition_penalty 1.05 and top_p 0.8: training must sample from the model itself.
    settings = SamplingSettings(max_new_tokens=12, temperature=0.0, logprobs=True)
    plain = generate_batch(model, PROMPTS, settings, NOTHING, pad)
    before = {name: getattr(model.generation_config, name) for name in defaults}
    try:
        for name, value in defaults.items():
            setattr(model.generation_config, name, value)
        assert generate_batch(model, PROMPTS, settings, NOTHING, pad) == plain
    finally:
        for name, value in before.items():
            setattr(model.generation_config, name, value)


@pytest.mark.parametrize("defaults", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}, {"min_p": 0.99}])
def test_the_models_own_sampling_defaults_do_not_leak(model: Any, pad: int, defaults: dict[str, Any]) -> None:
    before = {name: getattr(model.generation_config, name) for name in defaults}
    try:
        for name, value in defaults.items():
            setattr(model.generation_config, name, value)
        torch.manual_seed(6)
        found = generate_batch(model, [PROMPTS[0]] * 50, SamplingSettings(max_new_tokens=1), NOTHING, pad)
    finally:
        for name, value in before.items():
            setattr(model.generation_config, name, value)
    assert len({response.token_ids[0] for response in found}) > 5


def test_padding() -> None:
    ids, mask = left_padded([[1, 2, 3], [4]], pad_token_id=9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    with pytest.raises(ValueError, match="without tokens"):
        left_padded([[1], []], 0)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"max_new_tokens": 1, "temperature": -0.1}, "temperature"),
    ],
)
def test_bad_settings_raise(values: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        SamplingSettings(**values)


def test_equal_settings_share_a_batch() -> None:
    assert len({SamplingSettings(max_new_tokens=4), SamplingSettings(4), SamplingSettings(5)}) == 2
