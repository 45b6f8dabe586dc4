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
"""What the student learns from in a step of the adversarial stage, and at what rate (gad_verl/core/objective.py)."""

from dataclasses import dataclass

from gad_verl.config import GadConfig
from gad_verl.core import LossWeights, blended_rate, loss_weights
from gad_verl.trainer.trust import StudentTrust


@dataclass(frozen=True)
class Objective:
    """The options of the objective with what is known about the discriminator now.

    Args:
        gad_config: The section ``gad``.
        trust: Follows the discriminator; None counts as one that knows all.
    """

    gad_config: GadConfig
    trust: StudentTrust | None

    @property
    def knowledge(self) -> float:
        """What the discriminator knows, f in [0, 1]."""
        return 1.0 if self.trust is None else self.trust.knowledge

    @property
    def waits(self) -> bool:
        """Whether the student is to learn nothing in this step."""
        return not self.gad_config.turns_to_texts and self.knowledge == 0

    @property
    def weights(self) -> LossWeights:
        """Of the two terms of the loss."""
        anchor = self.gad_config.supervised_weight
        return loss_weights(self.knowledge if self.gad_config.turns_to_texts else 1.0, anchor)

    def rate(self, adversarial: float, supervised: float) -> float:
        """Learning rate of the student.

        Args:
            adversarial, supervised: Rates of the two stages.
        """
        if self.gad_config.turns_to_texts:
            return blended_rate(self.knowledge, adversarial, supervised)
        return adversarial * self.knowledge
