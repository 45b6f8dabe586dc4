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
"""Runs of ``lm_language.py``: the common start, SeqKD that goes on, the adversarial stage of every arm, and SODA.

All weights of student and discriminator are trained. What the arms of a seed share (the student of the start, its
answers, the warmed-up discriminators) is kept below the work folder, and so is the state of a run that is not at its
end: it goes on there after an interruption.
"""

import functools
import itertools
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from discriminator_knowledge import valid_above_invalid
from language import TRUST
from lm_lab import Dice, Lab, Loop, Texts, validation_loss
from lm_model import Ids, Learner, log_probs, sample, scores
from objective_training import Objective, batches, none_if_nan
from study_common import save_tensors
from torch import Tensor

from gad_verl.core import discriminator_pair_loss, group_advantages, low_variance_kl
from gad_verl.core.preference import PreferenceLogProbs, preference_loss
from gad_verl.core.trust import DiscriminatorTrust, pair_accuracy

START_RATE, DISCRIMINATOR_RATE = 1e-4, 3e-5
WINDOW = 10  # steps of a point of the curve of f


# -------------------------------------------------- the common start --------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Where the arms of a seed start.

    Args:
        corpus: The instructions.
        masters: Weights of the student of the best validation likelihood.
        row: Of SeqKD.
    """

    corpus: Texts
    masters: list[Tensor]
    row: dict[str, Any]


class _Best:
    """The weights of the best likelihood so far."""

    def __init__(self) -> None:
        self.masters: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"masters": self.masters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masters = state["masters"]


def _order(count: int, size: int, seed: int, updates: int) -> list[list[int]]:
    return [rows.tolist() for rows in itertools.islice(batches(count, size, seed), updates)]


def text_loss(student: Any, corpus: Texts, rows: Sequence[int]) -> Tensor:
    """Cross-entropy on the teacher's texts, a mean over their tokens."""
    return -log_probs(student, corpus.pack(rows, [[corpus.teachers[row]] for row in rows])).mean()


@functools.lru_cache(maxsize=1)
def start(lab: Lab, seed: int) -> Start:
    """SeqKD to its best validation likelihood."""
    corpus, path, sizes = lab.corpus(seed), lab.of_seed(seed, "start.pt"), lab.sizes
    if not path.is_file():
        learner, best = lab.student(), _Best()
        order = _order(sizes.train, sizes.batch, seed, sizes.start)
        history = {"best_loss": math.inf, "best_step": 0, "losses": []}
        loop = Loop(lab, lab.of_seed(seed, "start-state.pt"), {"learner": learner, "best": best}, history)

        def step(number: int) -> None:
            learner.update(text_loss(learner.module, corpus, order[number - 1]), START_RATE)

        def after(number: int) -> None:
            if number % sizes.every == 0:
                loss = validation_loss(learner.module, corpus)
                loop.history["losses"].append([number, loss])
                if loss < loop.history["best_loss"]:
                    loop.history |= {"best_loss": loss, "best_step": number}
                    best.masters = learner.masters()

        loop.run(sizes.start, step, after)
        learner.start_from(best.masters)
        row = lab.judge(learner.module, corpus)
        row |= {name: loop.history[name] for name in ("best_step", "losses", "train_s")}
        save_tensors({"masters": best.masters, "row": row}, path)
    saved = torch.load(path, weights_only=True)
    return Start(corpus, saved["masters"], saved["row"])


def _at_start(lab: Lab, begun: Start) -> Learner:
    learner = lab.student()
    learner.start_from(begun.masters)
    return learner


def snapshot(lab: Lab, seed: int) -> list[list[list[int]]]:
    """n answers of the student of the start to each training instruction."""
    path = lab.of_seed(seed, "snapshot.json")
    if not path.is_file():
        begun, sizes, dice = start(lab, seed), lab.sizes, Dice(seed)
        student, answers, clock = _at_start(lab, begun).module, [], time.process_time()
        for first in range(0, sizes.train, sizes.batch):
            prompts = begun.corpus.prompts[first : first + sizes.batch]
            answers += sample(student, prompts, sizes.n, sizes.limit, lab.end, dice.generator)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"answers": answers, "train_s": time.process_time() - clock}), encoding="utf-8")
        os.replace(fresh, path)
    return json.loads(path.read_text(encoding="utf-8"))["answers"]


def _snapshot_s(lab: Lab, seed: int) -> float:
    return json.loads(lab.of_seed(seed, "snapshot.json").read_text(encoding="utf-8"))["train_s"]


# ------------------------------------------------- SeqKD that goes on -------------------------------------------------


def seqkd_goes_on(lab: Lab, rate: float, seed: int) -> dict[str, Any]:
    """SeqKD from the start on, with what is known at every checkpoint; the figures of the row are those after as many
    updates as an arm has."""
    begun, sizes = start(lab, seed), lab.sizes
    corpus, learner = begun.corpus, _at_start(lab, begun)
    order = _order(sizes.train, sizes.batch, seed + 1, sizes.equal_time)
    count = sizes.checkpoints
    wanted = [sizes.steps * part // count for part in range(1, count + 1)]
    wanted += [sizes.steps + (sizes.equal_time - sizes.steps) * part // count for part in range(1, count + 1)]
    first = {"updates": 0, "train_s": 0.0, **{k: v for k, v in begun.row.items() if k not in ("losses", "train_s")}}
    loop = Loop(lab, lab.of_seed(seed, f"seqkd-{rate:g}.pt"), {"learner": learner}, {"curve": [first]})

    def step(number: int) -> None:
        learner.update(text_loss(learner.module, corpus, order[number - 1]), rate)

    def after(number: int) -> None:
        if number in wanted:
            figures = lab.judge(learner.module, corpus)
            loop.history["curve"].append({"updates": number, "train_s": loop.history["train_s"], **figures})

    loop.run(sizes.equal_time, step, after)
    curve = loop.history["curve"]
    row = next(point for point in curve if point["updates"] == sizes.steps)
    return {**row, "curve": curve}


def seqkd_student(lab: Lab, rate: float, seed: int) -> tuple[Any, Texts, float]:
    """The student of :func:`seqkd_goes_on` after as many updates as an arm has, its texts, and the seconds it took."""
    begun, sizes = start(lab, seed), lab.sizes
    learner, order = _at_start(lab, begun), _order(sizes.train, sizes.batch, seed + 1, sizes.steps)
    loop = Loop(lab, lab.of_seed(seed, f"seqkd-{rate:g}-short.pt"), {"learner": learner}, {})
    loop.run(
        sizes.steps, lambda number: learner.update(text_loss(learner.module, begun.corpus, order[number - 1]), rate)
    )
    return learner.module, begun.corpus, loop.history["train_s"]


# ----------------------------------------------- the adversarial stage -----------------------------------------------


class Opponent:
    """The discriminator and what is known about it."""

    def __init__(self, lab: Lab, corpus: Texts, trusted: bool, seed: int) -> None:
        self.corpus, self.trusted = corpus, trusted
        self.learner, self.trust = lab.discriminator(seed), DiscriminatorTrust(TRUST)

    def parts(self) -> dict[str, Any]:
        """What a state consists of."""
        return {"discriminator": self.learner, "trust": self.trust}

    def learn(self, rows: Sequence[int], answers: Sequence[Sequence[Ids]]) -> tuple[Tensor, float]:
        """One update; scores (G, 1 + n), the teacher's first, and f by the D of before it."""
        corpus = self.corpus
        texts = [[corpus.teachers[row], *map(corpus.reread, some)] for row, some in zip(rows, answers, strict=True)]
        found = scores(self.learner.module, corpus.pack(rows, texts))
        held_out = corpus.held_out[list(rows)]
        trains = torch.ones_like(found[:, 1:])
        if self.trusted:
            trains = trains * (~held_out).unsqueeze(1)
        pairs = max(1.0, trains.sum().item())
        loss = discriminator_pair_loss(found[:, 0], found[:, 1:], trains, pairs)
        self.learner.update(loss, DISCRIMINATOR_RATE)
        found = found.detach()
        if not self.trusted:
            return found, 1.0
        names = [corpus.names[row] for row in rows]
        return found, self.trust.update(found[:, 0], found[:, 1:], held_out, names).factor


def warm_opponent(lab: Lab, trusted: bool, seed: int) -> tuple[Opponent, dict[str, Any]]:
    """D after some passes over the answers of the student of the start, and what it knew in each of them."""
    begun, sizes = start(lab, seed), lab.sizes
    answers, opponent = snapshot(lab, seed), Opponent(lab, begun.corpus, trusted, seed)
    path = lab.of_seed(seed, f"opponent-{'trusted' if trusted else 'plain'}.pt")
    if not path.is_file():
        each = sizes.train // sizes.batch
        order = _order(sizes.train, sizes.batch, seed, each * sizes.passes)
        state = path.with_name(f"{path.stem}-state.pt")
        loop = Loop(lab, state, opponent.parts(), {"own": [], "held_out": [], "valid_above": []})

        def step(number: int) -> None:
            rows = order[number - 1]
            some = [answers[row] for row in rows]
            found, _ = opponent.learn(rows, some)
            accuracies, held = pair_accuracy(found[:, 0], found[:, 1:]), begun.corpus.held_out[rows]
            loop.history["own"].append(_mean(accuracies[~held].tolist()))
            loop.history["held_out"].append(_mean(accuracies[held].tolist()))
            valid = begun.corpus.valid(rows, some)
            loop.history["valid_above"].append(valid_above_invalid(found[held][:, 1:], valid[held]))

        loop.run(each * sizes.passes, step)
        passes = {
            name: [_mean(loop.history[name][begin : begin + each]) for begin in range(0, each * sizes.passes, each)]
            for name in ("own", "held_out", "valid_above")
        }
        known = {"passes": passes, "train_s": loop.history["train_s"] + _snapshot_s(lab, seed)}
        parts = {name: part.state_dict() for name, part in opponent.parts().items()}
        save_tensors({"parts": parts, "known": known}, path)
    saved = torch.load(path, weights_only=True)
    for name, part in opponent.parts().items():
        part.load_state_dict(saved["parts"][name])
    return opponent, saved["known"]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def adversarial(
    lab: Lab, objective: Objective, name: str, policy_rate: float, texts_rate: float, seed: int
) -> dict[str, Any]:
    """The stage of one arm; its row."""
    begun, sizes = start(lab, seed), lab.sizes
    corpus, (opponent, known) = begun.corpus, warm_opponent(lab, objective.trust, seed)
    learner, reference, dice = _at_start(lab, begun), _at_start(lab, begun).module, Dice(seed + 1)
    order = _order(sizes.train, sizes.batch, seed + 1, sizes.steps)
    parts = {"student": learner, "dice": dice, **opponent.parts()}
    history = {"factors": [], "accuracies": [], "valid": []}
    loop = Loop(lab, lab.of_seed(seed, f"{name.replace(' ', '-').replace(',', '')}.pt"), parts, history)

    def step(number: int) -> None:
        rows = order[number - 1]
        prompts = [corpus.prompts[row] for row in rows]
        answers = sample(learner.module, prompts, sizes.n, sizes.limit, lab.end, dice.generator)
        found, knowledge = opponent.learn(rows, answers)
        policy_weight, texts_weight, rate = objective.weights_and_rate(knowledge, policy_rate, texts_rate)
        if rate:
            weights = group_advantages(found[:, 1:], torch.ones_like(found[:, 1:]), not objective.nats)
            kl = objective.kl
            loss = student_loss(
                learner.module, reference, corpus, rows, answers, weights, policy_weight, texts_weight, kl
            )
            learner.update(loss, rate)
        loop.history["factors"].append(knowledge)
        loop.history["accuracies"].append(pair_accuracy(found[:, 0], found[:, 1:]).mean().item())
        loop.history["valid"].append(corpus.valid(rows, answers).double().mean().item())

    loop.run(sizes.steps, step)
    row = lab.judge(learner.module, corpus)
    row |= {"accuracy": float(np.mean(loop.history["accuracies"][-25:])), "valid_rollouts": _windows(loop, "valid")}
    row |= {"passes": known["passes"], "shared_s": known["train_s"]}
    row |= {"train_s": loop.history["train_s"] + known["train_s"]}
    if objective.trust:
        row |= {"factor": float(np.mean(loop.history["factors"])), "factors": _windows(loop, "factors")}
        row |= {"held_out_accuracy": none_if_nan(opponent.trust.current().accuracy)}
    return row


def _windows(loop: Loop, name: str) -> list[float]:
    values = loop.history[name]
    return [float(np.mean(values[begin : begin + WINDOW])) for begin in range(0, len(values), WINDOW)]


def student_loss(
    student: Any,
    reference: Any,
    corpus: Texts,
    rows: Sequence[int],
    answers: Sequence[Sequence[Ids]],
    advantages: Tensor,
    policy_weight: float,
    texts_weight: float,
    kl_weight: float,
) -> Tensor:
    """Policy gradient with KL against the reference, and cross-entropy on the teacher's texts, each a mean over its own
    tokens; ONE pass for both. Advantages (G, n)."""
    if not policy_weight:
        return texts_weight * text_loss(student, corpus, rows)
    first = int(texts_weight > 0)  # place of the first rollout
    packed = corpus.pack(
        rows, [[corpus.teachers[row]] * first + list(some) for row, some in zip(rows, answers, strict=True)]
    )
    mine = log_probs(student, packed)
    with torch.no_grad():
        known = log_probs(reference, packed)
    group, place = packed.owner // (first + advantages.shape[1]), packed.owner % (first + advantages.shape[1])
    sampled = place >= first
    policy, reference_policy = mine[sampled], known[sampled]
    gain = advantages[group[sampled], place[sampled] - first]
    loss = -(gain * (policy - policy.detach()).exp()).mean()
    loss = policy_weight * (loss + kl_weight * low_variance_kl(policy, reference_policy).mean())
    return loss - texts_weight * mine[~sampled].mean() if first else loss


# -------------------------------------------------------- SODA --------------------------------------------------------


@dataclass(frozen=True)
class Soda:
    """DPO of the teacher's texts over one answer of the start to each instruction.

    Args:
        beta: Of DPO.
        anchor: Weight of cross-entropy on the texts beside it.
    """

    beta: float = 0.1
    anchor: float = 0.0


def soda(lab: Lab, method: Soda, name: str, rate: float, seed: int) -> dict[str, Any]:
    """SODA's updates; its row."""
    begun, sizes = start(lab, seed), lab.sizes
    corpus, answers = begun.corpus, snapshot(lab, seed)
    learner, reference = _at_start(lab, begun), _at_start(lab, begun).module
    order = _order(sizes.train, sizes.batch, seed + 1, sizes.steps)
    path = lab.of_seed(seed, f"{name.replace(' ', '-').replace(',', '')}.pt")
    loop = Loop(lab, path, {"student": learner}, {})

    def step(number: int) -> None:
        rows = order[number - 1]
        packed = corpus.pack(rows, [[corpus.teachers[row], corpus.reread(answers[row][0])] for row in rows])
        mine = log_probs(learner.module, packed)
        with torch.no_grad():
            known = packed.per_answer(log_probs(reference, packed))
        texts = packed.per_answer(mine)
        loss = preference_loss(PreferenceLogProbs(texts[:, 0], texts[:, 1], known[:, 0], known[:, 1]), method.beta)
        if method.anchor:
            chosen = packed.owner % 2 == 0
            loss = loss - method.anchor * mine[chosen].mean()
        learner.update(loss, rate)

    loop.run(sizes.steps, step)
    shared = _snapshot_s(lab, seed) / sizes.n
    figures = lab.judge(learner.module, corpus)
    return {**figures, "shared_s": shared, "train_s": loop.history["train_s"] + shared}
