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
"""A language model of transformers, fast on one core: packed rows, sampling, weights in bfloat16 with float32 masters.

A packed row is a prompt and all answers to it, which see the prompt and themselves alone: the prompt is computed once.
Losses and scores are those of ``examples/token_rows.py`` (a test compares them). Shape letters: G prompts, m answers
each, L places of a row, T answer tokens in all.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from objective_training import CLIP_GRAD, WEIGHT_DECAY
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import Cache

RAMP = 10  # updates in which the rate of a fresh optimizer rises
Ids = Sequence[int]


@dataclass(frozen=True)
class Packed:
    """G prompts with m answers each.

    Args:
        ids, positions: (G, L).
        sees: (G, 1, L, L) bool.
        before: (T,) for each answer token the place, in G * L, of the token before it.
        tokens: (T,) the answer tokens.
        owner: (T,) which of the G * m answers each belongs to.
        last: (G, m) place of the last token of each answer, in G * L.
    """

    ids: Tensor
    positions: Tensor
    sees: Tensor
    before: Tensor
    tokens: Tensor
    owner: Tensor
    last: Tensor

    def per_answer(self, values: Tensor) -> Tensor:
        """Sums (G, m) of values (T,) of the tokens."""
        return values.new_zeros(self.last.numel()).index_add(0, self.owner, values).view_as(self.last)


def pack(prompts: Sequence[Ids], answers: Sequence[Sequence[Ids]], filler: int) -> Packed:
    """Rows of a prompt and its answers, as many for each prompt, none of them empty.

    Args:
        filler: Any token id, for the places behind a row's end.
    """
    rows, places, segments = [], [], []
    before, tokens, owner, last = [], [], [], []
    width = max(len(prompt) + sum(map(len, some)) for prompt, some in zip(prompts, answers, strict=True))
    for prompt, some in zip(prompts, answers, strict=True):
        begin = len(rows) * width
        row, place, segment = list(prompt), list(range(len(prompt))), [0] * len(prompt)
        for number, answer in enumerate(some, start=1):
            first = begin + len(row)
            before += [begin + len(prompt) - 1, *range(first, first + len(answer) - 1)]
            owner += [len(last)] * len(answer)
            last.append(first + len(answer) - 1)
            tokens += answer
            row += answer
            place += range(len(prompt), len(prompt) + len(answer))
            segment += [number] * len(answer)
        left = width - len(row)
        rows.append(row + [filler] * left)
        places.append(place + [0] * left)
        segments.append(segment + [-1] * left)
    belongs = torch.tensor(segments)
    same = belongs.unsqueeze(2) == belongs.unsqueeze(1)
    to_prompt = (belongs == 0).unsqueeze(1)
    sees = (same | to_prompt) & torch.ones(width, width, dtype=torch.bool).tril()
    return Packed(
        torch.tensor(rows),
        torch.tensor(places),
        sees.unsqueeze(1),
        torch.tensor(before),
        torch.tensor(tokens),
        torch.tensor(owner),
        torch.tensor(last).view(len(prompts), -1),
    )


@torch.no_grad()
def read_prefix(model: Any, ids: Ids) -> "Cache":
    """Keys and values of what all prompts begin with, so that it is read once. At least one token."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    model.base_model(input_ids=torch.tensor([list(ids)]), past_key_values=cache, use_cache=True)
    return cache


def _behind(prefix: "Cache", rows: int) -> "Cache":
    """A copy for so many rows; reading adds to it."""
    cache = copy.deepcopy(prefix)
    cache.batch_repeat_interleave(rows)
    return cache


def _inputs(module: nn.Module, packed: Packed, prefix: "Cache | None" = None) -> dict[str, Any]:
    dtype = next(module.parameters()).dtype
    sees, positions, cache = packed.sees, packed.positions, {}
    if prefix is not None:
        known = prefix.get_seq_length()
        sees = torch.cat([sees.new_ones(*sees.shape[:-1], known), sees], -1)
        positions, cache = positions + known, {"past_key_values": _behind(prefix, len(packed.ids))}
    return {
        "input_ids": packed.ids,
        "attention_mask": torch.where(sees, 0.0, torch.finfo(dtype).min).to(dtype),
        "position_ids": positions,
        "use_cache": prefix is not None,
        **cache,
    }


def answer_logits(model: Any, packed: Packed, prefix: "Cache | None" = None) -> Tensor:
    """Logits (T, V) behind the prefix of each answer token; all rows stand behind that of :func:`read_prefix`."""
    hidden = model.base_model(**_inputs(model, packed, prefix)).last_hidden_state.flatten(0, 1)
    return model.get_output_embeddings()(hidden[packed.before]).float()


def log_probs(student: Any, packed: Packed) -> Tensor:
    """Log-probability (T,) of each answer token, at temperature 1."""
    return -F.cross_entropy(answer_logits(student, packed), packed.tokens, reduction="none")


def scores(discriminator: Any, packed: Packed) -> Tensor:
    """Score (G, m) of each answer: the value at its last token."""
    return discriminator(**_inputs(discriminator, packed)).logits.float().flatten()[packed.last]


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One token (N,) for each row of logits (N, V). torch.multinomial draws a number for each token of the vocabulary,
    which took a third of the time of sampling."""
    below = logits.softmax(-1).cumsum(-1)
    # Never the first token by a number of 0, nor one behind the last that has any probability.
    number = torch.rand(len(logits), 1, generator=generator).clamp(min=1e-12) * below[:, -1:]
    return torch.searchsorted(below, number).squeeze(1).clamp(max=logits.shape[1] - 1)


@torch.no_grad()
def sample(
    student: Any,
    prompts: Sequence[Ids],
    n: int,
    limit: int,
    end: int,
    generator: torch.Generator | None,
    prefix: "Cache | None" = None,
) -> list[list[list[int]]]:
    """n answers to each prompt, with their end token where they have one; at temperature 1, greedy without a generator.

    Keys and values of a prompt are computed once, those of a prefix of all prompts (:func:`read_prefix`) are given;
    answers that have ended leave the batch.
    """
    from transformers import DynamicCache

    width = max(map(len, prompts))
    ids = torch.tensor([[end] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    real = torch.arange(width) >= width - torch.tensor([[len(prompt)] for prompt in prompts])
    cache = DynamicCache(config=student.config) if prefix is None else _behind(prefix, len(prompts))
    known = cache.get_seq_length()
    real = torch.cat([real.new_ones(len(real), known), real], 1)
    positions = (real.cumsum(1) - 1).clamp(min=0)[:, known:]
    head = student.get_output_embeddings()

    def forward(ids: Tensor, real: Tensor, positions: Tensor) -> Tensor:
        hidden = student.base_model(
            input_ids=ids, attention_mask=real, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return head(hidden[:, -1]).float()

    logits = forward(ids, real, positions).repeat_interleave(n, 0)
    if n > 1:
        cache.batch_repeat_interleave(n)
    real, following = real.repeat_interleave(n, 0), positions[:, -1:].repeat_interleave(n, 0) + 1
    answers: list[list[int]] = [[] for _ in range(len(prompts) * n)]
    running = torch.arange(len(answers))
    for step in range(limit):
        tokens = logits.argmax(-1) if generator is None else draw(logits, generator)
        for number, token in zip(running.tolist(), tokens.tolist(), strict=True):
            answers[number].append(token)
        left = (tokens != end).nonzero().squeeze(1)
        if step == limit - 1 or not len(left):
            break
        if len(left) < len(tokens):
            running, tokens, real, following = running[left], tokens[left], real[left], following[left]
            cache.batch_select_indices(left)
        real = torch.cat([real, real.new_ones(len(real), 1)], 1)
        logits = forward(tokens.unsqueeze(1), real, following)
        following = following + 1
    return [answers[begin : begin + n] for begin in range(0, len(answers), n)]


class Learner:
    """A module and its AdamW, which keeps float32 masters of weights in another type.

    Args:
        module: Trained in place.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.updates = module.eval(), 0
        self._weights = list(module.parameters())
        self._masters = [
            weight if weight.dtype == torch.float32 else weight.detach().float().requires_grad_()
            for weight in self._weights
        ]
        self._adam = torch.optim.AdamW(self._masters, lr=0.0, weight_decay=WEIGHT_DECAY, fused=True)

    def update(self, loss: Tensor, rate: float) -> float:
        """One clipped step, the first :data:`RAMP` at a rising rate; the gradient's norm. One that is not finite is
        left out."""
        loss.backward()
        for weight, master in zip(self._weights, self._masters, strict=True):
            if weight is not master:
                master.grad = None if weight.grad is None else weight.grad.float()
                weight.grad = None
        norm = nn.utils.clip_grad_norm_(self._masters, CLIP_GRAD).item()
        self.updates += 1
        if math.isfinite(norm):
            for group in self._adam.param_groups:
                group["lr"] = rate * min(1.0, self.updates / RAMP)
            self._adam.step()
            self._to_module()
        self._adam.zero_grad()
        return norm

    @torch.no_grad()
    def _to_module(self) -> None:
        for weight, master in zip(self._weights, self._masters, strict=True):
            if weight is not master:
                weight.copy_(master)

    def masters(self) -> list[Tensor]:
        """Copies of the weights, in float32."""
        return [master.detach().clone() for master in self._masters]

    @torch.no_grad()
    def start_from(self, masters: Sequence[Tensor]) -> None:
        """Take over weights of :meth:`masters`."""
        for mine, other in zip(self._masters, masters, strict=True):
            mine.copy_(other)
        self._to_module()

    def state_dict(self) -> dict[str, Any]:
        """Weights, moments and the number of updates."""
        return {"masters": self.masters(), "adam": self._adam.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state of :meth:`state_dict`."""
        self.start_from(state["masters"])
        self._adam.load_state_dict(state["adam"])
        self.updates = state["updates"]
