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
"""The adversarial stage of ``field_language.py``, and SODA: the options of the methods around GAD in one loop.

Start, discriminator, batches and judging are those of ``objective_training.py``; a method without options is its GAD as
published (a test compares them).
"""

import copy
import functools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fast_language import Texts, pair_loss, policy_loss, sample, supervised_loss, token_log_probs
from language import SAMPLES
from objective_training import (
    BATCH,
    KL_COEF,
    Case,
    N,
    Start,
    batches,
    draw,
    optimizer,
    start,
    update,
    warm_opponent,
)
from torch import Tensor, nn

from gad_verl.core import group_advantages, low_variance_kl
from gad_verl.core.combining import combined_rewards
from gad_verl.core.preference import PreferenceLogProbs, preference_loss
from gad_verl.core.replay import ADD, REPLACE, ReplayBuffer, replay_count
from gad_verl.core.reward_shaping import whiten_groups
from gad_verl.core.trust import pair_accuracy

CLIP = 0.2  # of the ratio to the student that drew the rollouts, verl's default
NO_CHECK, CHECK_ALONE = "", "alone"
LAST = 100  # steps over which D's figures are averaged
Group = tuple[Texts, Texts]


@dataclass(frozen=True)
class Method:
    """What differs from GAD as published.

    Args:
        memory: Steps that D remembers; 0 is no memory.
        mode, fraction: Whether past groups are added or replace fresh ones, and their share.
        updates: Of D a step.
        refresh: The student that answers is the one of up to so many steps ago; 0: that of the start, for ever.
        check: How a flawed check and D become one reward: ``sum``, ``product``, ``gate``, or the check ``alone``.
        passing_only: Whether D learns from answers alone that pass the check.
        soda: No D and no rollouts: DPO of the teacher's texts over one answer of the start to each prompt.
        beta: Of DPO.
        anchor: Weight of cross-entropy on the texts beside DPO.
    """

    memory: int = 0
    mode: str = ADD
    fraction: float = 0.5
    updates: int = 1
    refresh: int = 1
    check: str = NO_CHECK
    passing_only: bool = False
    soda: bool = False
    beta: float = 0.1
    anchor: float = 0.0


# -------------------------------------------------- truth and check --------------------------------------------------


class Truth:
    """What is valid for some prompts, and what a flawed check lets pass.

    The check sees the mark of the template, the length and the first letter. An answer that has these three and other
    letters behind them passes and is not valid: a hack.

    Args:
        case: Its language.
        prompts: (P, letters + 1) with the begin token.
    """

    def __init__(self, case: Case, prompts: Tensor) -> None:
        language = case.language
        self.limit = language.longest_answer(prompts.shape[1] - 1)
        answers = [language.valid_answers(prompt[:-1]) for prompt in prompts.tolist()]
        self.lengths = torch.tensor([[len(one) for one in some] for some in answers])
        self.valid = torch.tensor(
            [[one + [language.end] * (self.limit - len(one)) for one in some] for some in answers]
        )

    def judge(self, rows: Tensor, answers: Texts) -> tuple[Tensor, Tensor]:
        """Which of the answers, those of a prompt side by side, are valid, and which pass: (G, n) bool each."""
        drawn = answers.answers.view(len(rows), -1, 1, self.limit)
        lengths = answers.lengths.view(len(rows), -1, 1)
        right, wanted = self.valid[rows].unsqueeze(1), self.lengths[rows].unsqueeze(1)
        valid = (drawn == right).all(-1).any(-1)
        passes = ((drawn[..., :2] == right[..., :2]).all(-1) & (lengths == wanted)).any(-1)
        return valid, passes


@functools.lru_cache(maxsize=2)
def truths(case: Case, seed: int) -> tuple[Truth, Truth]:
    """Of the training texts' prompts, and of the oracle's."""
    begun = start(case, seed)
    return Truth(case, begun.texts.prompts), Truth(case, begun.oracle.prompts)


def auc_within_groups(scores: Tensor, positive: Tensor) -> float | None:
    """Share of the pairs of a positive and a negative answer of one group whose scores are in order, ties half; None
    without such a pair.

    Args:
        scores: (G, n).
        positive: (G, n) bool.
    """
    pairs = positive.unsqueeze(2) & ~positive.unsqueeze(1)
    if not bool(pairs.any()):
        return None
    margins = scores.unsqueeze(2) - scores.unsqueeze(1)
    return ((margins > 0).double() + 0.5 * (margins == 0).double())[pairs].mean().item()


# ---------------------------------------------------- the stage ----------------------------------------------------


def joined(parts: Sequence[Texts]) -> Texts:
    """Texts one after the other."""
    return Texts(*(torch.cat([getattr(part, name) for part in parts]) for name in ("prompts", "answers", "lengths")))


class Memory:
    """Past groups in D's batches, as ``gad.replay`` has them."""

    def __init__(self, method: Method, seed: int) -> None:
        self.method, self.seed = method, seed
        self.buffer: ReplayBuffer[Group] = ReplayBuffer(method.memory, seed=seed)

    def mix(self, step: int, number: int, count: int) -> tuple[list[Group], list[int]]:
        """Past groups, and the fresh ones whose place they take."""
        method = self.method
        if not method.memory:
            return [], []
        drawn = self.buffer.draw(replay_count(count, method.fraction, method.mode), step * 1000 + number, step)
        past = [group for _, group in drawn]
        replaced = len(past) if method.mode == REPLACE else 0
        return past, random.Random(f"{self.seed} {step} {number}").sample(range(count), replaced)

    def add(self, step: int, teacher: Texts, rollouts: Texts) -> None:
        groups = range(len(teacher))
        self.buffer.add(step, [(teacher[slice(g, g + 1)], rollouts[slice(g * N, (g + 1) * N)]) for g in groups])


def stale_policy_loss(
    student: nn.Module, behind: nn.Module, reference: nn.Module, rollouts: Texts, advantages: Tensor
) -> tuple[Tensor, Tensor]:
    """PPO's clipped loss where another student drew the rollouts, and the KL; both means over all tokens."""
    mask = rollouts.mask()
    tokens, log_probs = mask.sum(), token_log_probs(student, rollouts)
    with torch.no_grad():
        old, reference_log_probs = (token_log_probs(one, rollouts) for one in (behind, reference))
    ratio, gain = (log_probs - old).exp(), advantages.unsqueeze(1)
    clipped = torch.minimum(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain)
    return -(clipped * mask).sum() / tokens, (low_variance_kl(log_probs, reference_log_probs) * mask).sum() / tokens


def train_method(case: Case, method: Method, seed: int) -> dict[str, Any]:
    """The stage of one method; its row."""
    if method.soda:
        return _soda(case, method, seed)
    begun, regime = start(case, seed), case.regime
    warm = warm_opponent(case, False, seed)
    opponent = copy.deepcopy(warm, {id(begun): begun})
    student, reference = copy.deepcopy(begun.student), begun.student
    behind = reference
    adam, stream = optimizer(student, regime.actor_lr), batches(len(begun.texts), BATCH, seed + 1)
    generator = torch.Generator().manual_seed(seed + 1)
    truth, memory = truths(case, seed)[0], Memory(method, seed)
    accuracies, aucs, trained, clock = [], [], 0, time.process_time()
    for step in range(1, regime.adversarial + 1):
        rows = next(stream)
        teacher = begun.texts[rows]
        if method.refresh == 1:
            behind = student
        elif method.refresh and step > 1 and (step - 1) % method.refresh == 0:
            behind = copy.deepcopy(student)
        rollouts = draw(case, behind, teacher.prompts, generator)
        valid, passes = truth.judge(rows, rollouts)
        scores = torch.empty(0)
        for number in range(method.updates):
            past, replaced = memory.mix(step, number, len(rows))
            weights = torch.ones(len(rows) + len(past), N)
            weights[replaced] = 0.0
            if method.passing_only:
                weights[: len(rows)] *= passes
            loss, found = pair_loss(
                opponent.model,
                joined([teacher, *(one for one, _ in past)]),
                joined([rollouts, *(one for _, one in past)]),
                weights,
            )
            update(opponent.model, opponent.adam, loss)
            trained += int(weights.sum())
            scores = found[: len(rows)] if number == 0 else scores
        memory.add(step, teacher, rollouts)
        rewards = _rewards(method, scores, passes)
        advantages = group_advantages(rewards, torch.ones_like(rewards)).flatten()
        if method.refresh == 1:
            policy, kl = policy_loss(student, reference, rollouts, advantages)
        else:
            policy, kl = stale_policy_loss(student, behind, reference, rollouts, advantages)
        update(student, adam, policy + KL_COEF * kl)
        accuracies.append(pair_accuracy(scores[:, 0], scores[:, 1:]).mean().item())
        aucs.append(auc_within_groups(scores[:, 1:], valid))
    seconds = time.process_time() - clock
    known = [auc for auc in aucs[-LAST:] if auc is not None]
    return _judged(case, student, begun, seed) | {
        "accuracy": float(np.mean(accuracies[-LAST:])),
        "auc_start": _mean(aucs[:LAST]),
        "auc": float(np.mean(known)) if known else None,
        "pairs": trained,
        "train_s": seconds + warm.seconds,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _rewards(method: Method, scores: Tensor, passes: Tensor) -> Tensor:
    students, task, ones = scores[:, 1:], passes.float(), torch.ones_like(scores[:, 1:])
    if method.check == NO_CHECK:
        return students
    if method.check == CHECK_ALONE:
        return task
    # A sum needs one scale; the other two do not.
    part = whiten_groups(students, ones) if method.check == "sum" else students
    return combined_rewards(part, task, scores[:, 0], ones, method.check, 1.0, 0.5)


def _soda(case: Case, method: Method, seed: int) -> dict[str, Any]:
    begun, regime = start(case, seed), case.regime
    student, reference = copy.deepcopy(begun.student), begun.student
    adam, stream = optimizer(student, regime.actor_lr), batches(len(begun.texts), BATCH, seed + 1)
    clock = time.process_time()
    limit, end = case.language.longest_answer(regime.length), case.language.end
    snapshot = sample(reference, begun.texts.prompts, 1, limit, end, torch.Generator().manual_seed(seed + 1))

    def log_probs(model: nn.Module, texts: Texts) -> Tensor:
        return (token_log_probs(model, texts) * texts.mask()).sum(1)

    with torch.no_grad():
        known = log_probs(reference, begun.texts), log_probs(reference, snapshot)
    for _ in range(regime.adversarial):
        rows = next(stream)
        chosen, rejected = begun.texts[rows], snapshot[rows]
        pairs = PreferenceLogProbs(
            log_probs(student, chosen), log_probs(student, rejected), known[0][rows], known[1][rows]
        )
        loss = preference_loss(pairs, method.beta)
        if method.anchor:
            loss = loss + method.anchor * supervised_loss(student, chosen)
        update(student, adam, loss)
    return _judged(case, student, begun, seed) | {"train_s": time.process_time() - clock}


def _judged(case: Case, student: nn.Module, begun: Start, seed: int) -> dict[str, Any]:
    """What the oracle says, and the share of answers that pass the check and are not valid."""
    oracle, truth = begun.oracle, truths(case, seed)[1]
    generator = torch.Generator().manual_seed(seed + 2)
    answers = sample(student, oracle.prompts, SAMPLES, oracle.limit, case.language.end, generator)
    valid, passes = truth.judge(torch.arange(len(oracle.prompts)), answers)
    return {
        "validation_loss": oracle.likelihood_loss(student),
        **oracle.judge(student, SAMPLES, seed),
        "passes": passes.float().mean().item(),
        "hacks": (passes & ~valid).float().mean().item(),
    }
