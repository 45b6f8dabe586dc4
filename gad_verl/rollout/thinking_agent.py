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
"""A budget of tokens for thoughts: verl's single-turn agent loop, which ends thoughts that grow too long.

vLLM has such a budget of its own (``thinking_token_budget``), which wants a reasoning parser at start-up, and verl's
agent loops do not pass it on; this one is the same for every rollout. What is put in is no choice of the student's: it
has no loss.
"""

from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.workers.rollout.replica import TokenOutput

from gad_verl.data.thoughts import ThoughtReader
from gad_verl.rollout.encoding_agent import EncodingAgentLoop


class BudgetedServer:
    """verl's rollout servers; thoughts of more than ``budget`` tokens are ended, and the answer begins.

    Args:
        servers: verl's client.
        reader: Of the student's thoughts.
        budget: Tokens of a response after which its thoughts end.
        limit: Longest response in tokens.
    """

    def __init__(self, servers: Any, reader: ThoughtReader, budget: int, limit: int) -> None:
        self._servers, self._reader, self._budget, self._limit = servers, reader, budget, limit
        # Places of the response that the student did not choose.
        self.forced: range = range(0)

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **given: Any
    ) -> TokenOutput:
        """As verl's ``LLMServerClient.generate``, in one request or in two."""

        async def ask(ids: list[int], most: int) -> TokenOutput:
            # Servers take out of it what they read.
            params = {**sampling_params, "max_tokens": most}
            return await self._servers.generate(request_id, prompt_ids=ids, sampling_params=params, **given)

        first = await ask(prompt_ids, self._budget)
        if len(first.token_ids) < self._budget or self._reader.ends(first.token_ids):
            return first
        inside = self._reader.read(prompt_ids, first.token_ids).inside
        ending = self._reader.ending if inside else []
        begun = [*first.token_ids, *ending]
        left = self._limit - len(begun)
        if left < 1:
            return first
        self.forced = range(len(first.token_ids), len(begun))
        rest = await ask([*prompt_ids, *begun], left)
        log_probs = None
        if first.log_probs is not None and rest.log_probs is not None:
            log_probs = [*first.log_probs, *[0.0] * len(ending), *rest.log_probs]
        counts = [one.num_preempted for one in (first, rest) if one.num_preempted is not None]
        # Which experts were asked is recorded of all that a request read, what came before it too.
        return rest.model_copy(
            update={
                "token_ids": [*begun, *rest.token_ids],
                "log_probs": log_probs,
                "num_preempted": sum(counts) if counts else None,
                "extra_fields": {**rest.extra_fields, **_first_steps(first)},
            }
        )


def _first_steps(first: TokenOutput) -> dict[str, Any]:
    """The weights with which a response began."""
    return {name: first.extra_fields[name] for name in ("min_global_steps",) if name in first.extra_fields}


class ThinkingAgentLoop(EncodingAgentLoop):
    """One answer to each prompt, behind thoughts of at most ``gad.thinking.budget`` tokens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        budget, reader = self.config.gad.thinking.budget, self.encoder.thoughts
        assert budget is not None and reader is not None, "the check before a run gives this agent loop to such runs"
        self.server_manager = BudgetedServer(self.server_manager, reader, budget, self.response_length)

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> AgentLoopOutput:
        output = await super().run(sampling_params, priority, **kwargs)
        for place in self.server_manager.forced:
            if place < len(output.response_mask):
                output.response_mask[place] = 0
        return output
