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
"""Weights over gloo arrive as they were sent, for every size of a bucket, number of receivers and type."""

import asyncio
import threading
from typing import Any

import pytest
import torch
from verl.checkpoint_engine.base import CheckpointEngineRegistry

from gad_verl.rollout.gloo_engine import GlooCheckpointEngine

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64)


def weights(seed: int) -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(12):
        shape = torch.randint(1, 9, (number % 3 + 1,), generator=generator).tolist()
        tensor = (100 * torch.randn(shape, generator=generator)).to(TYPES[number % len(TYPES)])
        found.append((f"model.layers.{number}.weight", tensor))
    # Not contiguous, and a scalar.
    return [*found, ("transposed", torch.randn(3, 5, generator=generator).T), ("scalar", torch.tensor(2.5))]


def transfer(bucket: int, training: int, rollout: int, sent: list[tuple[str, torch.Tensor]]) -> list[Any]:
    """One transfer as verl's manager makes it: a thread per worker. Returns what each worker of the rollout got."""
    engines = [GlooCheckpointEngine(bucket, is_master=rank == 0, timeout_s=30) for rank in range(training)]
    receivers = [GlooCheckpointEngine(bucket, timeout_s=30) for _ in range(rollout)]
    metadata = [one.prepare() for one in [*engines, *receivers]]
    kwargs = GlooCheckpointEngine.build_topology(training, rollout, metadata)
    got: list[Any] = [None] * rollout
    gathered = [0] * training

    def member(side: int, place: int) -> None:
        engine = (engines, receivers)[side][place]
        engine.init_process_group(**{name: values[place] for name, values in kwargs[side].items()})

        def gather() -> Any:
            for named in sent:
                gathered[place] += 1
                yield named

        async def receive() -> list[Any]:
            return [named async for named in engine.receive_weights(global_steps=1)]

        if side == 0:
            asyncio.run(engine.send_weights(gather(), global_steps=1))
        else:
            got[place] = asyncio.run(receive())
        engine.finalize()

    members = [(0, place) for place in range(training)] + [(1, place) for place in range(rollout)]
    threads = [threading.Thread(target=member, args=one) for one in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # Gathering the weights is a collective of the training: every rank goes through all of them.
    assert gathered == [len(sent)] * training
    return got


@pytest.mark.parametrize(("bucket", "training", "rollout"), [(1, 1, 1), (100, 2, 1), (1 << 20, 1, 3)])
def test_what_is_sent_arrives(bucket: int, training: int, rollout: int) -> None:
    sent = weights(bucket)
    for got in transfer(bucket, training, rollout, sent):
        assert [name for name, _ in got] == [name for name, _ in sent]
        for (_, there), (_, here) in zip(got, sent, strict=True):
            assert there.dtype == here.dtype and there.shape == here.shape and torch.equal(there, here)


def test_verl_finds_it_by_its_plugin_point(compose_config: Any) -> None:
    engine = compose_config("gad_cpu").actor_rollout_ref.rollout.checkpoint_engine
    assert engine.custom_backend_module == GlooCheckpointEngine.__module__
    assert CheckpointEngineRegistry.get(engine.backend) is GlooCheckpointEngine
