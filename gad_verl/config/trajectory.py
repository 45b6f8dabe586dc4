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
"""The section ``gad.trajectory``: teachers and students that call tools over several turns."""

from dataclasses import dataclass

from gad_verl.config.checks import require, require_choice

LAST, TURNS = "last", "turns"
SCORES = (LAST, TURNS)


@dataclass
class TrajectoryConfig:
    """Whether rows hold trajectories, and how the discriminator reads them (``gad.trajectory``)."""

    enable: bool = False
    score: str = LAST
    hide_context: bool = False

    @property
    def scores_turns(self) -> bool:
        """Whether the score is the mean over the ends of the assistant's turns."""
        return self.enable and self.score == TURNS

    def validate(self) -> None:
        """Check the fields."""
        key = "gad.trajectory"
        require_choice("trajectory.score", self.score, SCORES)
        require(
            self.enable or (self.score == LAST and not self.hide_context),
            f"{key}.score={self.score} and {key}.hide_context={self.hide_context} are read with "
            f"{key}.enable=True alone",
        )
