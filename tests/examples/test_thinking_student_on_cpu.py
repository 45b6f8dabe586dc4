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
"""A tiny student that was taught to think, by the whole algorithm in one file: with its thoughts hidden and without.

Two digits are asked for two tokens that follow from them. The student thinks a few dots and answers right in a part of
the cases; the teacher answers right and shows no thoughts.
"""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from gad_in_one_file import Example, Gad, Settings
from token_rows import sample_responses, token_log_probs
from torch import Tensor, nn

from gad_verl.core.reward_shaping import unanswered_rewards
from gad_verl.core.thoughts import Reading, places, read_thoughts
from gad_verl.data.tokens import EncodedResponse

# Two students are taught and five runs made, of a minute together.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

OPEN, CLOSE, DOT, STOP = 12, 13, 14, 15
VOCABULARY, LIMIT = 16, 12
STOPS = frozenset({STOP})
PROMPTS = [[a, b] for a in range(4) for b in range(4)]


def right_answer(prompt: Sequence[int]) -> list[int]:
    a, b = prompt
    return [4 + (a + b) % 4, 8 + (2 * a + b) % 4, STOP]


class Recurrent(nn.Module):
    """A causal model of a few thousand parameters, which has the prompt before its eyes at every token."""

    def __init__(self, outputs: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding, self.asked = nn.Embedding(VOCABULARY, 16), nn.Embedding(len(PROMPTS), 16)
        self.body, self.head = nn.GRU(32, 48, batch_first=True), nn.Linear(48, outputs)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # Prompts have two tokens; at the first of them nothing is asked of the model.
        number = (4 * input_ids[:, 0] + input_ids[:, min(1, input_ids.shape[1] - 1)]).clamp(max=len(PROMPTS) - 1)
        asked = self.asked(number).unsqueeze(1).expand(-1, input_ids.shape[1], -1)
        return self.head(self.body(torch.cat([self.embedding(input_ids), asked], dim=-1))[0])


def taught(thinks: bool) -> nn.Module:
    """A student that is right in each token of its answer in five of eight cases; nine of ten times it thinks."""
    rng, student = random.Random(1), Recurrent(VOCABULARY, seed=0)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)

    def response(prompt: list[int]) -> list[int]:
        dots = [OPEN, *[DOT] * rng.randint(1, 4), CLOSE] if thinks and rng.random() < 0.9 else []
        first, second, end = right_answer(prompt)
        # Half of the tokens are drawn.
        first = first if rng.random() < 0.5 else 4 + rng.randrange(4)
        return [*dots, first, second if rng.random() < 0.5 else 8 + rng.randrange(4), end]

    for step in range(300):
        prompts = [rng.choice(PROMPTS) for _ in range(64)]
        loss = -token_log_probs(student, prompts, [response(prompt) for prompt in prompts], 1.0)[0].mean()
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 300)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student


def read(ids: list[int]) -> Reading:
    ended = ids[-1] == STOP
    body = ids[:-1] if ended else ids
    return read_thoughts(len(body), places(body, [OPEN]), places(body, [CLOSE]), begins_inside=False, ended=ended)


def visible(ids: list[int]) -> EncodedResponse | None:
    """What a discriminator reads of a response with hidden thoughts."""
    answer, ended = read(ids).answer, ids[-1] == STOP
    if answer is None:
        return None
    left = [token for begin, end in answer for token in ids[begin:end]]
    return EncodedResponse([*left, STOP] if ended else left, ended, not ended)


class HiddenGad(Gad):
    """With ``gad.thinking.mode=hidden``."""

    def update_supervised(self, rows: list[tuple[list[int], list[int]]], metrics: dict[str, float]) -> None:
        def given(sampled: list[list[int] | None]) -> list[int]:
            usable = [ids for ids in sampled if ids is not None and read(ids).answer is not None]
            return usable[0][: read(usable[0]).lead] if usable else [OPEN, CLOSE]

        # What stands before the text has no loss.
        behind = [
            (prompt + given(group.sampled), text) for (prompt, text), group in zip(rows, self.groups, strict=True)
        ]
        super().update_supervised(behind, metrics)

    def advantages(self, scores: Tensor, weights: Tensor, metrics: dict[str, float]) -> Tensor:
        lost = unanswered_rewards(scores, weights > 0, penalty=1.0).unsqueeze(1)
        rewards = torch.where(weights > 0, scores, lost)
        return super().advantages(rewards, torch.ones_like(weights), metrics)


def trained(student: nn.Module, hides: bool, **changes: Any) -> list[dict[str, float]]:
    """Train a student in place; returns the metrics of the steps."""
    examples = [
        Example(number, prompt, [EncodedResponse(right_answer(prompt), finished=True, cut=False)])
        for number, prompt in enumerate(PROMPTS)
    ]
    values: dict[str, Any] = {
        "total_steps": 140,
        "warmup_steps": 20,
        "discriminator_only_steps": 10,
        "batch_size": 16,
        "n": 8,
        "max_response_length": LIMIT,
        "temperature": 1.0,
        "actor_lr": 5e-4,
        "discriminator_lr": 3e-3,
        "clip_grad": 1.0,
    }
    settings = Settings(**(values | changes))
    gad = (HiddenGad if hides else Gad)(
        student, Recurrent(1, seed=7), examples, settings, STOPS, visible if hides else None
    )
    found: list[dict[str, float]] = []
    gad.run([lambda _, metrics, __: found.append(metrics)])
    return found


def asked(student: nn.Module, seed: int = 3) -> dict[str, float]:
    """What a student does: share of right answers, of responses with thoughts, of closed ones; tokens of thoughts."""
    torch.manual_seed(seed)
    prompts = PROMPTS * 40
    responses = sample_responses(student, prompts, LIMIT, STOPS, temperature=1.0)
    readings = [read(ids) for ids in responses]
    answers = [visible(ids) for ids in responses]
    right = [
        answer is not None and answer.token_ids == right_answer(prompt)
        for answer, prompt in zip(answers, prompts, strict=True)
    ]
    thoughts = [sum(end - begin for begin, end in reading.thoughts) for reading in readings]
    thinking = [tokens for tokens in thoughts if tokens]
    return {
        "right": sum(right) / len(right),
        "thinks": len(thinking) / len(thoughts),
        "closed": sum(answer is not None for answer in answers) / len(answers),
        "tokens": sum(thinking) / max(1, len(thinking)),
    }


# The student stands still but for the last step.
ALONE = {"stage": "warmup", "total_steps": 61, "warmup_steps": 61, "discriminator_only_steps": 60}


def accuracy(metrics: list[dict[str, float]]) -> float:
    """Of the last twenty steps in which the student stood still."""
    return sum(step["disc/accuracy"] for step in metrics[40:60]) / 20


def test_the_discriminator_knows_no_more_of_a_student_that_thinks() -> None:
    thinking, plain = taught(thinks=True), taught(thinks=False)
    # Both answer alike.
    both = asked(thinking), asked(plain)
    assert both[0]["thinks"] == pytest.approx(0.9, abs=0.05) and both[1]["thinks"] == 0
    assert both[0]["right"] == pytest.approx(both[1]["right"], abs=0.08)
    hidden, without = trained(thinking, hides=True, **ALONE), trained(plain, hides=False, **ALONE)
    # 2560 pairs each; their spread is that of some hundred prompts and draws.
    assert accuracy(hidden) == pytest.approx(accuracy(without), abs=0.06)
    assert accuracy(hidden) < 0.9
    # With the thoughts before its eyes it has nothing to learn but the mark.
    assert accuracy(trained(thinking, hides=False, **ALONE)) > 0.93


def test_the_answer_improves_and_thoughts_keep_their_rate_and_length() -> None:
    student = taught(thinks=True)
    before = asked(student)
    trained(student, hides=True)
    after = asked(student)
    assert after["right"] > before["right"] + 0.25
    assert after["thinks"] == pytest.approx(before["thinks"], abs=0.1)
    assert after["tokens"] == pytest.approx(before["tokens"], rel=0.25)
    assert after["closed"] > 0.97
    # The same without hiding them: the thoughts are gone.
    other = taught(thinks=True)
    trained(other, hides=False)
    assert asked(other)["thinks"] < 0.2
