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
"""What a run remembers and decides on the driver beside weights: guardian, rewards, record. One state, saved whole."""

import logging
import math
import os
import pickle
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from gad_verl.config import GadConfig
from gad_verl.core import Phase
from gad_verl.core.trust import DiscriminatorTrust, Trust, is_held_out
from gad_verl.data.schema import chat_id
from gad_verl.discriminator.worker_group import DiscriminatorOutput
from gad_verl.errors import GadCheckpointError
from gad_verl.guardian import Event, Guardian
from gad_verl.record import RunRecord, Sample
from gad_verl.trainer.adversary import Adversary
from gad_verl.trainer.rewards import RewardPipeline
from gad_verl.trainer.rollouts import RolloutGroup

logger = logging.getLogger(__name__)

TOOLS_FILE = "gad_tools.pt"


class Toolbox:
    """The options of ``gad`` that live on the driver.

    Args:
        config: The section ``gad``.
    """

    def __init__(self, config: GadConfig) -> None:
        self._config = config
        self.rewards = RewardPipeline(config.reward)
        self.guardian = Guardian(config.guardian)
        self.trust = DiscriminatorTrust(config.trust.options())
        # What the last adversarial step found; None without trust.
        self.trust_factor: float | None = None
        # Factors of the learning rates as the workers have them.
        self.applied_factors = {"actor": 1.0, "discriminator": 1.0}
        self._record: RunRecord | None = None

    @property
    def knobs(self) -> dict[str, float]:
        """What the guardian asks for in this step; neutral where it asks for nothing."""
        return self.guardian.knobs

    # ------------------------------ decisions ------------------------------

    def judge(self, step: int, phase: Phase, metrics: Mapping[str, Any]) -> list[Event]:
        """Let the guardian read metrics of a step; may be called with several parts of them."""
        events = self.guardian.observe(step, {**metrics, "gad/stage": float(phase.value)})
        for event in events:
            self.note(**event.as_dict())
        return events

    def held_out(self, groups: Sequence[RolloutGroup]) -> list[bool]:
        """Which groups' prompts never train the discriminator."""
        trust = self._config.trust
        if not trust.enabled:
            return [False] * len(groups)
        return [is_held_out(chat_id(group.messages), trust.held_out_fraction, trust.seed) for group in groups]

    def observe_trust(
        self, step: int, phase: Phase, groups: Sequence[RolloutGroup], output: DiscriminatorOutput
    ) -> dict[str, float]:
        """Learn from a step's held-out pairs how far the discriminator is to be trusted; metrics ``gad/trust_*``."""
        if not self._config.trust.enabled:
            return {}
        trust = self.trust.update(
            output.teacher_scores,
            output.student_scores,
            torch.tensor(self.held_out(groups)),
            [chat_id(group.messages) for group in groups],
            output.weights,
        )
        metrics = {"gad/trust_factor": trust.factor, "gad/trust_prompts": float(trust.num_prompts)}
        if math.isfinite(trust.accuracy):
            metrics |= {"gad/trust_accuracy": trust.accuracy, "gad/trust_error": trust.standard_error}
        if phase is Phase.ADVERSARIAL:
            before, self.trust_factor = self.trust_factor, trust.factor
            if before is None or (before == 0) != (trust.factor == 0):
                self._note_trust(step, trust)
        return metrics

    def _note_trust(self, step: int, trust: Trust) -> None:
        if trust.factor == 0:
            text = "the student waits: the discriminator does not know teacher from student on held-out prompts"
        else:
            text = f"the student learns, at {trust.factor:.0%} of its rate"
        if math.isfinite(trust.accuracy):
            text += f" (accuracy {trust.accuracy:.3f} +- {trust.standard_error:.3f} on {trust.num_prompts} prompts)"
        else:
            text += f" (only {trust.num_prompts} held-out prompts seen, gad.trust.least_prompts are needed)"
        logger.info("step %d: %s", step, text)
        action = "warn" if trust.factor == 0 else "info"
        self.note(step, "trust", "trust_factor", action, text, {"factor": trust.factor, "accuracy": trust.accuracy})

    def apply_knobs(self, adversary: Adversary | None) -> None:
        """Give the guardian's wishes to those who act on them; learning rates are applied by the trainer."""
        if adversary is None:
            return
        knobs = self.knobs
        every, steps = int(knobs["discriminator_every"]), int(knobs["discriminator_steps"])
        adversary.every_steps = every if every != 1 else None
        adversary.updates_per_step = steps if steps != 1 else None

    # ------------------------------ record ------------------------------

    def open_record(self, folder: Path, resume_step: int | None, config: Any, metrics_file: Path | None) -> None:
        """Begin or continue the record of the run."""
        if not self._config.record.enable:
            return
        self._record = RunRecord.open(folder, resume_step)
        self._record.write_run(config, metrics_file)

    def close_record(self, finished: bool) -> None:
        """Close it; ``finished`` where the run came to its end."""
        if self._record is None:
            return
        if finished:
            self._record.finish()
        self._record.close()

    def note(self, step: int, source: str, rule: str, action: str, text: str, figures: Mapping[str, float]) -> None:
        """One event for the record."""
        if self._record is not None:
            self._record.event(step, source, rule, action, text, figures)

    def record_scores(self, step: int, phase: Phase, output: DiscriminatorOutput) -> None:
        """How the scores of both sides are spread."""
        if self._record is None:
            return
        came = output.weights > 0
        teacher = output.teacher_scores[came.any(dim=1)]
        self._record.scores(step, phase.name.lower(), teacher.tolist(), output.student_scores[came].tolist())

    def record_samples(self, step: int, split: Literal["train", "val"], samples: Iterable[Sample]) -> None:
        """A few texts, at each validation and every so many steps of training."""
        config = self._config.record
        due = split == "val" or step == 1 or step % config.samples_every_steps == 0
        if self._record is None or config.samples == 0 or not due:
            return
        self._record.samples(step, split, islice(samples, config.samples))

    # ------------------------------ checkpoints ------------------------------

    def save(self, folder: Path, adversary: Adversary | None) -> None:
        """Write ``gad_tools.pt``; the file is there whole or not at all."""
        state = {
            "rewards": self.rewards.state_dict(),
            "guardian": self.guardian.state_dict(),
            "trust": self.trust.state_dict(),
            "trust_factor": self.trust_factor,
            "applied_factors": self.applied_factors,
            "adversary": None if adversary is None else adversary.state_dict(),
        }
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{TOOLS_FILE}.tmp"
        torch.save(state, temporary)
        os.replace(temporary, folder / TOOLS_FILE)

    def load(self, folder: Path, adversary: Adversary | None) -> None:
        """Go on where :meth:`save` was called. A checkpoint without the file was written before there were tools.

        Raises:
            GadCheckpointError: If the file is damaged.
        """
        path = folder / TOOLS_FILE
        if not path.is_file():
            logger.warning(
                "%s has no %s: the tools of the run (gad.replay and the like) begin anew", folder, TOOLS_FILE
            )
            return
        try:
            state = torch.load(path, weights_only=True)
            self.rewards.load_state_dict(state["rewards"])
            self.guardian.load_state_dict(state["guardian"])
            self.trust.load_state_dict(state["trust"])
            self.trust_factor = state["trust_factor"]
            self.applied_factors = state["applied_factors"]
            if adversary is not None and state["adversary"] is not None:
                adversary.load_state_dict(state["adversary"])
        except (KeyError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise GadCheckpointError(f"{path} is damaged: {error}") from error
