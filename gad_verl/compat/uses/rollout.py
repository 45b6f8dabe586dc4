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
"""What the rollout ``hf`` and the CPU platform use."""

from gad_verl.compat.use import IMPLEMENTED, OVERRIDDEN, REPLACED, VerlUse

_WORKERS = "verl.workers.engine_workers"
_FSDP = "verl.workers.engine.fsdp.transformer_impl"
_REPLICA = "verl.workers.rollout.replica"
_AGENTS = "verl.experimental.agent_loop"
_VLLM = "verl.workers.rollout.vllm_rollout"

ROLLOUT = (
    VerlUse(
        "verl.workers.rollout.base:BaseRollout",
        "__init__(self, config, model_config, device_mesh, *args, **kwargs) resume(self, tags) release(self) "
        "update_weights(self, weights, wire_format, **kwargs)",
        "the rollout hf",
        IMPLEMENTED,
    ),
    VerlUse("verl.workers.rollout.base:BaseRollout", "config", "the rollout hf"),
    VerlUse("verl.workers.rollout.base", "_ROLLOUT_REGISTRY", "the rollout hf"),
    VerlUse(
        f"{_REPLICA}:RolloutReplicaRegistry",
        "register _registry",
        "the rollout hf, and vLLM on a CPU; rollouts that there are",
    ),
    VerlUse(f"{_REPLICA}:RolloutReplica", "launch_servers(self) sleep(self)", "the rollout hf", IMPLEMENTED),
    VerlUse(f"{_REPLICA}:RolloutReplica", "servers", "the rollout hf", REPLACED),
    VerlUse(
        f"{_REPLICA}:RolloutReplica",
        "_server_handle _server_address",
        "the rollout hf",
        REPLACED,
        read_in="verl.workers.rollout.llm_server",
    ),
    VerlUse(
        f"{_REPLICA}:RolloutReplica",
        "config model_config replica_rank workers world_size max_concurrency",
        "the rollout hf",
    ),
    VerlUse(_REPLICA, "TokenOutput(*, token_ids, log_probs, stop_reason, extra_fields)", "the rollout hf"),
    VerlUse(f"{_AGENTS}.agent_loop", "_agent_loop_registry AgentLoopOutput", "answers that come encoded"),
    VerlUse(
        f"{_AGENTS}.agent_loop:AgentLoopOutput",
        "as_dict(self)",
        "answers that come encoded",
        OVERRIDDEN,
        read_in="verl.trainer.ppo.v1.agent_loop_tq",
    ),
    VerlUse(f"{_AGENTS}.agent_loop:AgentLoopOutput", "prompt_ids response_ids", "answers that come encoded"),
    VerlUse(
        f"{_AGENTS}.single_turn_agent_loop:SingleTurnAgentLoop",
        "__init__(self, *args, **kwargs) run(self, sampling_params, priority, **kwargs)",
        "answers that come encoded, and the budget of thoughts",
        OVERRIDDEN,
        read_in=f"{_AGENTS}.agent_loop",
    ),
    VerlUse(f"{_AGENTS}.single_turn_agent_loop:SingleTurnAgentLoop", "response_length", "the budget of thoughts"),
    VerlUse(f"{_AGENTS}.agent_loop:AgentLoopBase", "config tokenizer", "answers that come encoded"),
    VerlUse(
        f"{_AGENTS}.agent_loop:AgentLoopBase",
        "server_manager",
        "the budget of thoughts",
        REPLACED,
        read_in=f"{_AGENTS}.single_turn_agent_loop",
    ),
    VerlUse(f"{_REPLICA}:TokenOutput", "extra_fields", "the budget of thoughts"),
    VerlUse("verl.utils.model", "get_hf_auto_model_class(hf_config)", "the rollout hf loads the student's class"),
    VerlUse(
        "verl.workers.rollout.utils",
        "ensure_async_iterator(iterable)",
        "weights of a checkpoint engine come one by one",
    ),
    VerlUse(
        "verl.checkpoint_engine.base:CheckpointEngine",
        "build_topology(cls, actor_wg_world_size, rollout_world_size, metadata) finalize(self) "
        "init_process_group(self, **kwargs) prepare(self) receive_weights(self, global_steps) "
        "send_weights(self, weights, global_steps)",
        "weights over gloo",
        IMPLEMENTED,
    ),
    VerlUse("verl.checkpoint_engine.base:CheckpointEngineRegistry", "register(backend)", "weights over gloo"),
    VerlUse("verl.utils.device", "get_device_name()", "where the rollout hf generates"),
)

CPU = (
    VerlUse(
        "verl.plugin.platform.platform_base:PlatformBase",
        "device_name vendor_name device_module is_available(self) is_platform_available(self, use_smi_check) "
        "current_device(self) device_count(self) set_device(self, device_index) synchronize(self, device_index) "
        "manual_seed(self, seed) manual_seed_all(self, seed) set_allocator_settings(self, settings) empty_cache(self) "
        "get_device_capability(self, device_index) communication_backend_name(self) visible_devices_envvar(self) "
        "ray_resource_name(self) ray_noset_envvars(self) is_ipc_supported(self) rollout_env_vars(self) "
        "nvtx_range(self, msg) profiler_start(self) profiler_stop(self) cudart(self)",
        "the CPU platform, and which accelerator the rollout hf sees",
        IMPLEMENTED,
    ),
    VerlUse(
        "verl.plugin.platform", "get_platform() set_platform(platform)", "the CPU where a configuration asks for it"
    ),
    VerlUse(
        "verl.plugin.platform.platform_manager:PlatformRegistry",
        "get(cls, name) register(cls, platform) registered_names",
        "the CPU platform",
    ),
    VerlUse(
        "verl.plugin.platform.platform_manager",
        "_current_platform",
        "the CPU platform",
        REPLACED,
        read_in="verl.plugin.platform.platform_manager",
    ),
    VerlUse(
        "verl.utils.distributed",
        "initialize_global_process_group_ray",
        "gloo on the CPU platform",
        REPLACED,
        read_in=_WORKERS,
    ),
    VerlUse(
        "verl.utils.distributed",
        "initialize_global_process_group",
        "gloo on the CPU platform",
        REPLACED,
        read_in="verl.trainer.sft_trainer",
    ),
    VerlUse("verl.utils.model", "load_valuehead_model", "verl's critic on the CPU platform", REPLACED, read_in=_FSDP),
    VerlUse("verl.third_party", "", "the version of vLLM's CPU build is told before this is imported"),
)

# Importing these needs vLLM.
VLLM_USES = (
    VerlUse(
        f"{_VLLM}.vllm_async_server:vLLMReplica",
        "__init__(self, replica_rank, config, model_config, gpus_per_node, is_reward_model, is_teacher_model, "
        "name_suffix)",
        "vLLM on a CPU",
        OVERRIDDEN,
    ),
    VerlUse(f"{_VLLM}.vllm_async_server:vLLMReplica", "server_class", "vLLM on a CPU", REPLACED),
    VerlUse(
        f"{_VLLM}.vllm_async_server:vLLMHttpServer",
        "_get_worker_extension_cls(self)",
        "weights of vLLM on a CPU",
        OVERRIDDEN,
    ),
    VerlUse(
        f"{_VLLM}.utils:vLLMColocateWorkerExtension", "__new__(cls, **kwargs)", "weights of vLLM on a CPU", OVERRIDDEN
    ),
)
