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
"""The language of study 2: its teacher, its oracle, and small models that learn it.

A prompt is some letters. The teacher answers by one of three templates, then ends:

    H + the letters reversed          half of the time
    M + the first two letters         3 in 10
    E + the first letter twice, the second twice      2 in 10

An answer is valid if it is one of the three, so that a student is judged exactly and without its teacher. Another
:class:`Language` has other letters or templates.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from gad_in_one_file import Example
from token_rows import sample_responses
from torch import Tensor, nn

from gad_verl.data.tokens import EncodedResponse


@dataclass(frozen=True)
class Template:
    """A way to answer.

    Args:
        name: In tables.
        share: How often the teacher answers so.
        letters: Of the answer to a prompt, between the template's own token and the end.
    """

    name: str
    share: float
    letters: Callable[[Sequence[int]], list[int]]


@dataclass(frozen=True)
class Language:
    """Tokens are the letters, then one for each template, then the tokens where an answer begins and where it ends."""

    letters: int
    templates: tuple[Template, ...]

    @property
    def begin(self) -> int:
        return self.letters + len(self.templates)

    @property
    def end(self) -> int:
        return self.begin + 1

    @property
    def vocabulary(self) -> int:
        return self.end + 1

    def valid_answers(self, prompt: Sequence[int]) -> list[list[int]]:
        """The valid answers to a prompt of letters (without its begin token), one for each template."""
        return [
            [self.letters + number, *template.letters(prompt), self.end]
            for number, template in enumerate(self.templates)
        ]

    def longest_answer(self, length: int) -> int:
        """Tokens of the longest valid answer to a prompt of so many letters."""
        return max(map(len, self.valid_answers([0] * length)))


REVERSED = Template("reverse", 0.5, lambda prompt: list(reversed(prompt)))
FIRST_TWO = Template("two", 0.3, lambda prompt: list(prompt[:2]))
DOUBLES = Template("doubled", 0.2, lambda prompt: [prompt[0], prompt[0], prompt[1], prompt[1]])
LANGUAGE = Language(8, (REVERSED, FIRST_TWO, DOUBLES))

LETTERS, BEGIN, END, VOCABULARY = LANGUAGE.letters, LANGUAGE.begin, LANGUAGE.end, LANGUAGE.vocabulary
TEMPLATE_SHARES = tuple(template.share for template in LANGUAGE.templates)
STOP_IDS = frozenset([END])
valid_answers, longest_answer = LANGUAGE.valid_answers, LANGUAGE.longest_answer


@dataclass(frozen=True)
class Corpus:
    """Teacher texts to train on and to validate with, and fresh prompts for the oracle; no prompt occurs twice."""

    train: list[Example]
    validation: list[Example]
    test: list[list[int]]


def make_corpus(
    length: int, train: int, validation: int, test: int, seed: int, language: Language = LANGUAGE
) -> Corpus:
    """Different prompts of ``length`` letters, one teacher text each."""
    rng, letters = np.random.default_rng([seed, length, train]), language.letters
    numbers = rng.choice(letters**length, size=train + validation + test, replace=False)
    shares = [template.share for template in language.templates]
    templates = rng.choice(len(shares), size=len(numbers), p=shares)
    prompts = [[int(number) // letters**place % letters for place in range(length)] for number in numbers]
    answers = [language.valid_answers(prompt)[number] for prompt, number in zip(prompts, templates, strict=True)]
    rows = [
        Example(index, [*prompt, language.begin], [EncodedResponse(answer, finished=True, cut=False)])
        for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]
    return Corpus(rows[:train], rows[train : train + validation], prompts[train + validation :])


def with_more_texts(corpus: Corpus, count: int, seed: int, language: Language = LANGUAGE) -> Corpus:
    """The corpus with ``count`` rows for each training prompt: its text, and others drawn from the teacher."""
    rng, shares = np.random.default_rng([seed, count]), [template.share for template in language.templates]
    rows: list[Example] = []
    for example in corpus.train:
        answers = language.valid_answers(example.prompt_ids[:-1])
        texts = [example.teachers[0]]
        for number in rng.choice(len(shares), size=count - 1, p=shares):
            texts.append(EncodedResponse(answers[number], finished=True, cut=False))
        rows += [Example(len(rows) + place, example.prompt_ids, [text]) for place, text in enumerate(texts)]
    return Corpus(rows, corpus.validation, corpus.test)


# ------------------------------------------------- the oracle -------------------------------------------------


@torch.no_grad()
def judge(student: nn.Module, prompts: Sequence[list[int]], samples: int) -> dict[str, float]:
    """What the oracle says of a student on fresh prompts.

    Args:
        student: Token ids to logits.
        prompts: Letters.
        samples: Answers per prompt at temperature 1.

    Returns:
        ``valid`` and ``greedy``: share of valid answers at temperature 1, and of the likeliest answers; ``covered``:
        different valid answers to a prompt (of 3); ``length`` of an answer in tokens; ``reverse``, ``two``,
        ``doubled``: share of answers that are valid by each template.
    """
    length = len(prompts[0])
    asked = [[*prompt, BEGIN] for prompt in prompts for _ in range(samples)]
    answers = sample_responses(student, asked, longest_answer(length), STOP_IDS, temperature=1.0)
    greedy = sample_responses(
        student, [[*prompt, BEGIN] for prompt in prompts], longest_answer(length), STOP_IDS, temperature=0.0
    )
    counts, covered = [0, 0, 0], 0
    for number, prompt in enumerate(prompts):
        templates = valid_answers(prompt)
        found = [templates.index(a) for a in answers[number * samples : (number + 1) * samples] if a in templates]
        covered += len(set(found))
        for template in found:
            counts[template] += 1
    shares = [count / len(asked) for count in counts]
    right = sum(answer in valid_answers(prompt) for prompt, answer in zip(prompts, greedy, strict=True))
    return {
        "valid": sum(shares),
        "greedy": right / len(prompts),
        "covered": covered / len(prompts),
        "length": sum(map(len, answers)) / len(answers),
        **dict(zip(("reverse", "two", "doubled"), shares, strict=True)),
    }


# --------------------------------------------------- models ---------------------------------------------------


class RecurrentStudent(nn.Module):
    """A GRU: it has to carry the whole prompt in its state."""

    def __init__(self, width: int, embedding: int, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.layer = nn.GRU(embedding, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(input_ids))[0])


class CausalTransformer(nn.Module):
    """Pre-norm transformer; ``outputs`` = vocabulary for a student, 1 for a discriminator.

    Rows are padded on the right and attention is causal, so that the mask has nothing to do.
    """

    def __init__(
        self, width: int, layers: int, heads: int, outputs: int, positions: int = 24, vocabulary: int = VOCABULARY
    ) -> None:
        super().__init__()
        self.heads, self.outputs = heads, outputs
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.normal_(self.positions.weight, std=0.1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "attention_norm": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "attention": nn.Linear(width, width),
                    "mlp_norm": nn.LayerNorm(width),
                    "up": nn.Linear(width, 2 * width),
                    "down": nn.Linear(2 * width, width),
                }
            )
            for _ in range(layers)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for name in ("attention", "down"):
                block[name].weight.data.mul_(0.5)
        if outputs == 1:
            self.head.weight.data.mul_(0.02 * math.sqrt(width))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        rows, tokens = input_ids.shape
        x = self.embedding(input_ids) + self.positions.weight[:tokens]
        for block in self.blocks:
            qkv = block["qkv"](block["attention_norm"](x)).view(rows, tokens, 3, self.heads, -1)
            query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + block["attention"](mixed.transpose(1, 2).reshape(rows, tokens, -1))
            x = x + block["down"](F.relu(block["up"](block["mlp_norm"](x))))
        x = self.head(self.norm(x))
        return x.squeeze(-1) if self.outputs == 1 else x
