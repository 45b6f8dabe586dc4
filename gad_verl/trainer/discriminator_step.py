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
"""The discriminator's training over a run: how often it learns, and from what beside the fresh pairs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gad_verl.config import GadConfig
from gad_verl.core import Phase, score_statistics
from gad_verl.core.gating import UpdateGate
from gad_verl.core.replay import ReplayBuffer
from gad_verl.data.image_prompts import ImagePrompts
from gad_verl.discriminator.groups import SequenceGroup
from gad_verl.discriminator.worker_group import DiscriminatorGroup, DiscriminatorOutput, PendingUpdate, UpdateOptions
from gad_verl.trainer.replayed import MixedBatch, Packed, Replay, remember, unpack_group


class DiscriminatorTraining:
    """Trains and asks the discriminator, one batch of fresh groups per step.

    Args:
        group: Its workers.
        config: The section ``gad``.
        updates_of_step: Batches of fresh groups in a step, numbered through the run.
        prompts: Reads the images of past groups again; None for a student without eyes.
    """

    def __init__(
        self,
        group: DiscriminatorGroup,
        config: GadConfig,
        updates_of_step: int = 1,
        prompts: ImagePrompts | None = None,
    ) -> None:
        self._group, self._config, self._prompts = group, config, prompts
        self._gate = UpdateGate(config.discriminator_updates.gate_options())
        self._replay = Replay(config.replay, updates_of_step, prompts)
        # What the discriminator-only steps showed: the student stands still in them, so nothing of it gets old.
        again = config.discriminator_only_updates > 1
        steps_alone = config.discriminator_only_steps * updates_of_step
        self._alone: ReplayBuffer[Packed] = ReplayBuffer(steps_alone if again else 0)
        self._updates_done = 0

    @property
    def in_background(self) -> bool:
        """Whether the student goes on while the discriminator works, on a pool of its own."""
        return self._config.discriminator_overlap and self._config.discriminator_n_gpus_per_node > 0

    def score(self, groups: Sequence[SequenceGroup], num_students: int) -> DiscriminatorOutput:
        """Scores alone, for a validation."""
        return self._group.score(list(groups), num_students)

    def begin(
        self,
        step: int,
        phase: Phase,
        groups: Sequence[SequenceGroup],
        num_students: int,
        updates_asked: int | None = None,
    ) -> "DiscriminatorStep":
        """Start the step's scores and the update that goes with them.

        Args:
            step: Training step; where a step has several batches, the running number of the batch.
            phase: Its phase.
            groups: Fresh groups.
            num_students: Sessions of each.
            updates_asked: Updates in this step that the guardian asks for; None leaves it to the configuration.
        """
        updates = self._updates_in(phase, updates_asked)
        fresh = list(groups)
        mixed = self._replay.mix(step, 0, fresh, num_students) if updates else MixedBatch(fresh, len(fresh))
        batch, options = mixed.groups, self._options(phase)
        if not any(weight > 0 for group in batch for weight in group.pair_weights()):
            # All held out, failed, or turned away by a check: a step of the optimizer on a gradient of 0 would still
            # move the weights, by its moments and the weight decay.
            updates = 0
        if updates == 0:
            pending = self._group.begin_score(batch, num_students, options)
        elif self.in_background:
            pending = self._group.begin_update(batch, num_students, options)
        else:
            pending = _done(self._group.update(batch, num_students, options))
        self._updates_done += updates > 0
        return DiscriminatorStep(self, step, phase, fresh, mixed, num_students, updates, pending)

    def _updates_in(self, phase: Phase, updates_asked: int | None) -> int:
        if phase is Phase.DISCRIMINATOR_ONLY:
            return self._config.discriminator_only_updates
        if phase is not Phase.ADVERSARIAL:
            return 1
        if self._config.discriminator_updates.frozen:
            return 0
        return self._gate.updates(updates_per_step=updates_asked)

    def _options(self, phase: Phase) -> UpdateOptions:
        loss = self._config.discriminator_loss
        penalised = loss.gradient_penalty > 0 and self._updates_done % loss.gradient_penalty_every == 0
        return UpdateOptions(
            noise_seed=self._updates_done if penalised else None,
            noisy_students=loss.gradient_penalty_students,
            return_values=self._config.reward.credits_tokens and phase is Phase.ADVERSARIAL,
        )

    def update_again(
        self, step: int, phase: Phase, number: int, fresh: list[SequenceGroup], num_students: int
    ) -> dict[str, float]:
        """A further update on the same fresh groups, or on those of all steps without the student; its report."""
        if phase is Phase.DISCRIMINATOR_ONLY:
            drawn = self._alone.sample(len(fresh), step * 1000 + number)
            batch = [unpack_group(packed, num_students, self._prompts) for packed in drawn] or fresh
        else:
            batch = self._replay.mix(step, number, fresh, num_students).groups
        options = replace(self._options(Phase.ADVERSARIAL), return_values=False)
        self._updates_done += 1
        return self._group.update(batch, num_students, options).report

    def remember_alone(self, step: int, phase: Phase, fresh: list[SequenceGroup]) -> None:
        """Keep the groups of a discriminator-only step for further updates."""
        if phase is Phase.DISCRIMINATOR_ONLY:
            remember(self._alone, step, fresh)
        elif len(self._alone):
            self._alone = ReplayBuffer(0)

    def observe(self, step: int, phase: Phase, fresh: list[SequenceGroup], accuracy: float | None) -> None:
        """Remember what the step showed."""
        self._replay.remember(step, fresh)
        if phase is Phase.ADVERSARIAL:
            self._gate.observe(accuracy)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: tensors and plain containers."""
        return {
            "gate": self._gate.state_dict(),
            "replay": self._replay.state_dict(),
            "alone": self._alone.state_dict(),
            "updates_done": self._updates_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned."""
        self._gate.load_state_dict(state["gate"])
        self._replay.load_state_dict(state["replay"])
        if "alone" in state:
            self._alone.load_state_dict(state["alone"])
        self._updates_done = state["updates_done"]


def _done(output: DiscriminatorOutput) -> PendingUpdate:
    """An update that is over."""
    return PendingUpdate(lambda: (output, lambda: {"busy_s": 0.0}))


class DiscriminatorStep:
    """One step of :class:`DiscriminatorTraining`: scores first, the rest later."""

    def __init__(
        self,
        training: DiscriminatorTraining,
        step: int,
        phase: Phase,
        fresh: list[SequenceGroup],
        mixed: MixedBatch,
        num_students: int,
        updates: int,
        pending: PendingUpdate,
    ) -> None:
        self._training, self._step, self._phase, self._fresh = training, step, phase, fresh
        self._mixed, self._num_students, self._updates = mixed, num_students, updates
        self._pending = pending

    @property
    def has_scores(self) -> bool:
        """Whether :meth:`scores` was called."""
        return self._pending.has_scores

    def scores(self) -> DiscriminatorOutput:
        """Scores of the fresh groups, of before the update; waits for them."""
        return self._pending.scores().first(len(self._fresh))

    def finish(self) -> dict[str, float]:
        """Wait for the end of all updates; the report, with ``updates`` and, where past responses took part, how the
        discriminator fares on them (the fresh pairs have their own)."""
        scored = self._pending.scores()
        report = self._pending.finish()
        self._training.remember_alone(self._step, self._phase, self._fresh)
        for number in range(1, self._updates):
            further = self._training.update_again(self._step, self._phase, number, self._fresh, self._num_students)
            # The loss stays that of the first update, on pairs that were not seen before.
            keep = {"loss": report["loss"], "busy_s": report["busy_s"] + further["busy_s"]}
            skipped = report["skipped_steps"] + further["skipped_steps"]
            report = report | further | keep | {"skipped_steps": skipped}
        report["updates"] = float(self._updates)
        report |= self._mixed.report(scored)
        fresh = scored.first(len(self._fresh))
        statistics = score_statistics(fresh.teacher_scores, fresh.student_scores, fresh.weights)
        self._training.observe(self._step, self._phase, self._fresh, statistics.get("accuracy"))
        return report
