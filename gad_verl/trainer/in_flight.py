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
"""Prompts of an asynchronous run between the data and a step: for which step each is asked, and which are replaced."""

from gad_verl.errors import GadStalledError

# verl refills what it evicts without end: so many batches of prompts, beside those on their way, are not bad luck.
_MOST_BATCHES = 4


class PromptsInFlight:
    """Counts prompts.

    Args:
        batch_size: Prompts of a step.
        ahead: Batches that are on their way when a step begins.
    """

    def __init__(self, batch_size: int, ahead: float) -> None:
        self._batch_size = batch_size
        self._most = int(batch_size * (ahead + _MOST_BATCHES))
        self._asked = self._replaced = 0

    def resume(self, step: int, waiting: int) -> None:
        """Go on after a step's checkpoint, with which so many prompts came back that wait for the next ones."""
        self._asked = step * self._batch_size + waiting

    def ask(self, count: int) -> list[int]:
        """So many prompts are asked; returns the step in which each is trained if none overtakes another."""
        first, self._asked = self._asked, self._asked + count
        return [1 + place // self._batch_size for place in range(first, self._asked)]

    def replace(self, count: int) -> None:
        """So many groups were thrown away by verl, too old or with a failed rollout.

        Raises:
            GadStalledError: If nothing comes but such groups.
        """
        self._asked -= count
        self._replaced += count
        if self._replaced > self._most:
            raise GadStalledError(
                f"{self._replaced} groups of rollouts were thrown away while a step waited: every one had a failed "
                "rollout (the errors of the agent loops are in the log above) or was too old (raise "
                "trainer.v1.sampler.max_off_policy_threshold, or lower num_warmup_batches of trainer.v1)"
            )

    def begin_step(self) -> None:
        """A step has its batch."""
        self._replaced = 0
