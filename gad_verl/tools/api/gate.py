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
"""Lets requests go at an API's pace."""

import asyncio
import time
from collections.abc import Callable


class Gate:
    """Spaces requests so that no minute holds more of them, or of their tokens, than allowed.

    Requests leave one after the other with an even distance, instead of in bursts with silence between: many APIs
    divide their limit per minute into seconds. A request of c tokens keeps the next one back for c / limit minutes;
    the estimate is corrected once the API has counted.

    Args:
        requests_per_minute, tokens_per_minute: None for no limit.
        clock: Seconds, monotonic; tests pass their own.
        sleep: Coroutine that waits some seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], "asyncio.Future[None]"] = asyncio.sleep,
    ) -> None:
        self._seconds_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._seconds_per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._sleep = sleep
        self._request_free_at = self._tokens_free_at = self._paused_until = float("-inf")
        self._turn = asyncio.Lock()  # first come, first served

    async def enter(self, tokens: float) -> None:
        """Wait until a request of about so many tokens may be sent."""
        async with self._turn:
            # Asked anew after every sleep: a pause may have begun meanwhile, or an estimate been corrected.
            while (seconds := self._free_at() - (now := self._clock())) > 0:
                await self._sleep(seconds)
            self._request_free_at = now + self._seconds_per_request
            self._tokens_free_at = max(now, self._tokens_free_at) + tokens * self._seconds_per_token

    def correct(self, estimated: float, counted: float) -> None:
        """The request that entered with ``estimated`` tokens had ``counted``."""
        self._tokens_free_at += (counted - estimated) * self._seconds_per_token

    def pause(self, seconds: float) -> None:
        """Nobody enters for so long: the API has asked for it."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def _free_at(self) -> float:
        return max(self._request_free_at, self._tokens_free_at, self._paused_until)
