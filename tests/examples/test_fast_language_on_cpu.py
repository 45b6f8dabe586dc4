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
"""The language in tensors: what is drawn, the losses against the one file, and the oracle."""

import dataclasses
import math

import fast_language
import pytest
import torch
from fast_language import Oracle, RecurrentDecoder, Texts, TransformerDecoder, sample
from gad_in_one_file import Gad, Group, Settings
from language import likelihood_loss
from oracle_language import (
    BEGIN,
    DOUBLES,
    END,
    FIRST_TWO,
    LANGUAGE,
    LETTERS,
    STOP_IDS,
    VOCABULARY,
    CausalTransformer,
    Language,
    RecurrentStudent,
    judge,
    longest_answer,
    make_corpus,
)
from token_rows import token_log_probs
from torch import nn

from gad_verl.data.tokens import EncodedResponse

LENGTH = 4
LIMIT = longest_answer(LENGTH)
STUDENTS = {
    "recurrent": lambda: RecurrentStudent(16, 8),
    "transformer": lambda: CausalTransformer(16, 2, 2, VOCABULARY),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=STUDENTS)
def student(request) -> nn.Module:
    """One that says ends now and then."""
    torch.manual_seed(3)
    model = STUDENTS[request.param]()
    model.head.bias.data[END] += 1.0
    return model


CORPUS = make_corpus(LENGTH, 24, 40, 60, seed=0)
TEACHER = Texts.of(CORPUS.train, LIMIT, END)


def as_lists(texts: Texts) -> list[list[int]]:
    return [row[:length] for row, length in zip(texts.answers.tolist(), texts.lengths.tolist(), strict=True)]


# ---- sampling


def test_the_decoder_predicts_what_the_model_predicts(student):
    """The state behind a prompt, its copies, and each token that is read afterwards."""
    kind = RecurrentDecoder if isinstance(student, RecurrentStudent) else TransformerDecoder
    texts, copies = TEACHER[:5], 3
    decoder = kind(student, texts.prompts, copies)
    ids = torch.cat([texts.prompts, texts.answers], dim=1).repeat_interleave(copies, dim=0)
    expected = student(input_ids=ids, attention_mask=None)
    for place in range(LIMIT):
        torch.testing.assert_close(decoder.logits, expected[:, LENGTH + place], rtol=0, atol=1e-5)
        decoder.push(ids[:, LENGTH + 1 + place])


def test_answers_are_drawn_as_often_as_they_are_likely(student):
    """Every answer of one prompt, by the chi-square of its count against the one file's probability."""
    prompt, draws = [1, 5, 2, 7, BEGIN], 40_000
    drawn = sample(student, torch.tensor([prompt]), draws, 2, END, torch.Generator().manual_seed(1))
    answers = [[END], *([token, last] for token in range(VOCABULARY) if token != END for last in range(VOCABULARY))]
    log_probs, _, row = token_log_probs(student, [prompt] * len(answers), answers, temperature=1.0)
    expected = draws * torch.zeros(len(answers)).index_add(0, row, log_probs.detach()).exp()
    assert expected.sum().item() == pytest.approx(draws, rel=1e-4)
    found = as_lists(drawn)
    counts = torch.tensor([float(found.count(answer)) for answer in answers])
    statistic, freedom = ((counts - expected) ** 2 / expected).sum().item(), len(answers) - 1
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


def test_answers_end_and_are_filled_up(student):
    drawn = sample(student, TEACHER.prompts, 4, LIMIT, END, torch.Generator().manual_seed(0))
    assert len(drawn) == 4 * len(TEACHER) and torch.equal(drawn.prompts[:4], TEACHER.prompts[:1].expand(4, -1))
    for row, length in zip(drawn.answers.tolist(), drawn.lengths.tolist(), strict=True):
        first = row.index(END) + 1 if END in row else LIMIT
        assert length == first and all(token == END for token in row[first:])
    assert 1 < drawn.lengths.float().mean() < LIMIT


# ---- losses


class Watched(Gad):
    """Leaves the gradients where they are."""

    def _optimizer_step(self, module, optimizer, name):
        return {}


def one_file(student: nn.Module, discriminator: nn.Module, reference: nn.Module) -> Watched:
    options = Settings(batch_size=4, kl_loss_coef=0.3, temperature=1.0)
    loop = Watched(student, discriminator, CORPUS.train, options, STOP_IDS)
    loop.reference = reference
    return loop


def gradients(module: nn.Module) -> list[torch.Tensor]:
    found = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    return found


def close(first: nn.Module | list[torch.Tensor], second: list[torch.Tensor]) -> None:
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    assert max(part.abs().max() for part in second) > 1e-3


def as_groups(rollouts: Texts) -> list[Group]:
    answers = as_lists(rollouts)
    read = [EncodedResponse(answer, answer[-1] == END, answer[-1] != END) for answer in answers]
    return [
        Group(row.prompt_ids, row.teachers[0], list(answers[4 * i : 4 * i + 4]), list(read[4 * i : 4 * i + 4]))
        for i, row in enumerate(CORPUS.train)
    ]


def test_losses_and_gradients_are_those_of_the_one_file(student):
    torch.manual_seed(5)
    discriminator = CausalTransformer(16, 1, 2, 1)
    reference = STUDENTS["recurrent" if isinstance(student, RecurrentStudent) else "transformer"]()
    loop, metrics = one_file(student, discriminator, reference), {}
    rollouts = sample(student, TEACHER.prompts, 4, LIMIT, END, torch.Generator().manual_seed(0))
    groups = as_groups(rollouts)

    loop.update_supervised([(row.prompt_ids, row.teachers[0].token_ids) for row in CORPUS.train], metrics)
    expected = gradients(student)
    loss = fast_language.supervised_loss(student, TEACHER)
    loss.backward()
    assert loss.item() == pytest.approx(metrics["actor/loss"], abs=1e-5)
    close(gradients(student), expected)

    advantages = torch.randn(len(groups), 4)
    loop.update_student(groups, advantages, metrics)
    expected = gradients(student)
    policy, kl = fast_language.policy_loss(student, reference, rollouts, advantages.flatten())
    (policy + 0.3 * kl).backward()
    assert policy.item() == pytest.approx(metrics["actor/pg_loss"], abs=1e-5)
    assert kl.item() == pytest.approx(metrics["actor/kl_loss"], abs=1e-5) and kl > 0.01
    close(gradients(student), expected)

    expected_loss, expected_scores, _ = loop._pair_loss(groups, learns=True)
    expected = gradients(discriminator)
    loss, scores = fast_language.pair_loss(discriminator, TEACHER, rollouts)
    loss.backward()
    assert loss.item() == pytest.approx(expected_loss, abs=1e-5)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-5)
    close(gradients(discriminator), expected)


def test_pairs_of_held_out_prompts_are_not_in_the_loss():
    torch.manual_seed(5)
    discriminator = CausalTransformer(16, 1, 2, 1)
    rollouts = sample(RecurrentStudent(16, 8), TEACHER.prompts, 4, LIMIT, END, torch.Generator().manual_seed(0))
    trains = torch.arange(len(TEACHER)) >= 6
    loss, scores = fast_language.pair_loss(discriminator, TEACHER, rollouts, trains)
    expected, rest = fast_language.pair_loss(discriminator, TEACHER[6:], rollouts[24:])
    torch.testing.assert_close(loss, expected)
    assert scores.shape == (len(TEACHER), 5)
    torch.testing.assert_close(scores[6:], rest)


# ---- the oracle


def oracle() -> Oracle:
    return Oracle(LANGUAGE, CORPUS.test, Texts.of(CORPUS.validation, LIMIT, END))


def test_the_oracle_agrees_with_the_old_one():
    """A student that has learned a little: the same greedy answers, the same likelihood, as many valid answers."""
    torch.manual_seed(0)
    student, rows = RecurrentStudent(24, 12), make_corpus(LENGTH, 600, 0, 0, seed=8).train
    texts, adam = Texts.of(rows, LIMIT, END), torch.optim.Adam(student.parameters(), lr=1e-2)
    for _ in range(150):
        fast_language.supervised_loss(student, texts).backward()
        adam.step()
        adam.zero_grad()
    torch.manual_seed(1)
    new, old = oracle().judge(student, 60, seed=1), judge(student, CORPUS.test, 60)
    assert new["greedy"] == pytest.approx(old["greedy"]) and 0.1 < old["valid"] < 0.9
    for name, error in (("valid", 0.03), ("reverse", 0.03), ("two", 0.03), ("doubled", 0.03), ("length", 0.1)):
        assert new[name] == pytest.approx(old[name], abs=error), name
    assert new["covered"] == pytest.approx(old["covered"], abs=0.3)
    assert oracle().likelihood_loss(student) == pytest.approx(likelihood_loss(student, CORPUS.validation), abs=1e-5)
    assert oracle().judge(student, 2, seed=1) == oracle().judge(student, 2, seed=1)


def test_another_language_has_its_own_tokens_answers_and_shares():
    other = Language(12, (dataclasses.replace(DOUBLES, share=0.25), dataclasses.replace(FIRST_TWO, share=0.75)))
    assert (other.begin, other.end, other.vocabulary) == (14, 15, 16)
    assert other.valid_answers([11, 0, 3]) == [[12, 11, 11, 0, 0, 15], [13, 11, 0, 15]] and other.longest_answer(3) == 6
    corpus = make_corpus(4, 2000, 10, 10, seed=1, language=other)
    kinds = [row.teachers[0].token_ids[0] for row in corpus.train]
    assert kinds.count(12) / 2000 == pytest.approx(0.25, abs=0.04)
    assert all(row.prompt_ids[-1] == 14 for row in corpus.train)
    letters = {letter for row in corpus.train for letter in row.prompt_ids[:-1]}
    assert letters == set(range(12)) and LETTERS == 8
