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
"""Ends a launch whose Ray head is gone, before Ray does: it waits a minute, and leaves by C++ with code 1.

The process that started a run waits for one answer and hears nothing else.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from gad_verl.preflight.ray_head import LOOK_S, accepts, head_address
from gad_verl.preflight.run_end import WORTH_A_RESTART

logger = logging.getLogger(__name__)

# Ray's own limit is 60 (RAY_gcs_rpc_server_reconnect_timeout_s).
_SILENT_S = 40.0


class HeadWatch:
    """A thread of the starting process.

    Args:
        address: Where the head is; None while it is not known.
        is_there: Whether it accepts a connection.
        leave: Ends the process with a code.
        now: A clock in seconds.
    """

    def __init__(
        self,
        address: Callable[[], str | None] = head_address,
        is_there: Callable[[str], bool] = accepts,
        leave: Callable[[int], Any] = os._exit,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address, self._is_there, self._leave, self._now = address, is_there, leave, now
        self._heard: float | None = None

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._run, name="gad-head-watch", daemon=True).start()

    def look(self) -> bool:
        """One look; whether to go on watching."""
        address = self._address()
        if address is None or self._heard is None or self._is_there(address):
            self._heard = self._now()
            return True
        silent = self._now() - self._heard
        if silent < _SILENT_S:
            return True
        sys.stderr.write(
            f"gad_verl: the head of the Ray cluster at {address} has not answered for {silent:.0f} s: its node or the "
            f"network is down (exit code {WORTH_A_RESTART}; the same command goes on from the last checkpoint)\n"
        )
        sys.stderr.flush()
        self._leave(WORTH_A_RESTART)
        return False

    def _run(self) -> None:
        pause, goes_on = threading.Event(), True
        while goes_on:
            try:
                goes_on = self.look()
            except Exception:
                # Ray comes up or goes down in the main thread.
                logger.debug("the head could not be looked for", exc_info=True)
            pause.wait(LOOK_S)
