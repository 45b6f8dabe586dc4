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
"""What is known of a step once the discriminator has answered: for whoever looks at it."""

from collections.abc import Callable
from dataclasses import dataclass

from gad_verl.core import Phase
from gad_verl.discriminator.worker_group import DiscriminatorOutput
from gad_verl.trainer.encoding import EncodedGroup
from gad_verl.trainer.rollouts import StepRollouts


@dataclass(frozen=True)
class StepInfo:
    """Which step it is.

    Args:
        number: Training step, from 1.
        phase: Its phase.
        visit: How often the data were gone through before.
        num_sessions: Rollouts of each prompt, where none has failed.
        update: Running number of the update: that of the step, where a step has one.
    """

    number: int
    phase: Phase
    visit: int
    num_sessions: int
    update: int = 1


@dataclass(frozen=True)
class ScoredStep:
    """The rollouts of a training step with their scores of before the discriminator's update.

    Args:
        info: Which step it is.
        rollouts: G groups.
        encoded: The same as the discriminator read them.
        output: What it said of them.
    """

    info: StepInfo
    rollouts: StepRollouts
    encoded: list[EncodedGroup]
    output: DiscriminatorOutput


# Looks at a step before its rewards are written; returns metrics.
Observer = Callable[[ScoredStep], dict[str, float]]
