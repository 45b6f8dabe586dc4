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
"""Training of ``objective_language.py``: SeqKD, the discriminator's warmup, and the adversarial stage of every arm.

The settings are those of ``language.py``: batches of 64 for the SeqKD before the arms, 32 prompts with 4 rollouts
in the adversarial stage, a fresh optimizer of the student at its start, and the student of that moment as reference.
Everything of a seed is drawn from generators of its own, so that arms of a seed see the same batches in the same order.
"""

import copy
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fast_language import Oracle, Texts, pair_loss, policy_loss, sample, supervised_loss
from language import HELD_OUT, SAMPLES, TEST_PROMPTS, TRUST, VALIDATION_TEXTS, Regime
from oracle_language import LANGUAGE, CausalTransformer, Language, make_corpus, with_more_texts
from torch import Tensor, nn

from gad_verl.config.stability import RewardConfig
from gad_verl.core import blended_rate, group_advantages, loss_weights
from gad_verl.core.reward_shaping import LengthRegression
from gad_verl.core.trust import DiscriminatorTrust, is_held_out, pair_accuracy

SEQKD_BATCH, SEQKD_LR, BATCH, N = 64, 3e-3, 32, 4
DISCRIMINATOR_LR, WEIGHT_DECAY, CLIP_GRAD, KL_COEF = 1e-3, 0.01, 1.0, 0.001
LENGTH_MEMORY = RewardConfig().length_memory
CHECKPOINTS = 15  # of a run of SeqKD, up to as many updates as an arm has, and again up to as much time
WINDOW = 25  # steps of a point of the curve of f


@dataclass(frozen=True)
class Case:
    """A regime in its language.

    Args:
        regime: Student, texts, discriminator, steps.
        rates: Three rates of SeqKD that goes on.
        rate: The best of them for as many updates as an arm has; in an arm with two rates, that of the texts.
        equal_time: Updates of SeqKD that take as long as the new objective with D's warmup.
        rate_equal_time: The best rate for so many.
        language: Of prompts and answers.
        second_round: Rate and updates of more SeqKD before all arms, for a student that has learned all it can.
        texts_per_prompt: Of the regime's texts, so many answer the same prompt, each drawn anew.
    """

    regime: Regime
    rates: tuple[float, float, float]
    rate: float
    equal_time: int
    rate_equal_time: float
    language: Language = LANGUAGE
    second_round: tuple[float, int] | None = None
    texts_per_prompt: int = 1


@dataclass(frozen=True)
class Objective:
    """What the student descends in the adversarial stage; the defaults are GAD as published.

    Args:
        trust: Whether some prompts are held out from D to measure f, what it knows. Alone it holds the student back:
            the rate is multiplied by f.
        nats: Whether advantages are in D's own unit, not divided by the group's spread.
        texts: Whether what D does not know is learned from the teacher's texts (``gad_verl.core.objective``).
        two_rates: Whether the rate goes from SeqKD's to GAD's as f goes from 0 to 1.
        length_regression: Whether what length explains of the scores is taken out (``gad.reward.length_correction``).
        kl: Weight of KL against the student of the start, beside the policy gradient. In nats it has a meaning: the
            student goes to T^(1 / (1 + kl)) S^(kl / (1 + kl)), of teacher and start.
    """

    trust: bool = False
    nats: bool = False
    texts: bool = False
    two_rates: bool = False
    length_regression: bool = False
    kl: float = KL_COEF

    def weights_and_rate(self, knowledge: float, policy_rate: float, texts_rate: float) -> tuple[float, float, float]:
        """Weight of the policy terms, of the texts, and the learning rate."""
        if not self.texts:
            return 1.0, 0.0, policy_rate * (knowledge if self.trust else 1.0)
        weights = loss_weights(knowledge)
        rate = blended_rate(knowledge, policy_rate, texts_rate) if self.two_rates else policy_rate
        return weights.policy, weights.texts, rate


# ------------------------------------------------- the common start -------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Where the arms of a seed start.

    Args:
        student: Of SeqKD's best validation likelihood; to be copied, not to be trained.
        texts: The teacher's, to train on.
        held_out: Of each text, whether its prompt is held out from a D that is trusted.
        names: Of the prompts, for the trust.
        oracle: Judges.
        row: Of SeqKD.
    """

    student: nn.Module
    texts: Texts
    held_out: Tensor
    names: list[str]
    oracle: Oracle
    row: dict[str, Any]


def batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Rows of one batch after the other, shuffled anew in each epoch; the remainder of an epoch is left out.

    Raises:
        ValueError: If the rows do not fill a batch.
    """
    if count < size:
        raise ValueError(f"{count} rows do not fill a batch of {size}")
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from (order[begin : begin + size] for begin in range(0, count - size + 1, size))


def optimizer(module: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=WEIGHT_DECAY, fused=True)


def update(module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One clipped step; a gradient that is not finite is left out."""
    loss.backward()
    if math.isfinite(nn.utils.clip_grad_norm_(module.parameters(), CLIP_GRAD).item()):
        optimizer.step()
    optimizer.zero_grad()


@functools.lru_cache(maxsize=1)
def start(case: Case, seed: int) -> Start:
    """SeqKD to its best validation likelihood."""
    regime, language = case.regime, case.language
    prompts = regime.texts // case.texts_per_prompt
    corpus = make_corpus(regime.length, prompts, VALIDATION_TEXTS, TEST_PROMPTS, seed, language)
    if case.texts_per_prompt > 1:
        corpus = with_more_texts(corpus, case.texts_per_prompt, seed, language)
    limit = language.longest_answer(regime.length)
    texts = Texts.of(corpus.train, limit, language.end)
    oracle = Oracle(language, corpus.test, Texts.of(corpus.validation, limit, language.end))
    names = [str(example.prompt_ids) for example in corpus.train]
    torch.manual_seed(seed)
    rounds = [(SEQKD_LR, regime.seqkd_steps, SEQKD_BATCH, seed)]
    if case.second_round:
        # As SeqKD that goes on has them.
        rounds.append((*case.second_round, BATCH, seed + 1))
    best, best_loss, best_step, done = regime.student(), math.inf, 0, 0
    for rate, updates, size, order in rounds:
        student = copy.deepcopy(best)
        adam, stream = optimizer(student, rate), batches(len(texts), size, order)
        for step in range(done + 1, done + updates + 1):
            update(student, adam, supervised_loss(student, texts[next(stream)]))
            if step % regime.seqkd_every == 0 and (loss := oracle.likelihood_loss(student)) < best_loss:
                best, best_loss, best_step = copy.deepcopy(student), loss, step
        done += updates
    row = {"best_step": best_step, "validation_loss": best_loss, **oracle.judge(best, SAMPLES, seed)}
    held_out = torch.tensor([is_held_out(name, HELD_OUT) for name in names])
    return Start(best, texts, held_out, names, oracle, row)


def seqkd_goes_on(case: Case, rate: float, seed: int) -> dict[str, Any]:
    """SeqKD from there on with the arms' batches; its row, with what is known at every checkpoint.

    The curve has [updates, validation loss, valid, greedy]. It begins with the student that is there and goes to as
    many updates as the arms have, then to as many as take equal time; the figures of the row are those of the former.
    """
    begun, regime = start(case, seed), case.regime
    student = copy.deepcopy(begun.student)
    adam, stream = optimizer(student, rate), batches(len(begun.texts), BATCH, seed + 1)
    wanted = [regime.adversarial * part // CHECKPOINTS for part in range(1, CHECKPOINTS + 1)]
    more = case.equal_time - regime.adversarial
    wanted += [regime.adversarial + more * part // CHECKPOINTS for part in range(1, CHECKPOINTS + 1)]
    curve = [[0, begun.row["validation_loss"], begun.row["valid"], begun.row["greedy"]]]
    seconds, row = 0.0, {}
    for before, step in zip([0, *wanted], wanted, strict=False):
        clock = time.process_time()
        for _ in range(before, step):
            update(student, adam, supervised_loss(student, begun.texts[next(stream)]))
        seconds += time.process_time() - clock
        judged = {
            "validation_loss": begun.oracle.likelihood_loss(student),
            **begun.oracle.judge(student, SAMPLES, seed),
        }
        curve.append([step, *(judged[name] for name in ("validation_loss", "valid", "greedy"))])
        if step == regime.adversarial:
            row = judged
    return {**row, "curve": curve, "train_s": seconds}


# ----------------------------------------------- the adversarial stage -----------------------------------------------


class Opponent:
    """The discriminator and what is known about it."""

    def __init__(self, case: Case, begun: Start, trusted: bool, seed: int) -> None:
        torch.manual_seed(seed + 1)
        width, vocabulary = case.regime.discriminator_width, case.language.vocabulary
        self.begun, self.trusted = begun, trusted
        self.model = CausalTransformer(width, 2, 2, 1, vocabulary=vocabulary)
        self.adam = optimizer(self.model, DISCRIMINATOR_LR)
        self.trust = DiscriminatorTrust(TRUST)
        self.seconds = 0.0

    def learn(self, rows: Tensor, rollouts: Texts) -> tuple[Tensor, float]:
        """One update; scores (G, 1 + n) and f by the D of before it. Held-out prompts do not train D."""
        held_out = self.begun.held_out[rows]
        trains = ~held_out if self.trusted else None
        loss, scores = pair_loss(self.model, self.begun.texts[rows], rollouts, trains)
        update(self.model, self.adam, loss)
        if not self.trusted:
            return scores, 1.0
        names = [self.begun.names[row] for row in rows.tolist()]
        return scores, self.trust.update(scores[:, 0], scores[:, 1:], held_out, names).factor


@functools.lru_cache(maxsize=2)
def warm_opponent(case: Case, trusted: bool, seed: int) -> Opponent:
    """D alone against the student of the start; to be copied, not to be trained."""
    begun, steps, clock = start(case, seed), case.regime.warmup, time.process_time()
    opponent, stream = Opponent(case, begun, trusted, seed), batches(len(begun.texts), BATCH, seed)
    rows = torch.stack([next(stream) for _ in range(steps)])
    # The student stands still, so all of its answers can be drawn at once.
    rollouts = draw(case, begun.student, begun.texts.prompts[rows.flatten()], torch.Generator().manual_seed(seed))
    for step in range(steps):
        opponent.learn(rows[step], rollouts[slice(step * BATCH * N, (step + 1) * BATCH * N)])
    opponent.seconds = time.process_time() - clock
    return opponent


def draw(case: Case, student: nn.Module, prompts: Tensor, generator: torch.Generator) -> Texts:
    """The rollouts of a step."""
    limit = case.language.longest_answer(case.regime.length)
    return sample(student, prompts, N, limit, case.language.end, generator)


def adversarial(
    case: Case, objective: Objective, seed: int, watch: Callable[[int, nn.Module], None] = lambda step, student: None
) -> dict[str, Any]:
    """The stage of one arm; its row."""
    begun, regime, warm = start(case, seed), case.regime, warm_opponent(case, objective.trust, seed)
    # The start is shared: a copy of D has to keep pointing to it.
    opponent = copy.deepcopy(warm, {id(begun): begun})
    student, reference = copy.deepcopy(begun.student), begun.student
    adam, stream = optimizer(student, regime.actor_lr), batches(len(begun.texts), BATCH, seed + 1)
    generator = torch.Generator().manual_seed(seed + 1)
    regression = LengthRegression(LENGTH_MEMORY) if objective.length_regression else None
    factors, accuracies, clock = [], [], time.process_time()
    for step in range(1, regime.adversarial + 1):
        rows = next(stream)
        teacher = begun.texts[rows]
        rollouts = draw(case, student, teacher.prompts, generator)
        scores, knowledge = opponent.learn(rows, rollouts)
        policy_weight, texts_weight, rate = objective.weights_and_rate(knowledge, regime.actor_lr, case.rate)
        loss = torch.zeros(())
        if policy_weight:
            students = scores[:, 1:]
            if regression is not None:
                lengths, all_count = rollouts.lengths.view_as(students), torch.ones_like(students)
                regression.observe(students, lengths, all_count)
                students = regression.residual(students, lengths, all_count)
            advantages = group_advantages(students, torch.ones_like(students), divide_by_std=not objective.nats)
            policy, kl = policy_loss(student, reference, rollouts, advantages.flatten())
            loss = loss + policy_weight * (policy + objective.kl * kl)
        if texts_weight:
            loss = loss + texts_weight * supervised_loss(student, teacher)
        for group in adam.param_groups:
            group["lr"] = rate
        update(student, adam, loss)
        factors.append(knowledge)
        accuracies.append(pair_accuracy(scores[:, 0], scores[:, 1:]).mean().item())
        watch(step, student)
    seconds = time.process_time() - clock
    row = {"validation_loss": begun.oracle.likelihood_loss(student), **begun.oracle.judge(student, SAMPLES, seed)}
    row |= {"accuracy": float(np.mean(accuracies[-100:])), "train_s": seconds + warm.seconds}
    if objective.trust:
        row |= {"factor": float(np.mean(factors)), "factors": windows(factors)}
        row |= {"held_out_accuracy": none_if_nan(opponent.trust.current().accuracy)}
    return row


def windows(values: Sequence[float]) -> list[float]:
    """Means over windows of steps."""
    return [float(np.mean(values[begin : begin + WINDOW])) for begin in range(0, len(values), WINDOW)]


def none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
