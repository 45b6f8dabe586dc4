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
"""The rollout replica "hf": one server actor per training rank (verl/workers/rollout/replica.py)."""

import asyncio

import ray
from verl.workers.rollout.replica import RolloutReplica

from gad_verl.errors import GadConfigError
from gad_verl.rollout.hf_server import HFServer


def server_name(replica_rank: int) -> str:
    """Name of the Ray actor that serves replica ``replica_rank``."""
    return f"hf_server_{replica_rank}_0"


class HFReplica(RolloutReplica):
    """Launches :class:`HFServer` on the node of its training worker."""

    async def launch_servers(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            GadConfigError: If tensor, pipeline or data parallelism inside a replica is asked for.
        """
        if self.world_size != 1:
            raise GadConfigError(
                "actor_rollout_ref.rollout.name=hf serves one rank per replica: set tensor_model_parallel_size, "
                "data_parallel_size and pipeline_model_parallel_size of actor_rollout_ref.rollout to 1, or use vllm"
            )
        node_id = await self.workers[0].__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
        server = (
            ray.remote(HFServer)
            .options(
                name=server_name(self.replica_rank),
                scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False),
                max_concurrency=self.max_concurrency,
            )
            .remote(self.config, self.model_config, self.replica_rank)
        )
        await server.ping.remote()
        self.servers = [server]
        self._server_handle = server
        self._server_address = server_name(self.replica_rank)

    async def sleep(self) -> None:
        await asyncio.gather(*[server.sleep.remote() for server in self.servers])
