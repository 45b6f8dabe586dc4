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
"""Weights from the training to a rollout of its own on machines without accelerator: a checkpoint engine over gloo.

verl's own engines want accelerators (nccl, nixl) or packages of their own. This one is found by verl's plugin point,
``actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module``, which ``gad_cpu`` fills in.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch
from torch import Tensor
from torch.distributed import ProcessGroupGloo, TCPStore
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

logger = logging.getLogger(__name__)

_SENDER = 0
_BYSTANDER = -1
Named = tuple[str, Tensor]


@dataclass(frozen=True)
class Meeting:
    """Where the members of a transfer meet.

    Args:
        host: Address of the sender.
        port: Of its store.
    """

    host: str
    port: int


@CheckpointEngineRegistry.register("gad_gloo")
class GlooCheckpointEngine(CheckpointEngine):
    """Rank 0 of the training broadcasts buckets of weights to all workers of the rollout.

    The other ranks of the training take part in gathering the weights alone.

    Args:
        bucket_size: Bytes that are sent at once, at least one weight.
        is_master: Whether this is rank 0 of the training.
        timeout_s: Seconds after which a member that does not come counts as lost.
    """

    def __init__(self, bucket_size: int, is_master: bool = False, timeout_s: float = 300.0) -> None:
        self._bucket_size, self._is_master, self._timeout = bucket_size, is_master, timedelta(seconds=timeout_s)
        self._rank = _BYSTANDER
        self._store: TCPStore | None = None
        self._group: ProcessGroupGloo | None = None

    def prepare(self) -> Meeting | None:
        """Open the store at a free port; None from everybody but the sender."""
        if not self._is_master:
            return None
        host = ray.util.get_node_ip_address()
        self._store = TCPStore(host, 0, None, True, self._timeout, wait_for_workers=False)
        return Meeting(host, self._store.port)

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[Any]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Arguments of :meth:`init_process_group` for each rank of the training and of the rollout."""
        members, meeting = 1 + rollout_world_size, metadata[0]

        def arguments(ranks: list[int]) -> dict[str, list[Any]]:
            return {"rank": ranks, "world_size": [members] * len(ranks), "meeting": [meeting] * len(ranks)}

        training = [_SENDER] + [_BYSTANDER] * (actor_wg_world_size - 1)
        return arguments(training), arguments(list(range(1, members)))

    def init_process_group(self, rank: int, world_size: int, meeting: Meeting) -> None:
        """Meet the others.

        Args:
            rank: 0 sends, -1 takes no part.
            world_size: Sender and receivers.
            meeting: Where.
        """
        self._rank = rank
        if rank == _BYSTANDER:
            return
        if rank != _SENDER:
            self._store = TCPStore(meeting.host, meeting.port, None, False, self._timeout, wait_for_workers=False)
        self._group = ProcessGroupGloo(self._store, rank, world_size, self._timeout)

    def finalize(self) -> None:
        """Part until the next transfer: members may come and go between two."""
        self._group = self._store = None

    def _broadcast(self, tensor: Tensor) -> Tensor:
        assert self._group is not None, "a transfer begins with init_process_group"
        self._group.broadcast(tensor, _SENDER).wait()
        return tensor

    def _send(self, bucket: list[Named]) -> None:
        """Names, shapes and types, then the weights; an empty bucket is the end."""
        described = json.dumps([[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in bucket]).encode()
        self._broadcast(torch.tensor([len(described) if bucket else 0]))
        if bucket:
            self._broadcast(torch.frombuffer(bytearray(described), dtype=torch.uint8))
        for _, tensor in bucket:
            self._broadcast(_bytes_of(tensor))

    def _receive(self) -> list[Named]:
        length = int(self._broadcast(torch.zeros(1, dtype=torch.int64)))
        if length == 0:
            return []
        described = self._broadcast(torch.zeros(length, dtype=torch.uint8))
        bucket = []
        for name, shape, dtype in json.loads(described.numpy().tobytes()):
            tensor = torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
            self._broadcast(_bytes_of(tensor))
            bucket.append((name, tensor))
        return bucket

    @torch.no_grad()
    async def send_weights(
        self, weights: Generator[Named, None, None], global_steps: int | None = None
    ) -> dict[str, Any]:
        """Send all weights. Every rank of the training goes through them: gathering them is a collective."""
        bucket: list[Named] = []
        size = total = 0
        for name, tensor in weights:
            if self._rank != _SENDER:
                continue
            bucket.append((name, tensor.detach().cpu().contiguous()))
            size += tensor.nbytes
            if size >= self._bucket_size:
                await asyncio.to_thread(self._send, bucket)
                bucket, total, size = [], total + size, 0
        if self._rank == _SENDER:
            if bucket:
                await asyncio.to_thread(self._send, bucket)
            await asyncio.to_thread(self._send, [])
            logger.info("sent version %s of the weights, %.1f MB", global_steps, (total + size) / 1e6)
        return {}

    @torch.no_grad()
    async def receive_weights(self, global_steps: int | None = None) -> AsyncGenerator[Named, None]:
        """The weights, bucket by bucket."""
        while bucket := await asyncio.to_thread(self._receive):
            for named in bucket:
                yield named


def _bytes_of(tensor: Tensor) -> Tensor:
    """The same memory as bytes, which gloo moves whatever the type."""
    return tensor.view(-1).view(torch.uint8)
