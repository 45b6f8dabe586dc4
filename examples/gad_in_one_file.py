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
"""Generative Adversarial Distillation (arXiv 2511.10643) in one process: read this file first.

A student imitates the TEXTS of a teacher of which nothing else is known. A discriminator D learns to score the
teacher's text above the student's; its score is the student's reward in GRPO, and it follows the student at every step.

    warmup        student by cross-entropy on the teacher's text, D by pairs (teacher, student); first steps: D alone
    adversarial   student by GRPO with reward D(prompt, response), D by fresh pairs; with ``otherwise="supervised"``
                  only as far as D knows, f, and for the rest by the texts: f * GRPO + (1 - f + a) * cross-entropy

The mathematics comes from ``gad_verl.core``, texts become tokens by ``gad_verl.data.tokens``; neither verl nor Ray is
needed. On the same weights, batch and rollouts this file and the trainer on verl compute the same losses and gradients
(tests/examples). :class:`Gad` takes any two torch modules that are called as
``module(input_ids=..., attention_mask=...)``, read tokens causally, and answer logits (N, T, V) and values (N, T),
plain or as ``.logits``. For models of transformers and data files there is a command around it::

    python examples/gad_command.py --student MODEL_FOLDER --data train.parquet --output RUN_FOLDER
"""

import copy
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from token_rows import sample_responses, sequence_scores, token_log_probs
from torch import Tensor, nn

from gad_verl import core
from gad_verl.core import Phase
from gad_verl.core.gating import GateOptions, UpdateGate
from gad_verl.core.reward_shaping import group_means
from gad_verl.core.trust import DiscriminatorTrust, TrustOptions, is_held_out
from gad_verl.data.tokens import EncodedResponse
from gad_verl.errors import GadConfigError
from gad_verl.trainer.metrics import text_metrics


@dataclass(frozen=True)
class Example:
    """One row: a prompt and one or several teacher texts (each epoch uses the next one)."""

    index: int
    prompt_ids: list[int]
    teachers: list[EncodedResponse]


@dataclass(frozen=True)
class Group:
    """A prompt, the teacher's response and the student's n: what D compares and GRPO normalises over.

    Args:
        sampled: The ids that the student sampled, which its update uses; None where a rollout failed.
        students: The same responses as D reads them (re-encoded from text, like the teacher's).
        trains: False for a prompt that never trains D, so that its accuracy there shows what it knows.
    """

    prompt_ids: list[int]
    teacher: EncodedResponse
    sampled: list[list[int] | None]
    students: list[EncodedResponse | None]
    trains: bool = True

    def rows(self) -> list[list[int]]:
        """Teacher, then students, each behind the prompt; one token stands for a failed rollout."""
        students = [[0] if student is None else self.prompt_ids + student.token_ids for student in self.students]
        return [self.prompt_ids + self.teacher.token_ids, *students]


@dataclass(frozen=True)
class Settings:
    """Settings of a run. The names are those of the trainer where it has them (docs/configuration.md).

    Args:
        stage: ``auto`` (warmup, then adversarial), ``seqkd`` (cross-entropy alone), ``warmup`` or ``gad``.
        total_steps, warmup_steps, discriminator_only_steps: See :class:`gad_verl.core.StageSchedule`.
        batch_size: Prompts of a step.
        n: Rollouts per prompt.
        warmup_actor_lr, warmup_discriminator_lr: None takes the rate of the adversarial stage.
        clip_grad: Largest norm of a gradient, of the student and of D.
        kl_loss_coef: Of the KL loss against ``kl_reference``: the ``warmed_up`` or the ``initial`` student.
        norm_adv_by_std: Whether advantages are divided by their group's spread; without it they are nats.
        held_out_fraction: Share of the prompts that never train D; 0 takes D to know all.
        otherwise: Where D does not know, the student ``hold`` (its rate times f) or is ``supervised`` by the texts.
        supervised_weight: Constant anchor a: weight of the texts beside ``1 - f``.
        micro_batch: Sequences in one forward pass (of D: whole groups, at least one); memory, not mathematics.
    """

    stage: str = "auto"
    total_steps: int = 100
    warmup_steps: int = 40
    discriminator_only_steps: int = 5
    batch_size: int = 8
    n: int = 4
    max_response_length: int = 64
    temperature: float = 0.8
    actor_lr: float = 1e-6
    discriminator_lr: float = 1e-6
    warmup_actor_lr: float | None = None
    warmup_discriminator_lr: float | None = None
    weight_decay: float = 0.01
    clip_grad: float = 0.2
    kl_loss_coef: float = 0.001
    kl_reference: str = "warmed_up"
    reset_optimizer_at_switch: bool = True
    norm_adv_by_std: bool = True
    held_out_fraction: float = 0.0
    otherwise: str = "hold"
    supervised_weight: float = 0.0
    micro_batch: int = 256
    seed: int = 1


class Gad:
    """Trains a student and a discriminator; both modules are changed in place.

    Args:
        student: Token ids to logits (N, T, V).
        discriminator: Token ids to values (N, T) or (N, T, 1).
        examples: Training rows.
        settings: See :class:`Settings`.
        stop_ids: Ids that end a response of the student.
        reread: How D reads sampled ids; None takes the ids as they are. Text models need
            ``SequenceBuilder.student_response``: sampled ids are often not what the tokenizer yields for the text.

    Raises:
        GadConfigError: If there are fewer rows than prompts in a step, or a setting is out of range.
        ValueError: The same, where the core says so.
    """

    def __init__(
        self,
        student: nn.Module,
        discriminator: nn.Module,
        examples: Sequence[Example],
        settings: Settings,
        stop_ids: frozenset[int],
        reread: Callable[[list[int]], EncodedResponse] | None = None,
    ) -> None:
        if len(examples) < settings.batch_size:
            raise GadConfigError(f"{len(examples)} rows do not fill a batch of {settings.batch_size}: lower batch_size")
        if settings.temperature <= 0 or settings.kl_reference not in ("warmed_up", "initial"):
            raise GadConfigError("temperature must be positive, kl_reference one of warmed_up, initial")
        if settings.otherwise not in ("hold", "supervised"):
            raise GadConfigError("otherwise must be one of hold, supervised")
        self.settings, self.examples, self.stop_ids = settings, examples, stop_ids
        self.reread = reread or (lambda ids: EncodedResponse(ids, ids[-1] in stop_ids, ids[-1] not in stop_ids))
        # Without dropout: a score must not depend on chance, and rewards come from the pass that trains D.
        self.student, self.discriminator = student.eval(), discriminator.eval()
        self.reference = copy.deepcopy(student).requires_grad_(False) if settings.kl_reference == "initial" else None
        self.schedule = core.StageSchedule(
            settings.stage, settings.total_steps, settings.warmup_steps, settings.discriminator_only_steps
        )
        # All options of the core, such as label smoothing or a D that waits, are set on these.
        self.pair_loss, self.gate = core.PairLossOptions(), UpdateGate(GateOptions())
        self.trust = DiscriminatorTrust(TrustOptions())
        self.knowledge = 0.0 if settings.held_out_fraction > 0 else 1.0  # f: what D knows
        self.student_optimizer = torch.optim.AdamW(student.parameters(), weight_decay=settings.weight_decay)
        self.discriminator_optimizer = torch.optim.AdamW(discriminator.parameters(), weight_decay=settings.weight_decay)
        self.random = random.Random(settings.seed)
        self.steps_done = 0
        # Of the last step with rollouts, for callbacks: the groups, D's scores (G, 1 + n) with the teacher's first.
        self.groups: list[Group] = []
        self.scores = torch.empty(0)
        self._batches = self._epochs()
        self._adversarial = self._reset_is_due = False
        torch.manual_seed(settings.seed)

    def run(self, on_step: Iterable[Callable[[int, dict, "Gad"], None]] = (), metrics_file: Path | None = None) -> None:
        """Do all steps. Each callback sees (step, metrics, self) and may add metrics, which then go to the file."""
        if metrics_file:
            Path(metrics_file).write_text("", "utf-8")
        while self.steps_done < self.settings.total_steps:
            metrics = self.step()
            for callback in on_step:
                callback(self.steps_done, metrics, self)
            if metrics_file:
                with open(metrics_file, "a", encoding="utf-8") as lines:
                    lines.write(json.dumps({"step": self.steps_done, "data": metrics}) + "\n")

    def step(self) -> dict[str, float]:
        """One step of whatever phase it belongs to; returns its metrics (docs/curves.md)."""
        begin = time.perf_counter()
        self.steps_done += 1
        phase = self.schedule.phase(self.steps_done)
        metrics: dict[str, float] = {"gad/stage": float(phase.value)}
        self._enter(phase)
        batch, epoch = next(self._batches)
        chosen = [(example, example.teachers[(example.index + epoch) % len(example.teachers)]) for example in batch]
        if self.rolls_out(phase):
            groups = self.rollout(chosen)
            metrics["timing_s/gen"] = time.perf_counter() - begin
            updates = self.gate.updates() if phase is Phase.ADVERSARIAL else 1
            scores, weights = self.update_discriminator(groups, metrics, updates)
            metrics |= text_metrics(groups, scores)
            if phase is Phase.ADVERSARIAL:
                self.update_student(groups, self.advantages(scores, weights, metrics), metrics)
        if phase.trains_student_supervised:
            self.update_supervised([(example.prompt_ids, text.token_ids) for example, text in chosen], metrics)
        metrics |= {"training/global_step": self.steps_done, "timing_s/step": time.perf_counter() - begin}
        return metrics

    def _enter(self, phase: Phase) -> None:
        """Learning rates; where the adversarial stage begins also the KL reference."""
        settings = self.settings
        if phase is Phase.ADVERSARIAL and not self._adversarial:
            self._adversarial = True
            self._reset_is_due = settings.reset_optimizer_at_switch and self.steps_done > 1
            if self.reference is None and settings.kl_loss_coef:
                self.reference = copy.deepcopy(self.student).requires_grad_(False)
        warmup = phase is not Phase.ADVERSARIAL
        for optimizer, rate, warmup_rate in (
            (self.student_optimizer, settings.actor_lr, settings.warmup_actor_lr),
            (self.discriminator_optimizer, settings.discriminator_lr, settings.warmup_discriminator_lr),
        ):
            for group in optimizer.param_groups:
                group["lr"] = warmup_rate if warmup and warmup_rate is not None else rate

    def _epochs(self) -> Iterator[tuple[list[Example], int]]:
        epoch, size = 0, self.settings.batch_size
        while True:
            order = self.random.sample(self.examples, len(self.examples))
            for begin in range(0, len(order) - size + 1, size):
                yield order[begin : begin + size], epoch
            epoch += 1

    def rollout(self, chosen: Sequence[tuple[Example, EncodedResponse]]) -> list[Group]:
        """n responses of the student to every prompt."""
        settings = self.settings
        prompts = [example.prompt_ids for example, _ in chosen for _ in range(settings.n)]
        sampled = sample_responses(
            self.student, prompts, settings.max_response_length, self.stop_ids, settings.temperature
        )
        groups = []
        for number, (example, teacher) in enumerate(chosen):
            mine = sampled[number * settings.n : (number + 1) * settings.n]
            trains = not is_held_out(str(example.prompt_ids), settings.held_out_fraction)
            groups.append(Group(example.prompt_ids, teacher, list(mine), [self.reread(ids) for ids in mine], trains))
        return groups

    def update_discriminator(
        self, groups: list[Group], metrics: dict[str, float], updates: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Scores (G, n) of the rollouts by the D of BEFORE its updates, and weights (0 where a rollout failed).

        ONE pass gives the loss of all pairs, its gradient, and the scores. Past groups (:meth:`past_groups`) join the
        loss; scores and statistics are those of the fresh pairs, and so is what D knows.
        """
        for update in range(max(1, updates)):
            old = self.past_groups(groups) if updates else []
            loss, scores, weights = self._pair_loss([*groups, *old], learns=updates > 0)
            if update == 0:
                metrics["disc/loss"] = loss
                self.groups, self.scores, fresh = groups, scores[: len(groups)], weights[: len(groups)]
            if updates:
                metrics |= self._optimizer_step(self.discriminator, self.discriminator_optimizer, "disc")
        teacher, students = self.scores[:, 0], self.scores[:, 1:]
        statistics = core.score_statistics(teacher, students, fresh)
        self.gate.observe(statistics.get("accuracy"))
        metrics |= {f"disc/{name}": value for name, value in statistics.items()}
        usable = torch.isfinite(students) & (fresh > 0)
        if self.settings.held_out_fraction > 0:
            held_out = torch.tensor([not group.trains for group in groups])
            trust = self.trust.update(teacher, students, held_out, [str(group.prompt_ids) for group in groups], fresh)
            self.knowledge = trust.factor
            metrics |= {"gad/trust_factor": trust.factor, "gad/trust_accuracy": trust.accuracy}
        metrics["gad/nonfinite_scores"] = float(((fresh > 0) & ~usable).sum())
        if not bool(usable.any()):
            raise FloatingPointError("every score of the discriminator is nan or inf: lower its learning rate")
        # The mean of its group instead of a score that is not finite: no direction for the student.
        return torch.where(usable, students, group_means(students, usable.float())), fresh

    def rolls_out(self, phase: Phase) -> bool:
        """Whether a step samples and trains D; this and the next method are for studies to override."""
        return phase.trains_discriminator

    def past_groups(self, groups: list[Group]) -> list[Group]:
        """Groups of past steps that train D beside those of this one."""
        return []

    def _pair_loss(self, groups: list[Group], learns: bool) -> tuple[float, Tensor, Tensor]:
        """Loss, scores (G, 1 + n) with the teacher's first, and weights (G, n); adds up the gradient of D."""
        weights = torch.tensor([[float(student is not None) for student in group.students] for group in groups])
        trains = weights * torch.tensor([[float(group.trains)] for group in groups])
        num_pairs, width = max(1.0, trains.sum().item()), weights.shape[1] + 1
        size, total, parts = max(1, self.settings.micro_batch // width), 0.0, []
        with torch.set_grad_enabled(learns):
            for begin in range(0, len(groups), size):
                rows = [row for group in groups[begin : begin + size] for row in group.rows()]
                scores = sequence_scores(self.discriminator, rows).view(-1, width)
                part = trains[begin : begin + size].to(scores.device)
                loss = core.discriminator_pair_loss(scores[:, 0], scores[:, 1:], part, num_pairs, self.pair_loss)
                if learns:
                    loss.backward()
                total += loss.item()
                parts.append(scores.detach().cpu())
        return total, torch.cat(parts), weights

    def advantages(self, scores: Tensor, weights: Tensor, metrics: dict[str, float]) -> Tensor:
        """Advantages (G, n) from scores and weights (G, n)."""
        metrics["critic/score/mean"] = scores[weights > 0].mean().item()
        return core.group_advantages(scores, weights, self.settings.norm_adv_by_std)

    def update_student(self, groups: list[Group], advantages: Tensor, metrics: dict[str, float]) -> None:
        """One step of the adversarial stage: GRPO with the KL loss as far as D knows, cross-entropy for the rest."""
        settings, turns = self.settings, self.settings.otherwise == "supervised"
        weights = core.loss_weights(self.knowledge if turns else 1.0, settings.supervised_weight)
        if not turns and self.knowledge == 0:
            return  # a rate of 0
        texts_rate = settings.actor_lr if settings.warmup_actor_lr is None else settings.warmup_actor_lr
        rates = self.knowledge, settings.actor_lr, texts_rate
        for group in self.student_optimizer.param_groups:
            group["lr"] = core.blended_rate(*rates) if turns else settings.actor_lr * self.knowledge
        loss = 0.0
        if weights.policy > 0:
            if self._reset_is_due:  # Until here the stage is SeqKD that goes on, if anything.
                self.student_optimizer.state.clear()
                self._reset_is_due = False
            loss += weights.policy * self._policy_gradient(groups, advantages, weights.policy, metrics)
        if weights.texts > 0:
            rows = [(group.prompt_ids, group.teacher.token_ids) for group in groups]
            metrics["actor/text_loss"] = self._text_gradient(rows, weights.texts, metrics)
            loss += weights.texts * metrics["actor/text_loss"]
        metrics |= {"gad/policy_weight": weights.policy, "gad/texts_weight": weights.texts, "actor/loss": loss}
        metrics |= self._optimizer_step(self.student, self.student_optimizer, "actor")

    def update_supervised(self, rows: list[tuple[list[int], list[int]]], metrics: dict[str, float]) -> None:
        """One step of cross-entropy on (prompt, teacher response)."""
        metrics["actor/loss"] = self._text_gradient(rows, 1.0, metrics)
        metrics |= self._optimizer_step(self.student, self.student_optimizer, "actor")

    def _policy_gradient(
        self, groups: list[Group], advantages: Tensor, weight: float, metrics: dict[str, float]
    ) -> float:
        """Adds up the gradient of ``weight`` times policy and KL loss, means over response tokens; returns the loss.

        One optimizer step per batch keeps the ratio of new and old probability at 1, so PPO's clip has nothing to do.
        """
        settings = self.settings
        rows = [
            (group.prompt_ids, ids, advantage)
            for group, row in zip(groups, advantages.tolist(), strict=True)
            for ids, advantage in zip(group.sampled, row, strict=True)
            if ids is not None
        ]
        tokens = sum(len(ids) for _, ids, _ in rows)
        sums = {"actor/pg_loss": 0.0, "actor/kl_loss": 0.0, "actor/entropy": 0.0}
        for begin in range(0, len(rows), settings.micro_batch):
            prompts, responses, values = zip(*rows[begin : begin + settings.micro_batch], strict=True)
            log_probs, entropy, row = token_log_probs(self.student, prompts, responses, settings.temperature)
            ratio = (log_probs - log_probs.detach()).exp()
            policy = -(torch.tensor(values, device=row.device)[row] * ratio).sum() / tokens
            kl = torch.zeros_like(policy)
            if settings.kl_loss_coef and self.reference is not None:
                with torch.no_grad():
                    reference, _, _ = token_log_probs(self.reference, prompts, responses, settings.temperature)
                kl = core.low_variance_kl(log_probs, reference).sum() / tokens
            (weight * (policy + settings.kl_loss_coef * kl)).backward()
            for name, value in zip(sums, (policy, kl, entropy.sum() / tokens), strict=True):
                sums[name] += value.item()
        metrics |= sums
        return sums["actor/pg_loss"] + settings.kl_loss_coef * sums["actor/kl_loss"]

    def _text_gradient(
        self, rows: list[tuple[list[int], list[int]]], weight: float, metrics: dict[str, float]
    ) -> float:
        """Adds up the gradient of ``weight`` times the cross-entropy, a mean over all teacher tokens; returns that."""
        tokens, total = sum(len(response) for _, response in rows), 0.0
        for begin in range(0, len(rows), self.settings.micro_batch):
            prompts, responses = zip(*rows[begin : begin + self.settings.micro_batch], strict=True)
            loss = -token_log_probs(self.student, prompts, responses, temperature=1.0)[0].sum() / tokens
            (weight * loss).backward()
            total += loss.item()
        metrics["gad/supervised_tokens"] = float(tokens)
        return total

    def _optimizer_step(self, module: nn.Module, optimizer: torch.optim.Optimizer, name: str) -> dict[str, float]:
        """Clip and step; a gradient that is not finite is left out."""
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.settings.clip_grad).item()
        if math.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad()
        skipped = {"disc/skipped_steps": float(not math.isfinite(norm))} if name == "disc" else {}
        return {f"{name}/grad_norm": norm, f"{name}/lr": optimizer.param_groups[0]["lr"], **skipped}
