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
"""The rollout "hf" sees pictures: a batch of prompts with and without them, against plain forward passes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL.Image import Image
from tiny_vlm import FAMILIES, QUESTION, build_vlm, picture
from transformers import AutoConfig
from verl.utils.tokenizer import hf_processor, hf_tokenizer
from verl.workers.config import CheckpointEngineConfig, HFModelConfig, RolloutConfig

from gad_verl.data.image_prompts import ImagePrompts
from gad_verl.data.images import decoded, with_images
from gad_verl.rollout.batching import SamplingSettings, generate_batch
from gad_verl.rollout.hf_server import HFServer

LENGTH = 6
# More text than in the first: the batch is filled up on the left.
PROMPTS = [
    (QUESTION, [picture("red")]),
    ("no picture at all, but a longer text", []),
    ("<image> and <image> are what?", [picture("blue"), picture("white")]),
]


@pytest.fixture(scope="module", params=FAMILIES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HFServer]:
    folder = build_vlm(tmp_path_factory.mktemp(request.param) / "model", request.param)
    model = HFModelConfig(path=str(folder), override_config={"attn_implementation": "sdpa"})
    rollout = RolloutConfig(
        name="hf",
        dtype="float32",
        checkpoint_engine=CheckpointEngineConfig(),
        prompt_length=64,
        response_length=LENGTH,
        calculate_log_probs=True,
    )
    server = HFServer(rollout, model, 0)
    with torch.no_grad():
        # A random model is nearly uniform: make its choices distinct.
        head = server.model.lm_head
        head.weight = torch.nn.Parameter(head.weight * 30)
    return folder, server


def asked(folder: Path) -> list[tuple[list[int], Any, list[Image]]]:
    """Of each prompt its tokens, its pixels and its pictures."""
    tokenizer = hf_tokenizer(str(folder))
    prompts = ImagePrompts(tokenizer, hf_processor(str(folder)), AutoConfig.from_pretrained(folder).model_type, 100)
    found = []
    for text, files in PROMPTS:
        messages = [{"role": "user", "content": text}]
        if not files:
            rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            found.append((tokenizer(rendered)["input_ids"], None, []))
            continue
        ids, images = prompts.read(with_images(messages, files))
        found.append((ids, images, [decoded(file) for file in files]))
    return found


def plain(model: Any, ids: list[int], images: Any) -> torch.Tensor:
    """Logits at the end of a sequence, by a whole forward pass."""
    # What a generation before has left there is not for this row.
    model.model.rope_deltas = None
    row = torch.tensor([ids])
    seen = {}
    if images is not None:
        seen = {name: images.inputs[name] for name in ("pixel_values", "image_grid_thw")}
        seen["mm_token_type_ids"] = (row == model.config.image_token_id).long()
    with torch.no_grad():
        logits = model(input_ids=row, use_cache=False, **seen).logits[0, -1].float()
    if images is not None:
        logits[[model.config.image_token_id, model.config.video_token_id]] = -torch.inf
    return logits


def test_a_batch_of_requests_is_answered_as_each_by_itself(served: tuple[Path, HFServer]) -> None:
    folder, server = served

    async def ask(prompts: list[Any]) -> list[Any]:
        sampling = {"temperature": 0.0, "logprobs": True}
        return await asyncio.gather(
            *[
                server.generate(ids, sampling, str(number), image_data=pictures or None)
                for number, (ids, _, pictures) in enumerate(prompts)
            ]
        )

    prompts = asked(folder)
    together = asyncio.run(ask(prompts))
    # A batch of text behind one with pictures.
    (again,) = asyncio.run(ask(prompts[1:2]))
    assert again.token_ids == together[1].token_ids
    for (ids, images, _), answer in zip(prompts, together, strict=True):
        so_far, expected = list(ids), []
        for token in answer.token_ids:
            logits = plain(server.model, so_far, images)
            assert token == int(logits.argmax())
            expected.append(float(torch.log_softmax(logits, dim=-1)[token]))
            so_far.append(token)
        assert answer.log_probs == pytest.approx(expected, abs=1e-4)


def test_tokens_of_images_are_not_sampled(served: tuple[Path, HFServer]) -> None:
    folder, server = served
    (ids, images, _), *_ = asked(folder)
    config = server.model.config
    marks = [config.image_token_id, config.video_token_id]
    settings = SamplingSettings(max_new_tokens=3, temperature=50.0, logprobs=True)
    found = generate_batch(server.model, [ids] * 200, settings, frozenset(), 0, images=[images.inputs] * 200)
    sampled = {token for one in found for token in one.token_ids}
    # So hot that every token has its turn, but for these.
    assert len(sampled) > 0.8 * config.get_text_config().vocab_size and sampled.isdisjoint(marks)
