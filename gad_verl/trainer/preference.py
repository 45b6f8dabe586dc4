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
"""Steps of ``gad.stage=soda``: a snapshot of the student, and preferences of the teacher's texts over it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from gad_verl.config import GadConfig
from gad_verl.core.preference import (
    PreferenceLogProbs,
    preference_gradients,
    preference_statistics,
)
from gad_verl.trainer.encoding import Encoding
from gad_verl.trainer.rollouts import Rollouts, StepRollouts
from gad_verl.trainer.scored import StepInfo
from gad_verl.trainer.snapshot import Snapshot, SnapshotAnswer
from gad_verl.trainer.student_stages import StudentStages
from gad_verl.trainer.supervised import SupervisedRow, SupervisedStep

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreferenceStep:
    """Learns from pairs.

    Args:
        gad_config: The section ``gad``.
        rollouts: Reads the teacher's texts.
        encoding: Encodes both sides by one function.
        snapshot: The unwanted side.
        supervised: Reads and trains the student.
        stages: Its optimizer begins the stage anew.
    """

    gad_config: GadConfig
    rollouts: Rollouts
    encoding: Encoding
    snapshot: Snapshot
    supervised: SupervisedStep
    stages: StudentStages

    def take(self, rollouts: StepRollouts) -> dict[str, float]:
        """Remember the first answer to each prompt; returns metrics."""
        pairs = []
        for group in rollouts.groups:
            first = next((one.answer_ids for one in group.answers if one is not None and one.answer_ids), None)
            if first is not None:
                answer = SnapshotAnswer(*self.encoding.student.student_text(first))
                pairs.append((group.messages, group.teacher_text, answer))
        taken = self.snapshot.add(pairs)
        return {"gad/snapshot_new": float(taken), "gad/snapshot_prompts": float(len(self.snapshot))}

    def train(self, batch: TensorDict, info: StepInfo) -> dict[str, Any]:
        """One update on the pairs of a batch of data; returns metrics.

        A prompt without a snapshot, or with one that is the teacher's text, makes no pair and trains nobody.
        """
        chosen, rejected = self._pairs(batch, info)
        counts = {"gad/pairs": float(len(chosen)), "gad/unpaired_prompts": float(len(batch) - len(chosen))}
        if not chosen:
            logger.warning("step %d: no prompt of the step has an answer in the snapshot: nobody learns", info.number)
            return counts
        rows = [*chosen, *rejected]
        pairs = self._log_probs(rows)
        beta = self.gad_config.soda.beta
        of_chosen, of_rejected = preference_gradients(pairs, beta)
        anchor = self.gad_config.supervised_weight
        if anchor > 0:
            of_chosen = of_chosen - anchor / sum(sum(row.mask) for row in chosen)
        self.stages.learn_from_scores()
        metrics = self.supervised.train(rows, [*of_chosen.tolist(), *of_rejected.tolist()])
        statistics = preference_statistics(pairs, beta)
        # What the workers report is the linear form of the loss.
        metrics["actor/loss"] = statistics["loss"]
        return metrics | counts | {f"gad/preference_{name}": value for name, value in statistics.items()}

    def _pairs(self, batch: TensorDict, info: StepInfo) -> tuple[list[SupervisedRow], list[SupervisedRow]]:
        chosen, rejected = [], []
        texts = self.rollouts.teacher_texts(batch, info.number, info.visit)
        for messages, one in zip(batch["raw_prompt"], texts, strict=True):
            answer = self.snapshot.answer(messages)
            if answer is None:
                continue
            wanted = self.encoding.supervised_row(messages, one.text, one.finished)
            unwanted = self.encoding.supervised_row(messages, answer.text, answer.finished)
            if wanted != unwanted:
                chosen.append(wanted)
                rejected.append(unwanted)
        return chosen, rejected

    def _log_probs(self, rows: Sequence[SupervisedRow]) -> PreferenceLogProbs:
        def sides(losses: list[float]) -> tuple[Tensor, Tensor]:
            both = -torch.tensor(losses, dtype=torch.float64)
            return both[: len(rows) // 2], both[len(rows) // 2 :]

        now, reference = sides(self.supervised.losses(rows)), sides(self.supervised.reference_losses(rows))
        return PreferenceLogProbs(*now, *reference)
