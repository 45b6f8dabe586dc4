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
"""The student's update of the adversarial stage: by scores and texts, as far as either has something to say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gad_verl.trainer.metrics import weight_metrics
from gad_verl.trainer.objective import Objective
from gad_verl.trainer.student_stages import StudentStages
from gad_verl.trainer.supervised import SupervisedRow, SupervisedStep


@dataclass(frozen=True)
class AdversarialUpdate:
    """Chooses between verl's update, one on the texts alone, and both in one.

    Args:
        objective: Weights of the two, and whether the student waits.
        stages: Its learning rate.
        supervised: Its steps on texts.
    """

    objective: Objective
    stages: StudentStages
    supervised: SupervisedStep

    @property
    def rests(self) -> bool:
        """Whether no rollout trains the student in this step: nothing is to be computed for verl's update then."""
        return self.objective.waits or self.objective.weights.policy == 0

    def run(
        self,
        step: int,
        texts: Sequence[SupervisedRow],
        num_rollouts: int,
        metrics: dict,
        by_scores: Callable[[], object],
    ) -> None:
        """Train the student for a step.

        Args:
            step: Its number.
            texts: The teacher's texts of the step.
            num_rollouts: Rows of verl's update, its padding included.
            metrics: Takes what is to be logged.
            by_scores: verl's update.
        """
        weights, trust = self.objective.weights, self.objective.trust
        if trust is not None and step == self.stages.schedule.total_steps:
            trust.conclude(step)
        if self.objective.waits:
            # A rate of 0 with none of the work, and Adam's averages are spared gradients that mean nothing.
            return
        self.stages.apply_rates(step)
        if self.objective.gad_config.uses_texts:
            metrics.update(weight_metrics(weights))
        if weights.policy == 0:
            self.stages.use_texts_alone(weights.texts)
            metrics.update(self.supervised.train(texts))
            return
        self.stages.learn_from_scores()
        if weights.texts > 0:
            metrics.update(self.supervised.join(texts, num_rollouts, weights))
        by_scores()
