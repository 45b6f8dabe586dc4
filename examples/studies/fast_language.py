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
"""The language with an oracle in tensors: sampling, losses and judging, several times faster than lists of tokens.

All prompts of a language have one length, so that prompts and answers are plain matrices. The mathematics is that of
``examples/gad_in_one_file.py`` at temperature 1 (a test compares them). Shape letters: N texts of P prompt tokens and
up to R answer tokens; G prompts in a step, n rollouts each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import study_common  # noqa: F401  # makes the examples beside this folder importable
import torch
import torch.nn.functional as F
from gad_in_one_file import Example
from oracle_language import CausalTransformer, Language, RecurrentStudent
from torch import Tensor, nn

from gad_verl.core import discriminator_pair_loss, low_variance_kl


@dataclass(frozen=True)
class Texts:
    """Prompts with one answer each.

    Args:
        prompts: (N, P).
        answers: (N, R), filled up with the end token.
        lengths: (N,) tokens of an answer, its end token among them if it has one.
    """

    prompts: Tensor
    answers: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example], width: int, end: int) -> "Texts":
        """The teacher's (first) texts, R = ``width``."""
        answers = [example.teachers[0].token_ids for example in examples]
        return cls(
            torch.tensor([example.prompt_ids for example in examples]),
            torch.tensor([answer + [end] * (width - len(answer)) for answer in answers]),
            torch.tensor([len(answer) for answer in answers]),
        )

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: Tensor | slice) -> "Texts":
        return Texts(self.prompts[rows], self.answers[rows], self.lengths[rows])

    def mask(self) -> Tensor:
        """(N, R): 1 at the tokens of the answer."""
        return (torch.arange(self.answers.shape[1]) < self.lengths.unsqueeze(1)).float()


# ------------------------------------------------- sampling -------------------------------------------------


class RecurrentDecoder:
    """The state of a GRU behind its prompts; ``logits`` (N, V) are of the next token."""

    def __init__(self, student: RecurrentStudent, prompts: Tensor, copies: int) -> None:
        self.student = student
        hidden, self.state = student.layer(student.embedding(prompts))
        self.state = self.state.repeat_interleave(copies, dim=1)
        self.logits = student.head(hidden[:, -1]).repeat_interleave(copies, dim=0)

    def push(self, tokens: Tensor) -> None:
        """Read the next token (N,) of each row."""
        hidden, self.state = self.student.layer(self.student.embedding(tokens.unsqueeze(1)), self.state)
        self.logits = self.student.head(hidden[:, -1])


class TransformerDecoder:
    """Keys and values of the tokens read so far; ``logits`` (N, V) are of the next token."""

    def __init__(self, student: CausalTransformer, prompts: Tensor, copies: int) -> None:
        self.student, self.position = student, 0
        self.cache: list[tuple[Tensor, Tensor] | None] = [None] * len(student.blocks)
        self._read(prompts)
        self.logits = self.logits.repeat_interleave(copies, dim=0)
        self.cache = [tuple(part.repeat_interleave(copies, dim=0) for part in pair) for pair in self.cache]

    def push(self, tokens: Tensor) -> None:
        """Read the next token (N,) of each row."""
        self._read(tokens.unsqueeze(1))

    def _read(self, ids: Tensor) -> None:
        student, (rows, tokens) = self.student, ids.shape
        x = student.embedding(ids) + student.positions.weight[self.position : self.position + tokens]
        for number, block in enumerate(student.blocks):
            qkv = block["qkv"](block["attention_norm"](x)).view(rows, tokens, 3, student.heads, -1)
            query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
            if self.cache[number] is not None:
                key, value = (torch.cat(pair, dim=2) for pair in zip(self.cache[number], (key, value), strict=True))
            self.cache[number] = (key, value)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=tokens > 1)
            x = x + block["attention"](mixed.transpose(1, 2).reshape(rows, tokens, -1))
            x = x + block["down"](F.relu(block["up"](block["mlp_norm"](x))))
        self.position += tokens
        self.logits = student.head(student.norm(x[:, -1]))


@torch.no_grad()
def sample(
    student: nn.Module,
    prompts: Tensor,
    copies: int,
    limit: int,
    end: int,
    generator: torch.Generator | None,
) -> Texts:
    """Answers of up to ``limit`` tokens at temperature 1, ``copies`` to each prompt, side by side.

    A prompt is read once for all of its answers. Without a generator the likeliest tokens are taken.
    """
    kind = RecurrentDecoder if isinstance(student, RecurrentStudent) else TransformerDecoder
    decoder = kind(student, prompts, copies)
    rows = copies * len(prompts)
    answers, running = torch.full((rows, limit), end), torch.ones(rows, dtype=torch.bool)
    lengths = torch.zeros(rows, dtype=torch.long)
    for place in range(limit):
        if place:
            decoder.push(answers[:, place - 1])
        clocks = decoder.logits
        if generator is not None:
            # Of clocks with rates p, clock i rings first with probability p_i.
            clocks = clocks - torch.empty_like(clocks).exponential_(generator=generator).log()
        answers[:, place] = torch.where(running, clocks.argmax(-1), end)
        lengths += running
        running = running & (answers[:, place] != end)
        if not running.any():
            break
    return Texts(prompts.repeat_interleave(copies, dim=0), answers, lengths)


# -------------------------------------------------- losses --------------------------------------------------


def token_log_probs(student: nn.Module, texts: Texts) -> Tensor:
    """(N, R) log-probabilities of the answers' tokens; what stands beyond an answer's length is to be masked."""
    ids = torch.cat([texts.prompts, texts.answers[:, :-1]], dim=1)
    logits = student(input_ids=ids, attention_mask=None)[:, texts.prompts.shape[1] - 1 :]
    return logits.log_softmax(-1).gather(2, texts.answers.unsqueeze(2)).squeeze(2)


def supervised_loss(student: nn.Module, texts: Texts) -> Tensor:
    """Cross-entropy, a mean over all tokens of the texts."""
    mask = texts.mask()
    return -(token_log_probs(student, texts) * mask).sum() / mask.sum()


def policy_loss(student: nn.Module, reference: nn.Module, rollouts: Texts, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """Policy gradient and KL against the reference, means over all tokens of the rollouts; advantages (N,)."""
    mask = rollouts.mask()
    tokens, log_probs = mask.sum(), token_log_probs(student, rollouts)
    with torch.no_grad():
        reference_log_probs = token_log_probs(reference, rollouts)
    ratio = (log_probs - log_probs.detach()).exp()
    policy = -(advantages.unsqueeze(1) * ratio * mask).sum() / tokens
    return policy, (low_variance_kl(log_probs, reference_log_probs) * mask).sum() / tokens


def pair_loss(
    discriminator: nn.Module, teacher: Texts, rollouts: Texts, trains: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Loss of D over the pairs of teacher and student, and scores (G, 1 + n) with the teacher's first.

    Args:
        teacher: G texts.
        rollouts: G n texts, those of a prompt side by side.
        trains: (G,) bool, which prompts' pairs are in the loss, or (G, n) weights of the pairs; None for all.
    """
    groups, n = len(teacher), len(rollouts) // len(teacher)
    answers = torch.cat([teacher.answers.unsqueeze(1), rollouts.answers.view(groups, n, -1)], dim=1).flatten(0, 1)
    last = teacher.prompts.shape[1] - 1 + torch.cat([teacher.lengths.unsqueeze(1), rollouts.lengths.view(groups, n)], 1)
    ids = torch.cat([teacher.prompts.repeat_interleave(n + 1, dim=0), answers], dim=1)
    values = discriminator(input_ids=ids, attention_mask=None)
    scores = values.gather(1, last.view(-1, 1)).view(groups, n + 1)
    weights = torch.ones(groups, n) if trains is None else trains.float().view(groups, -1).expand(groups, n)
    return discriminator_pair_loss(scores[:, 0], scores[:, 1:], weights, weights.sum()), scores.detach()


# -------------------------------------------------- judging --------------------------------------------------


class Oracle:
    """Judges students on fresh prompts as ``oracle_language.judge`` does, in any language.

    Args:
        language: Of the prompts.
        prompts: Letters.
        validation: Teacher texts that train nobody.
    """

    def __init__(self, language: Language, prompts: Sequence[list[int]], validation: Texts) -> None:
        self.language, self.validation = language, validation
        self.prompts = torch.tensor([[*prompt, language.begin] for prompt in prompts])
        self.limit = language.longest_answer(len(prompts[0]))
        self.valid = torch.tensor(
            [
                [answer + [language.end] * (self.limit - len(answer)) for answer in language.valid_answers(prompt)]
                for prompt in prompts
            ]
        )  # (prompts, templates, R)

    @torch.no_grad()
    def likelihood_loss(self, student: nn.Module) -> float:
        """Mean negative log-likelihood of a token of the validation texts."""
        return supervised_loss(student, self.validation).item()

    def judge(self, student: nn.Module, samples: int, seed: int) -> dict[str, float]:
        """``valid``, ``greedy``, ``covered``, ``length`` and the share of each template, as the old oracle has them.

        Students that are equal get the same random numbers from the same seed, and so the same figures.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn = sample(student, self.prompts, samples, self.limit, self.language.end, generator)
        # Filled up with the end token, an answer that was cut off equals no valid one: those have an end.
        found = (drawn.answers.view(len(self.prompts), samples, 1, -1) == self.valid.unsqueeze(1)).all(-1)
        likeliest = sample(student, self.prompts, 1, self.limit, self.language.end, None).answers
        shares = found.float().mean((0, 1)).tolist()
        return {
            "valid": sum(shares),
            "greedy": (likeliest.unsqueeze(1) == self.valid).all(-1).any(1).float().mean().item(),
            "covered": found.any(1).float().sum(1).mean().item(),
            "length": drawn.lengths.float().mean().item(),
            **dict(zip((template.name for template in self.language.templates), shares, strict=True)),
        }
