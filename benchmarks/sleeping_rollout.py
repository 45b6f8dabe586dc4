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
"""Makes the rollout "hf" and the student's update as slow as those of a large model. For async.py.

Loaded in every process of a run by ``VERL_USE_EXTERNAL_MODULES=sleeping_rollout``. The server sleeps for each token,
each request by itself (an engine with room for all of them), and can be aborted and asked for the rest. The length of
an answer depends on its prompt and session alone, so that all modes have the same work.
"""

import asyncio
import hashlib
import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from statistics import NormalDist
from types import ModuleType
from typing import Any

import wrapt

# Seconds of the mean answer, seconds of a training step, and the spread of the lengths (of their logarithm).
GENERATION, TRAINING, SPREAD = "GAD_BENCH_GENERATION_S", "GAD_BENCH_TRAINING_S", "GAD_BENCH_SPREAD"
UPDATES = "GAD_BENCH_UPDATES"


def length_of(seed: str, limit: int, spread: float) -> int:
    """Tokens of an answer, log-normal around a quarter of the limit, at least 3 and at most the limit.

    Args:
        seed: Says which answer it is.
        limit: Longest answer.
        spread: Standard deviation of the logarithm.
    """
    digest = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=6).digest(), "big")
    place = (digest + 0.5) / 2**48
    return max(3, min(limit, round(limit / 4 * math.exp(spread * NormalDist().inv_cdf(place)))))


def _plan(whole: int) -> list[int]:
    """The first two tokens of an answer, which say how long it is to become: a server that is asked for the rest of an
    answer sees nothing else of it."""
    return [1 + whole // 100, 1 + whole % 100]


def _planned(tokens: list[int]) -> int:
    return 100 * (tokens[0] - 1) + tokens[1] - 1


def _slow_rollout(module: ModuleType) -> None:
    seconds, spread = float(os.environ[GENERATION]), float(os.environ[SPREAD])
    asked: Counter[str] = Counter()

    async def generate(
        self: Any, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **_: Any
    ) -> Any:
        async with self._gate:
            await self._gate.wait_for(lambda: self._is_open or self._sends_away)
        if not self._is_open:
            return module._output(module._NOTHING, None)
        limit = self.config.response_length
        already = limit - int(sampling_params.get("max_tokens", limit))
        if already:
            whole, ids = _planned(prompt_ids[len(prompt_ids) - already :]), []
        else:
            prompt = str(prompt_ids)
            whole = length_of(f"{prompt}/{asked[prompt] % self.config.n}", limit, spread)
            asked[prompt] += 1
            ids = _plan(whole)
        version, end = self.global_steps, min(self._stop_token_ids)
        while already + len(ids) < whole and self._is_open:
            await asyncio.sleep(seconds / (limit / 4))
            ids.append(end if already + len(ids) == whole - 1 else 50)
        response = module.GeneratedResponse(ids, [-5.5] * len(ids), aborted=already + len(ids) < whole)
        return module._output(response, version if ids else None)

    module.HFServer.generate = generate


def _slow_training(module: ModuleType) -> None:
    update = module.StudentTraining.train_mini_batch
    seconds = float(os.environ[TRAINING]) / int(os.environ[UPDATES])

    def slow(self: Any, *args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return update(self, *args, **kwargs)

    module.StudentTraining.train_mini_batch = slow


def _once_whole(name: str, change: Callable[[ModuleType], None]) -> None:
    """Change a module when it is imported; one whose import has led here is waited for."""
    module = sys.modules.get(name)
    if module is None:
        wrapt.register_post_import_hook(change, name)
        return

    def wait() -> None:
        while getattr(module.__spec__, "_initializing", False):
            time.sleep(0.01)
        change(module)

    threading.Thread(target=wait, daemon=True).start()


# Only where async.py set the times.
if GENERATION in os.environ:
    _once_whole("gad_verl.rollout.hf_server", _slow_rollout)
    _once_whole("gad_verl.workers.joint_update", _slow_training)
