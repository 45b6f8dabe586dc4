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
"""Starts ranks that talk over gloo, for scripts that run real workers beside the tests."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch

# A body gets its rank and the arguments that were given; it must be a function of a module.
Body = Callable[..., None]


def free_port() -> int:
    """A port of the loopback device that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _on_rank(rank: int, body: Body, world_size: int, port: int, arguments: tuple[Any, ...]) -> None:
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    body(rank, *arguments)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def run_ranks(body: Body, world_size: int, *arguments: Any) -> None:
    """Call ``body(rank, *arguments)`` in ``world_size`` processes (in this one, if it is one) and wait.

    verl's workers open the process group; it is closed here when every rank is done.
    """
    everything = (body, world_size, free_port(), arguments)
    if world_size == 1:
        _on_rank(0, *everything)
    else:
        torch.multiprocessing.spawn(_on_rank, args=everything, nprocs=world_size, join=True)
