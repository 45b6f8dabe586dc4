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
"""What GAD does with the rollouts of a step, from their text to the student's rewards, in this order:

1. :meth:`GadStep.begin`: read the rollouts, encode both sides, start the discriminator on them.
2. :meth:`GadStep.receive_scores`: its scores of before the update become the student's rewards.
3. :meth:`GadStep.finish`: its update ends.

The student's own update is verl's, or :class:`gad_verl.trainer.supervised.SupervisedStep` on
:attr:`GadStep.supervised_rows`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tensordict import TensorDict

from gad_verl.core import Phase
from gad_verl.guardian import Guardian
from gad_verl.trainer.discriminator_step import DiscriminatorStep, DiscriminatorTraining
from gad_verl.trainer.encoding import EncodedGroup, Encoding
from gad_verl.trainer.held_out_texts import HeldOutTexts
from gad_verl.trainer.off_policy import OffPolicy
from gad_verl.trainer.preference import PreferenceStep
from gad_verl.trainer.rewards import Rewards
from gad_verl.trainer.rollouts import KVBatchMeta, Rollouts, StepRollouts
from gad_verl.trainer.run_log import RunLog
from gad_verl.trainer.scored import Observer, ScoredStep, StepInfo
from gad_verl.trainer.supervised import SupervisedRow, SupervisedStep
from gad_verl.trainer.trust import StudentTrust
from gad_verl.trainer.validation import ValidationRecord


@dataclass(frozen=True)
class _InFlight:
    """Rollouts whose scores are on their way."""

    info: StepInfo
    rollouts: StepRollouts
    encoded: list[EncodedGroup]
    scoring: DiscriminatorStep


@dataclass
class GadStep:
    """The parts of a step, and the order in which they act.

    Args:
        rollouts: Reads trajectories, writes rewards.
        encoding: Text of both sides to token rows.
        discriminator: Its training; None in SeqKD, which has validations only.
        trust: Prompts that are held out; None without ``gad.trust``.
        rewards: Scores to rewards.
        guardian: Its knobs act here.
        observers: Who looks at the scores: metrics, trust, curriculum, record. The order is that of their metrics.
        log: The record of the run, for a validation.
        supervised: The student's cross-entropy, for a validation.
        held_out_texts: Takes it.
        adversarial_texts: Whether the student's steps of the adversarial stage may use the teacher's texts.
        preference: Takes the snapshot of SODA; None in other stages.
        passing_only: Whether the discriminator learns from answers alone that pass the check.
        off_policy: The ages of rollouts, in an asynchronous mode.
    """

    rollouts: Rollouts
    encoding: Encoding
    discriminator: DiscriminatorTraining | None
    trust: StudentTrust | None
    rewards: Rewards
    guardian: Guardian
    observers: Sequence[Observer]
    log: RunLog
    supervised: SupervisedStep
    held_out_texts: HeldOutTexts
    adversarial_texts: bool = False
    preference: PreferenceStep | None = None
    passing_only: bool = False
    off_policy: OffPolicy | None = None
    supervised_rows: list[SupervisedRow] = field(default_factory=list)
    validation: ValidationRecord = field(default_factory=ValidationRecord)
    _in_flight: _InFlight | None = None

    def begin(self, batch: KVBatchMeta, info: StepInfo, metrics: dict) -> None:
        """Start the discriminator on the rollouts of a step.

        Where it has a pool of its own, the scores are awaited where the advantages need them, its update at the end of
        the step; elsewhere all of it is done here.
        """
        rollouts = self.rollouts.read(batch, info.num_sessions, info.number, info.visit)
        if info.phase is Phase.SNAPSHOT:
            assert self.preference is not None
            metrics.update(self.preference.take(rollouts))
            self.rewards.write_nothing(rollouts)
            return
        assert self.discriminator is not None, "a step with rollouts that train has a discriminator"
        encoded = self.encoding.encode(rollouts.groups)
        adversarial = info.phase is Phase.ADVERSARIAL and self.adversarial_texts
        if info.phase.trains_student_supervised or adversarial:
            self.supervised_rows = self.encoding.supervised_rows(rollouts, encoded)
        held_out = [False] * len(encoded) if self.trust is None else self.trust.held_out(rollouts.groups)
        if self.off_policy is not None:
            too_old = self.off_policy.too_old(rollouts.groups, info.number)
            held_out = [one or other for one, other in zip(held_out, too_old, strict=True)]
        passing = self.rewards.passes(rollouts) if self.passing_only else [None] * len(encoded)
        sequences = [
            one.sequences(trains=not out, student_trains=some)
            for one, out, some in zip(encoded, held_out, passing, strict=True)
        ]
        updates = int(self.guardian.knobs["discriminator_steps"])
        scoring = self.discriminator.begin(
            info.update, info.phase, sequences, rollouts.num_sessions, updates_asked=updates if updates != 1 else None
        )
        self._in_flight = _InFlight(info, rollouts, encoded, scoring)
        if self.discriminator.in_background:
            # verl copies a row's fields, the reward among them, where it fills up the batch.
            self.rewards.write_nothing(rollouts)
        else:
            self._use_scores(self._in_flight, metrics)
            self.finish(metrics)

    @property
    def is_in_flight(self) -> bool:
        """Whether the discriminator is still at work on the step."""
        return self._in_flight is not None

    def receive_scores(self, metrics: dict) -> None:
        """Wait for the scores of the step's rollouts, once, and write the rewards."""
        in_flight = self._in_flight
        if in_flight is None or in_flight.scoring.has_scores:
            return
        begin = time.perf_counter()
        in_flight.scoring.scores()
        metrics["disc/wait_scores_s"] = time.perf_counter() - begin
        self._use_scores(in_flight, metrics)

    def finish(self, metrics: dict) -> None:
        """Wait for the end of the discriminator's update, where one is on its way; its scores have been received."""
        if self._in_flight is not None:
            report = self._in_flight.scoring.finish()
            metrics.update({f"disc/{name}": value for name, value in report.items()})
            self._in_flight = None

    def _use_scores(self, step: _InFlight, metrics: dict) -> None:
        info, rollouts, output = step.info, step.rollouts, step.scoring.scores()
        scored = ScoredStep(info, rollouts, step.encoded, output)
        for observe in self.observers:
            metrics.update(observe(scored))
        if info.phase is Phase.ADVERSARIAL:
            penalty = self.guardian.knobs["length_penalty"]
            metrics.update(self.rewards.write(rollouts, step.encoded, output, penalty))
        else:
            metrics.update(self.rewards.write_scores(rollouts, output.student_scores, output.weights))

    def rows_of_data(self, batch: TensorDict, info: StepInfo) -> list[SupervisedRow]:
        """The student's rows for the teacher's texts of a batch of data, without rollouts (SeqKD)."""
        texts = self.rollouts.teacher_texts(batch, info.number, info.visit)
        return [
            self.encoding.supervised_row(messages, one.text, one.finished)
            for messages, one in zip(batch["raw_prompt"], texts, strict=True)
        ]

    def begin_validation(self, step: int) -> None:
        """Forget the validation before, as far as it is not compared with."""
        self.validation = ValidationRecord()
        self.held_out_texts.begin(step)

    def validation_metrics(self) -> dict[str, float]:
        """What GAD adds to the metrics of a validation."""
        return self.validation.metrics() | self.held_out_texts.metrics()

    def validate(self, batch: KVBatchMeta, info: StepInfo, has_ground_truth: bool) -> None:
        """Score a batch of a validation, and write the scores as its rewards; nobody learns.

        Args:
            batch: verl's.
            info: The step after which it is made.
            has_ground_truth: Whether the rows bring a ground truth of their own.
        """
        rollouts = self.rollouts.read(batch, info.num_sessions, info.number, visit=0)
        encoded = self.encoding.encode(rollouts.groups)
        output = None
        if self.discriminator is not None:
            output = self.discriminator.score([one.sequences() for one in encoded], info.num_sessions)
            self.validation.add_scores(output)
        self.validation.add_texts(rollouts.groups, encoded, self.encoding)
        rows = self.encoding.supervised_rows(rollouts, encoded)
        self.held_out_texts.add(rows, self.supervised.losses(rows))
        self.log.samples(info.number, rollouts, self.encoding, output)
        if not has_ground_truth:
            self.rollouts.write_ground_truths(rollouts)
        if output is None:
            self.rewards.write_nothing(rollouts)
        else:
            self.rewards.write_scores(rollouts, output.student_scores, output.weights)
