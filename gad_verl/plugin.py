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
"""Loaded by verl in EVERY process that imports it (entry point group ``verl.plugins``).

So it must be cheap and must not break processes that do not train with GAD. It registers what verl looks up by name,
each at the moment verl imports the registry concerned, and reports its own failure: verl logs the exception of a plugin
at DEBUG only (verl/__init__.py).
"""

import logging
from collections.abc import Callable
from types import ModuleType

import wrapt

logger = logging.getLogger(__name__)


def _reported(action: Callable[[ModuleType], None], what: str) -> Callable[[ModuleType], None]:
    def run(module: ModuleType) -> None:
        try:
            action(module)
        except Exception:
            logger.exception(
                "gad_verl could not %s; stock verl goes on without it. Run `gad-verl doctor` for details.", what
            )

    return run


def _register_trainer(_: ModuleType) -> None:
    import gad_verl.trainer.modes  # noqa: F401  registers gad_sync and the asynchronous ones


def _register_replica(module: ModuleType) -> None:
    def load() -> type:
        from gad_verl.rollout.hf_replica import HFReplica

        return HFReplica

    module.RolloutReplicaRegistry.register("hf", load)


def _register_rollout(module: ModuleType) -> None:
    module._ROLLOUT_REGISTRY[("hf", "async")] = "gad_verl.rollout.hf_adapter.HFAdapter"


def _register_agent_loops(module: ModuleType) -> None:
    from gad_verl.data.thinking import AGENT_LOOP, THINKING_AGENT_LOOP

    module._agent_loop_registry[AGENT_LOOP] = {"_target_": "gad_verl.rollout.encoding_agent.EncodingAgentLoop"}
    module._agent_loop_registry[THINKING_AGENT_LOOP] = {"_target_": "gad_verl.rollout.thinking_agent.ThinkingAgentLoop"}


def _choose_interface(_: ModuleType) -> None:
    from gad_verl.workers.surroundings import choose_interface

    choose_interface()


def _correct_rows_of_text(module: ModuleType) -> None:
    from gad_verl.workers.rows_of_text import correct_rows_of_text

    correct_rows_of_text(module)


def _register_platform() -> None:
    from gad_verl.cpu.register import register_cpu_platform

    register_cpu_platform()


def load() -> None:
    """Register everything. Called once, at the end of ``import verl``."""
    wrapt.register_post_import_hook(_reported(_register_trainer, "register its trainer"), "verl.trainer.ppo.v1")
    wrapt.register_post_import_hook(
        _reported(_register_replica, "register its rollout server"), "verl.workers.rollout.replica"
    )
    wrapt.register_post_import_hook(
        _reported(_register_rollout, "register its rollout adapter"), "verl.workers.rollout.base"
    )
    wrapt.register_post_import_hook(
        _reported(_register_agent_loops, "register its agent loops"), "verl.experimental.agent_loop.agent_loop"
    )
    wrapt.register_post_import_hook(
        _reported(_choose_interface, "choose gloo's interface"), "verl.workers.engine_workers"
    )
    wrapt.register_post_import_hook(
        _reported(_correct_rows_of_text, "correct rows of text on Qwen2.5-VL"), "verl.models.transformers.qwen2_vl"
    )
    try:
        _register_platform()
    except Exception:
        logger.exception("gad_verl could not register its CPU platform; verl goes on without it")


load()
