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
"""The training worker's side of the rollout "hf": sends the student's weights to the server."""

import logging
import os
from collections.abc import AsyncGenerator, Generator
from typing import Any

import ray
import torch
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.utils import ensure_async_iterator

from gad_verl.rollout.hf_replica import server_name

logger = logging.getLogger(__name__)

# From the training worker of the same process, or from a checkpoint engine, which receives them.
Weights = Generator[tuple[str, torch.Tensor], None, None] | AsyncGenerator[tuple[str, torch.Tensor], None]


class HFAdapter(BaseRollout):
    """Counterpart of verl's ``ServerAdapter`` for :class:`gad_verl.rollout.hf_server.HFServer`."""

    is_leader_rank = True

    def __init__(self, *args: Any, replica_rank: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A rollout with devices of its own is counted behind those that share the training's.
        self.replica_rank = int(os.environ["RANK"]) if replica_rank is None else replica_rank
        self._server: ray.actor.ActorHandle | None = None

    def _the_server(self) -> ray.actor.ActorHandle:
        if self._server is None:
            self._server = ray.get_actor(server_name(self.replica_rank))
        return self._server

    async def resume(self, tags: list[str]) -> None:
        """The server's weights go back to the device."""
        await self._the_server().wake_up.remote(tags)

    async def release(self) -> None:
        """The server gives the memory of the device to the training."""
        await self._the_server().sleep.remote()

    @torch.no_grad()
    async def update_weights(
        self,
        weights: Weights,
        global_steps: int | None = None,
        wire_format: str = "named_tensors",
        peft_config: dict[str, Any] | None = None,
        base_sync_done: bool = True,
        **_: Any,
    ) -> None:
        """Send all weights in buckets of ``checkpoint_engine.update_weights_bucket_megabytes``.

        Under LoRA verl sends the base once (``base_sync_done=False``) and then adapters, with ``peft_config``; with
        ``actor_rollout_ref.model.lora.merge=True`` it sends merged weights instead.

        Raises:
            NotImplementedError: If the weights come as deltas.
            RuntimeError: If the server's model lacks a weight.
        """
        if wire_format != "named_tensors":
            raise NotImplementedError(f"the rollout hf takes full tensors only; got {wire_format!r}")
        server = self._the_server()
        if peft_config and base_sync_done:
            adapter = {name: ours.cpu() async for name, ours in ensure_async_iterator(weights)}
            unknown = await server.load_adapter.remote(adapter, peft_config)
            self._refuse(unknown)
        else:
            await self._send_weights(weights)
        if global_steps is not None:
            await server.set_global_steps.remote(global_steps)

    async def _send_weights(self, weights: Weights) -> None:
        limit = self.config.checkpoint_engine.update_weights_bucket_megabytes << 20
        bucket: list[tuple[str, torch.Tensor]] = []
        size, unknown = 0, []
        async for name, tensor in ensure_async_iterator(weights):
            # verl names the base under an adapter as vLLM does.
            bucket.append((name.replace(".base_layer.", "."), tensor.detach().cpu()))
            size += tensor.nbytes
            if size >= limit:
                unknown += await self._the_server().load_weights.remote(bucket)
                bucket, size = [], 0
        if bucket:
            unknown += await self._the_server().load_weights.remote(bucket)
        self._refuse(unknown)

    @staticmethod
    def _refuse(unknown: list[str]) -> None:
        if unknown:
            raise RuntimeError(f"the rollout's model lacks these weights of the student: {unknown[:5]}")
