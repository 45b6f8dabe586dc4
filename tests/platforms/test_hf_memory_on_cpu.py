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
"""The rollout "hf" and its memory: weights are found wherever the model went, and a server that sleeps is not asked."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from gad_verl.rollout import hf_replica
from gad_verl.rollout.hf_server import HFServer
from gad_verl.rollout.served_weights import ServedWeights


class Counting(nn.Module):
    """A weight and a buffer that is saved with it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("mean", torch.zeros(3))


def test_weights_reach_a_model_that_was_moved() -> None:
    """A move gives modules other buffers: what was noted before must not be written to."""
    model = Counting()
    served = ServedWeights(model)
    sent = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    # Of a move to a device, what a CPU can show.
    model.to(torch.float64)
    assert served.load(list(sent.items())) == []
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, sent[name].double())


@pytest.mark.parametrize("sleeps", [True, False])
def test_a_server_that_sleeps_is_not_asked(sleeps: bool) -> None:
    server = HFServer.__new__(HFServer)
    server._weights, server._worker = ServedWeights(Counting(), sleeps=sleeps), None
    server._gate, server._is_open = asyncio.Condition(), True
    before = {name: tensor.clone() for name, tensor in server._weights._model.state_dict().items()}

    async def scenario() -> None:
        await server.sleep()
        assert server._weights.awake is not sleeps
        if sleeps:
            with pytest.raises(RuntimeError, match="woke it up"):
                await server.generate([1], {}, "request")
        await server.wake_up(["weights"])
        await server.wake_up(["kv_cache"])
        assert server._weights.awake

    asyncio.run(scenario())
    for name, tensor in server._weights._model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_server_sees_the_accelerator_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.plugin.platform.platform_cuda import PlatformCUDA

    class Context:
        def get_node_id(self) -> str:
            return "node"

        def get_accelerator_ids(self) -> dict[str, list[str]]:
            return {"GPU": ["5"]}

    monkeypatch.setattr(hf_replica.ray, "get_runtime_context", Context)
    monkeypatch.setattr(hf_replica, "get_platform", PlatformCUDA)
    assert hf_replica.where_it_runs(None) == ("node", "5")
    assert hf_replica.visible_accelerator("5") == {
        "CUDA_VISIBLE_DEVICES": "5",
        "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
    }
    cpu: Any = SimpleNamespace(device_name="cpu")
    monkeypatch.setattr(hf_replica, "get_platform", lambda: cpu)
    node, accelerator = hf_replica.where_it_runs(None)
    assert (node, hf_replica.visible_accelerator(accelerator)) == ("node", {})
