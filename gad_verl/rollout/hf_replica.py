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
from typing import Any

import ray
from verl.plugin.platform import get_platform
from verl.workers.rollout.replica import RolloutReplica

from gad_verl.errors import GadConfigError
from gad_verl.rollout.hf_server import HFServer


def server_name(replica_rank: int) -> str:
    """Name of the Ray actor that serves replica ``replica_rank``."""
    return f"hf_server_{replica_rank}_0"


def where_it_runs(_: Any) -> tuple[str, str | None]:
    """Node and accelerator of a training worker, asked in its process; no accelerator on the CPU platform."""
    platform, context = get_platform(), ray.get_runtime_context()
    if platform.device_name == "cpu":
        return context.get_node_id(), None
    return context.get_node_id(), context.get_accelerator_ids()[platform.ray_resource_name()][0]


def visible_accelerator(accelerator: str | None) -> dict[str, str]:
    """Environment of a server that takes no share of an accelerator and sees that of its training worker.

    From an actor without a share Ray hides all of them, unless it is told to leave the variable alone.
    """
    if accelerator is None:
        return {}
    platform = get_platform()
    return {**dict.fromkeys(platform.ray_noset_envvars(), "1"), platform.visible_devices_envvar(): accelerator}


class HFReplica(RolloutReplica):
    """Launches :class:`HFServer` on the node of its training worker, and on its accelerator where it has one."""

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
        node_id, accelerator = await self.workers[0].__ray_call__.remote(where_it_runs)
        server = (
            ray.remote(HFServer)
            .options(
                name=server_name(self.replica_rank),
                scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False),
                max_concurrency=self.max_concurrency,
                runtime_env={"env_vars": visible_accelerator(accelerator)},
            )
            .remote(self.config, self.model_config, self.replica_rank)
        )
        await server.ping.remote()
        self.servers = [server]
        self._server_handle = server
        self._server_address = server_name(self.replica_rank)

    async def sleep(self) -> None:
        await asyncio.gather(*[server.sleep.remote() for server in self.servers])
