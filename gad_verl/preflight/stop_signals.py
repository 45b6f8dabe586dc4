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
"""Ctrl-C and SIGTERM ask a run to save and end; once more ends it at once.

Both reach the process that started the run and waits for it, not the trainer, which is a process of Ray's: they become
the run's stop file (:mod:`gad_verl.trainer.stop_file`).
"""

import atexit
import logging
import os
import signal
import sys
import threading
from types import FrameType

from gad_verl.trainer.stop_file import StopFile

logger = logging.getLogger(__name__)

# Of this process to itself; it means nothing to anybody by default.
_REPAIR = signal.SIGURG
_LOOK_S = 0.5
_REPAIRS = 20


class StopSignals:
    """Handlers of the starting process.

    Args:
        stop_file: Of the run.
    """

    def __init__(self, stop_file: StopFile) -> None:
        self._stop_file = stop_file
        self._asked, self._code = False, 0
        # Whoever ignores them from the start (a job in the background of a script) means it.
        wanted = (signal.SIGINT, signal.SIGTERM)
        self._numbers = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]

    def install(self) -> None:
        """Take the signals, and take them back once Ray has put its own handler in the place of one.

        Only the main thread may, and that one is then inside of verl: a thread watches, and a signal calls it there.
        """
        self._take()
        atexit.register(self._leave)
        signal.signal(_REPAIR, lambda number, frame: self._take())
        threading.Thread(target=self._watch, daemon=True).start()

    def _take(self) -> None:
        for number in self._numbers:
            signal.signal(number, self._handle)

    def _watch(self) -> None:
        pause = threading.Event()
        while all(signal.getsignal(number) == self._handle for number in self._numbers):
            pause.wait(_LOOK_S)
        # Ray's C++ puts a handler of its own there too, of which Python does not know.
        for _ in range(_REPAIRS):
            os.kill(os.getpid(), _REPAIR)
            pause.wait(_LOOK_S)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Where Ray's C++ was faster, it has set an alarm that aborts the process in three seconds.
        signal.alarm(0)
        name = signal.Signals(number).name
        if self._asked:
            logger.warning("%s again: the run ends at once; the same command goes on from its last checkpoint", name)
            # As shells count it.
            self._code = 128 + number
            raise SystemExit(self._code)
        self._asked = True
        self._stop_file.request()
        logger.warning("%s: the run saves after the step that it is in, and ends. Once more ends it at once", name)

    def _leave(self) -> None:
        # Ray makes an exit of its own out of one within `ray.get`, with code 1 (its check_signals).
        if not self._code:
            return
        try:
            ray = sys.modules.get("ray")
            if ray is not None:
                ray.shutdown()
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(self._code)
