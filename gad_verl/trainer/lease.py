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
"""Who writes to a folder of checkpoints: the run that was started last. One before it stops when it wants to save.

A node that was cut off from its cluster goes on writing, and nothing else keeps two runs off one folder.
"""

import json
import os
import socket
import uuid
from datetime import UTC, datetime
from pathlib import Path

from gad_verl.errors import GadCheckpointError
from gad_verl.record.files import read_json, write_atomically

LEASE_FILE = "writer.json"


class Lease:
    """The right to write, as a file that names its holder.

    Args:
        root: Folder of the checkpoints.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / LEASE_FILE
        self._attempt = uuid.uuid4().hex

    def take(self) -> None:
        """From now on this run writes."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        holder = {
            "attempt": self._attempt,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_atomically(self._path, json.dumps(holder, indent=2))

    def check(self) -> None:
        """Raises where another run has taken over since.

        Raises:
            GadCheckpointError: Names the folder and who writes there now.
        """
        holder = read_json(self._path) or {}
        if holder.get("attempt", self._attempt) != self._attempt:
            who = f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
            raise GadCheckpointError(
                f"{self._path.parent} belongs to another run now ({who}): nothing was saved. Where this is the run "
                "that is wanted, end the other and start this one again; two runs need two trainer.default_local_dir"
            )
