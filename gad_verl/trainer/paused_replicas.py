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
"""verl's manager of the rollout as its validation sees it in an asynchronous mode."""

from collections.abc import Callable
from typing import Any


class PausedReplicas:
    """Takes the place of verl's manager while it validates.

    verl lets the rollout sleep for the scores of a validation, and wakes it with new weights. Here requests of training
    prompts are on their way: they must be parked, not lost, or left alone where nobody wants their memory.

    Args:
        manager: verl's.
        pause: Called where verl lets the replicas sleep.
        resume: Called where verl wakes them.
    """

    def __init__(self, manager: Any, pause: Callable[[Any], None], resume: Callable[[Any], None]) -> None:
        self._manager, self._pause, self._resume = manager, pause, resume

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def sleep_replicas(self) -> None:
        """Before the scores."""
        self._pause(self._manager)

    def update_weights(self, global_steps: int | None = None) -> dict[str, Any]:
        """After them. The weights are those that the rollout had."""
        self._resume(self._manager)
        return {}
