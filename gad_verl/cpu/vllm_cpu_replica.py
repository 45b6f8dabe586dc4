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
"""verl's vLLM replica with a worker extension for the CPU build."""

from typing import Any

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica


class CpuVLLMHttpServer(vLLMHttpServer):
    """Names the extension that vLLM's worker process inherits from."""

    def _get_worker_extension_cls(self) -> str:
        return "gad_verl.cpu.vllm_cpu_extension.CpuWorkerExtension"


class CpuVLLMReplica(vLLMReplica):
    """Launches :class:`CpuVLLMHttpServer`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CpuVLLMHttpServer)
