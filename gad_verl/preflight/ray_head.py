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
"""Where the head of the Ray cluster is, and whether it is still there."""

import socket
import sys

# Seconds between two looks at it, and of one.
LOOK_S = 5.0


def head_address() -> str | None:
    """HOST:PORT of the head's control store; None while this process has joined no cluster."""
    # Not imported for this: the check before a run is to be quick.
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return str(ray.get_runtime_context().gcs_address)


def accepts(address: str) -> bool:
    """Whether somebody listens at an address; a process that is merely busy does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_S):
            return True
    except OSError:
        return False
