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
"""How far the student follows the discriminator: prompts that never train it, and the factor that follows from them."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch

from gad_verl.config.stability import HOLD, TrustConfig
from gad_verl.core import Phase
from gad_verl.core.trust import DiscriminatorTrust, Trust, is_held_out
from gad_verl.data.schema import chat_id
from gad_verl.guardian.rules.stopping import UNTRUSTED_REMEDY
from gad_verl.trainer.rollouts import RolloutGroup
from gad_verl.trainer.run_log import RunLog
from gad_verl.trainer.scored import ScoredStep

logger = logging.getLogger(__name__)


def source_in_words(knowledge: float, otherwise: str) -> str:
    """Where the student is learning from, f in [0, 1]."""
    if otherwise == HOLD:
        return "the student waits" if knowledge == 0 else f"the student learns, at {knowledge:.0%} of its rate"
    if knowledge == 0:
        return "the student learns from the texts"
    if knowledge == 1:
        return "the student learns from the discriminator"
    return f"the student learns from the discriminator ({knowledge:.0%}) and from the texts"


def evidence_in_words(trust: Trust) -> str:
    """Why."""
    if not math.isfinite(trust.accuracy):
        return f"only {trust.num_prompts} held-out prompts were seen, gad.trust.least_prompts are needed"
    verdict = "cannot tell yet" if trust.factor == 0 else "can tell" if trust.factor == 1 else "can tell in part"
    share, error = 100 * trust.accuracy, 100 * trust.standard_error
    return f"the discriminator {verdict} ({share:.0f} % +- {error:.0f} on {trust.num_prompts} held-out prompts)"


class StudentTrust:
    """Follows the discriminator on held-out prompts.

    Args:
        config: ``gad.trust``, with a positive ``held_out_fraction``.
        log: Takes its turns as events.
    """

    def __init__(self, config: TrustConfig, log: RunLog) -> None:
        self._config, self._log = config, log
        self._trust = DiscriminatorTrust(config.options())
        # Of the last adversarial step; None before the first.
        self._factor: float | None = None
        self._ever_knew = self._concluded = False

    @property
    def knowledge(self) -> float:
        """What the discriminator knows, in [0, 1]; 1 before the first adversarial step."""
        return 1.0 if self._factor is None else self._factor

    def held_out(self, groups: Sequence[RolloutGroup]) -> list[bool]:
        """Which groups' prompts never train the discriminator."""
        fraction, seed = self._config.held_out_fraction, self._config.seed
        return [is_held_out(chat_id(group.messages), fraction, seed) for group in groups]

    def observe(self, step: ScoredStep) -> dict[str, float]:
        """Learn from a step's held-out pairs; metrics ``gad/trust_*``."""
        groups, output = step.rollouts.groups, step.output
        trust = self._trust.update(
            output.teacher_scores,
            output.student_scores,
            torch.tensor(self.held_out(groups)),
            [chat_id(group.messages) for group in groups],
            output.weights,
        )
        metrics = {"gad/trust_factor": trust.factor, "gad/trust_prompts": float(trust.num_prompts)}
        if math.isfinite(trust.accuracy):
            metrics |= {"gad/trust_accuracy": trust.accuracy, "gad/trust_error": trust.standard_error}
        if step.info.phase is Phase.ADVERSARIAL:
            before, self._factor = self._factor, trust.factor
            self._ever_knew |= trust.factor > 0
            if before is None or (before == 0) != (trust.factor == 0):
                self._note(step.info.number, trust)
        return metrics

    def conclude(self, step: int) -> None:
        """At the end of the run: say so if the student never learned from scores."""
        if self._ever_knew or self._factor is None or self._concluded:
            return
        self._concluded = True
        text = f"in no adversarial step the discriminator could tell teacher from student. {UNTRUSTED_REMEDY}"
        logger.warning("step %d: %s", step, text)
        self._log.event(step, "trust", "trust_factor", "warn", text, {"factor": 0.0})

    def _note(self, step: int, trust: Trust) -> None:
        text = f"{source_in_words(trust.factor, self._config.otherwise)}: {evidence_in_words(trust)}"
        logger.info("step %d: %s", step, text)
        action = "warn" if trust.factor == 0 and self._config.otherwise == HOLD else "info"
        figures = {"factor": trust.factor, "accuracy": trust.accuracy}
        self._log.event(step, "trust", "trust_factor", action, text, figures)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"trust": self._trust.state_dict(), "factor": self._factor, "ever_knew": self._ever_knew}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned."""
        self._trust.load_state_dict(state["trust"])
        self._factor, self._ever_knew = state["factor"], state.get("ever_knew", True)
