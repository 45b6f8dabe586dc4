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
"""The rollout "hf" is interrupted and goes on: what was written so far is kept, and nothing is asked twice."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from gad_verl.rollout.hf_server import HFServer

PROMPTS = [[5, 6, 7], [40], [9, 8, 7, 6, 5, 4, 3, 2, 1], [100, 101]]
LENGTH = 24
GREEDY = {"temperature": 0.0, "logprobs": True}


class StopAfter(threading.Event):
    """Asks to stop at the k-th token of a batch, as an abort would at some moment; ``None`` never does."""

    def __init__(self, tokens: int | None) -> None:
        super().__init__()
        self._left = tokens

    def is_set(self) -> bool:
        if self._left is None:
            return super().is_set()
        self._left -= 1
        return self._left <= 0


@pytest.fixture
def server(tiny_folder: Path) -> HFServer:
    from verl.workers.config import HFModelConfig, RolloutConfig

    sizes: dict[str, Any] = {"prompt_length": 16, "response_length": LENGTH, "max_num_seqs": 8, "ignore_eos": True}
    rollout = RolloutConfig(name="hf", dtype="float32", free_cache_engine=False, **sizes)
    made = HFServer(rollout, HFModelConfig(path=str(tiny_folder / "model")), 0)
    with torch.no_grad():
        made.model.lm_head.weight.mul_(20)
    return made


async def to_the_end(server: HFServer, prompt: list[int], stops: list[int]) -> tuple[list[int], list[float], list[Any]]:
    """As verl's FullyAsyncLLMServerClient: ask, and ask again for the rest. Batches are stopped as ``stops`` say."""
    ids: list[int] = []
    log_probs: list[float] = []
    versions: list[Any] = []
    while True:
        output = await server.generate(prompt + ids, {**GREEDY, "max_tokens": LENGTH - len(ids)}, "r")
        ids += output.token_ids
        log_probs += output.log_probs
        versions.append(output.extra_fields["global_steps"])
        if output.stop_reason != "aborted":
            return ids, log_probs, versions
        server._stop = StopAfter(stops.pop(0) if stops else None)
        server.global_steps += 1


@pytest.mark.parametrize("stops", [[1], [5], [3, 1, 7], [LENGTH]])
def test_a_response_in_pieces_is_the_whole_response(server: HFServer, stops: list[int]) -> None:
    async def scenario() -> None:
        for prompt in PROMPTS:
            server.global_steps, server._stop = 0, StopAfter(None)
            whole, log_probs, _ = await to_the_end(server, prompt, [])
            server.global_steps, server._stop = 0, StopAfter(stops[0])
            pieces, of_pieces, versions = await to_the_end(server, prompt, stops[1:])
            assert pieces == whole and len(whole) == LENGTH
            assert of_pieces == pytest.approx(log_probs, abs=1e-4)
            # Each piece says which weights wrote it; a stop behind the last token is none.
            assert versions == list(range(1 + sum(one < LENGTH for one in stops)))

    asyncio.run(scenario())


def test_requests_with_other_limits_share_a_batch(server: HFServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from gad_verl.rollout import hf_server

    batches = []
    generate = hf_server.generate_batch

    def noted(model: Any, prompts: Any, *args: Any) -> Any:
        batches.append(len(prompts))
        return generate(model, prompts, *args)

    monkeypatch.setattr(hf_server, "generate_batch", noted)

    async def scenario() -> None:
        asked = [(prompt, 3 + 4 * place) for place, prompt in enumerate(PROMPTS)]
        alone = [await server.generate(prompt, {**GREEDY, "max_tokens": limit}, "r") for prompt, limit in asked]
        batches.clear()
        together = await asyncio.gather(
            *[server.generate(prompt, {**GREEDY, "max_tokens": limit}, "r") for prompt, limit in asked]
        )
        assert batches == [len(PROMPTS)]
        for one, other, (_, limit) in zip(alone, together, asked, strict=True):
            assert one.token_ids == other.token_ids and len(one.token_ids) == limit == len(other.log_probs)
            assert one.stop_reason == other.stop_reason == "completed"

    asyncio.run(scenario())


def test_while_the_gate_is_closed_requests_wait_or_are_sent_away(server: HFServer) -> None:
    async def scenario() -> None:
        server.global_steps = 3
        running = [asyncio.create_task(server.generate(prompt, dict(GREEDY), "r")) for prompt in PROMPTS]
        await asyncio.sleep(0)
        await server.abort_all_requests()
        early = await asyncio.gather(*running)
        assert {one.stop_reason for one in early} == {"aborted"}
        # No weights have written a token of a response that has none.
        assert {one.extra_fields["global_steps"] for one in early if not one.token_ids} <= {None}
        waiting = asyncio.create_task(server.generate(PROMPTS[0], dict(GREEDY), "r"))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        # It leaves the rollout: who waits is sent away by the next abort at the latest.
        await server.resume_generation()
        assert len((await waiting).token_ids) == LENGTH
        await server.abort_all_requests(reject_request=True)
        away = await server.generate(PROMPTS[0], dict(GREEDY), "r")
        assert away.stop_reason == "aborted" and away.token_ids == []
        await server.resume_generation()
        back = await server.generate(PROMPTS[0], dict(GREEDY), "r")
        assert back.stop_reason == "completed" and back.extra_fields["global_steps"] == 3
        for method in ("release_kv_cache", "resume_kv_cache", "clear_kv_cache"):
            await getattr(server, method)()

    asyncio.run(scenario())


def test_those_who_wait_at_the_gate_are_sent_away_too(server: HFServer) -> None:
    """A replica that held requests back, and then leaves: nobody opens the gate for them."""

    async def scenario() -> None:
        await server.abort_all_requests()
        waiting = asyncio.create_task(server.generate(PROMPTS[0], dict(GREEDY), "r"))
        await asyncio.sleep(0)
        await server.abort_all_requests(reject_request=True)
        done, _ = await asyncio.wait([waiting], timeout=5)
        assert done, "the request waits for a gate that stays closed"
        assert waiting.result().stop_reason == "aborted"

    asyncio.run(scenario())
