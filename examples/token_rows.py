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
"""Rows of token ids through a causal model: scores, log-probabilities, samples. Nothing here knows of GAD."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gad_verl.rollout.batching import SamplingSettings, generate_batch


def forward(module: nn.Module, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Output of the module on rows of token ids, padded on the right, and the padded ids."""
    device, lengths = next(module.parameters()).device, [len(row) for row in rows]
    width = max(lengths)
    ids = torch.tensor([list(row) + [0] * (width - len(row)) for row in rows], device=device)
    mask = torch.arange(width, device=device) < torch.tensor(lengths, device=device).unsqueeze(1)
    output = module(input_ids=ids, attention_mask=mask.long())
    return getattr(output, "logits", output), ids


def sequence_scores(discriminator: nn.Module, rows: Sequence[Sequence[int]]) -> Tensor:
    """Score of each sequence: the value at its last token."""
    values, _ = forward(discriminator, rows)
    values = values.squeeze(-1) if values.dim() == 3 else values
    last = torch.tensor([len(row) - 1 for row in rows], device=values.device)
    return values.float().gather(1, last.unsqueeze(1)).squeeze(1)


def token_log_probs(
    student: nn.Module, prompts: Sequence[list[int]], responses: Sequence[list[int]], temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability and entropy (detached) of every response token, and the row it belongs to, as flat tensors."""
    rows = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    logits, ids = forward(student, rows)
    begin = torch.tensor([len(prompt) for prompt in prompts], device=ids.device).unsqueeze(1) - 1
    end = torch.tensor([len(row) for row in rows], device=ids.device).unsqueeze(1) - 1
    position = torch.arange(ids.shape[1] - 1, device=ids.device)
    chosen = (position >= begin) & (position < end)  # the positions that predict a response token
    distribution = (logits[:, :-1][chosen].float() / temperature).log_softmax(dim=-1)
    log_probs = distribution.gather(1, ids[:, 1:][chosen].unsqueeze(1)).squeeze(1)
    entropy = -(distribution.detach().exp() * distribution.detach()).sum(dim=-1)
    return log_probs, entropy, chosen.nonzero()[:, 0]


@torch.no_grad()
def sample_responses(
    student: nn.Module, prompts: Sequence[list[int]], limit: int, stop_ids: frozenset[int], temperature: float
) -> list[list[int]]:
    """Sample a response to every prompt, up to and including a stop id; temperature 0 takes the likeliest token."""
    if hasattr(student, "generate"):
        return _generate(student, prompts, limit, stop_ids, temperature)
    rows, running = [list(prompt) for prompt in prompts], list(range(len(prompts)))
    for _ in range(limit):
        batch = [rows[number] for number in running]
        logits, _ = forward(student, batch)
        last = torch.tensor([len(row) - 1 for row in batch], device=logits.device)
        logits = logits[torch.arange(len(batch), device=logits.device), last].float()
        greedy = temperature == 0
        tokens = logits.argmax(-1) if greedy else torch.multinomial((logits / temperature).softmax(-1), 1).squeeze(1)
        for number, token in zip(running, tokens.tolist(), strict=True):
            rows[number].append(token)
        running = [number for number in running if rows[number][-1] not in stop_ids]
        if not running:
            break
    return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]


def _generate(
    student: Any, prompts: Sequence[list[int]], limit: int, stop_ids: frozenset[int], temperature: float
) -> list[list[int]]:
    """The same by transformers, which keeps keys and values; as the trainer's rollout ``hf`` asks it.

    A model's own generation config (Qwen2.5 brings a repetition penalty) has no say: the tokens would come from another
    distribution than the one whose log-probabilities train the student.
    """
    settings = SamplingSettings(max_new_tokens=limit, temperature=temperature)
    responses = generate_batch(student, [list(prompt) for prompt in prompts], settings, stop_ids, min(stop_ids))
    return [response.token_ids for response in responses]
