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
"""What the workers of student and discriminator use."""

from gad_verl.compat.use import OVERRIDDEN, REPLACED, VerlUse

_TRAINER = "verl.trainer.ppo.v1.trainer_base"
_WORKERS = "verl.workers.engine_workers"
_FSDP = "verl.workers.engine.fsdp.transformer_impl"
_RAY = "verl.single_controller.ray"

_QWEN2_VL = "verl.models.transformers.qwen2_vl"

WORKER_GROUPS = (
    VerlUse(
        _RAY,
        "RayWorkerGroup(*, resource_pool, ray_cls_with_init, name_prefix, device_name) "
        "RayClassWithInitArgs(*, cls, config, options) RayResourcePool",
        "the discriminator's worker group",
    ),
    VerlUse(f"{_RAY}.base:RayWorkerGroup", "workers", "dead workers, folders on every node"),
    VerlUse(
        f"{_RAY}.base:ResourcePoolManager",
        "resource_pool_spec mapping get_resource_pool(self, role)",
        "GPUs of the discriminator",
    ),
    VerlUse(
        f"{_RAY}.base:ResourcePoolManager",
        "create_resource_pool",
        "the discriminator's processes start before the student's",
        REPLACED,
        read_in=_TRAINER,
    ),
    VerlUse("verl.single_controller.base.worker_group:WorkerGroup", "_dispatch_info", "data-parallel size of a group"),
    VerlUse("verl.single_controller.base.worker:Worker", "_query_dispatch_info", "data-parallel size of a group"),
    VerlUse(
        "verl.single_controller.base.decorator",
        "register(*, dispatch_mode, blocking) Dispatch make_nd_compute_dataproto_dispatch_fn(*, mesh_name)",
        "methods of the workers that the driver calls",
    ),
)

WORKER_CLASSES = (
    VerlUse(
        f"{_WORKERS}:TrainingWorker",
        "__init__(self, config) save_checkpoint(self, local_path, hdfs_path, global_step, max_ckpt_to_keep)",
        "the discriminator's worker",
        OVERRIDDEN,
        read_in=_WORKERS,
    ),
    VerlUse(f"{_WORKERS}:TrainingWorker", "loss_fn", "losses of discriminator and student", REPLACED),
    VerlUse(
        f"{_WORKERS}:TrainingWorker",
        "train_batch(self, data)",
        "the teacher's texts join the student's mini-batches",
        OVERRIDDEN,
        read_in=_WORKERS,
    ),
    VerlUse(
        f"{_WORKERS}:ActorRolloutRefWorker",
        "actor_worker_cls",
        "the teacher's texts join the student's mini-batches",
        OVERRIDDEN,
        read_in=_WORKERS,
    ),
    VerlUse(
        f"{_WORKERS}:TrainingWorker",
        "engine engine_config model_config reset set_loss_fn(self, loss_fn) "
        "load_checkpoint(self, local_path, hdfs_path, del_local_after_load)",
        "calls of the discriminator's and the student's worker",
    ),
    VerlUse(
        f"{_WORKERS}:ActorRolloutRefWorker",
        "init_model(self) compute_log_prob(self, data) update_actor(self, data) "
        "save_checkpoint(self, local_path, hdfs_path, global_step, max_ckpt_to_keep)",
        "the student under LoRA: whole adapters for the rollout, its own KL reference; texts that join an update",
        OVERRIDDEN,
        read_in=_TRAINER,
    ),
    VerlUse(
        f"{_WORKERS}:ActorRolloutRefWorker",
        "actor ref loss_fn config role",
        "losses and weights of the student, its rollout",
    ),
    VerlUse(
        "verl.experimental.separation.engine_workers:DetachActorWorker",
        "save_model_to_cpu",
        "weights with which a step of several updates began",
    ),
    VerlUse(
        _QWEN2_VL,
        "_get_input_embeds process_position_ids",
        "rows of text on Qwen2.5-VL",
        REPLACED,
        read_in=_QWEN2_VL,
    ),
    VerlUse(_QWEN2_VL, "unpack_visual_output(visual_output)", "rows of text on Qwen2.5-VL"),
    VerlUse("verl.workers.utils.losses", "sft_loss(config, model_output, data, dp_group)", "supervised steps"),
    VerlUse("verl.workers.utils.padding", "no_padding_2_padding(tensor, data)", "the loss of texts"),
    VerlUse("verl.utils.metric", "AggregationType Metric(*, aggregation, value)", "metrics of a loss by row"),
    VerlUse("verl.utils.metric.utils:AggregationType", "MEAN SUM", "metrics of a loss by row"),
    VerlUse(
        "verl.workers.config",
        "TrainingWorkerConfig(*, model_type, model_config, engine_config, optimizer_config, checkpoint_config, "
        "profiler_config) HFModelConfig RolloutConfig",
        "configuration of workers",
    ),
    VerlUse("verl.utils.config", "omega_conf_to_dataclass(config, *, dataclass_type)", "configuration of workers"),
    VerlUse("verl.workers.config.optimizer", "build_optimizer(parameters, config)", "the check of optimizers"),
    VerlUse("verl.utils.device", "get_device_id() get_torch_device()", "loss, memory of D and of the rollout hf"),
    VerlUse(
        "verl.utils.tensordict_utils",
        "get_tensordict(tensor_dict, non_tensor_dict) get(tensordict, key, *, default) "
        "get_non_tensor_data(data, key, *, default) assign_non_tensor_data(tensor_dict, key, val) "
        "index_select_tensor_dict(batch, indices) nested_tensor_from_tensor_list(tensors) "
        "assign_non_tensor(tensor_dict, *, batch_num_tokens, compute_loss, global_token_num, micro_batch_size_per_gpu, "
        "no_lora_adapter, return_model_output, return_values)",
        "batches",
    ),
    VerlUse(
        "verl.utils.seqlen_balancing",
        "calculate_workload(seqlen_list) get_seqlen_balanced_partitions(seqlen_list, k_partitions, *, equal_size)",
        "groups balanced over ranks",
    ),
)

ENGINES = (
    VerlUse(
        "verl.workers.engine.base:BaseEngine",
        "train_mode(self, *, zero_grad_on_exit) eval_mode(self) optimizer_zero_grad(self) optimizer_step(self) "
        "lr_scheduler_step(self) forward_backward_batch(self, data, loss_function, *, forward_only) "
        "infer_batch(self, data, *, loss_function) is_mp_src_rank_with_outputs(self) get_data_parallel_group(self) "
        "get_data_parallel_size(self)",
        "a step of the discriminator",
    ),
    VerlUse(
        "verl.workers.engine.base:EngineRegistry",
        "register(cls, *, model_type, backend, device)",
        "the discriminator's engines",
    ),
    VerlUse(
        _FSDP,
        "FSDPEngine._build_module(self) FSDPEngine._build_lora_module(self, module) "
        "FSDPEngine._build_fsdp_module(self, module) FSDPEngineWithLMHead.prepare_model_inputs(self, micro_batch) "
        "FSDPEngineWithValueHead.prepare_model_outputs(self, output, output_args, micro_batch, logits_processor_func)",
        "the discriminator: a strict head in float32, shared prompts",
        OVERRIDDEN,
    ),
    VerlUse(_FSDP, "apply_fsdp2", "the head in float32 (FSDP2)", REPLACED, read_in=_FSDP),
    VerlUse(
        "verl.utils.fsdp_utils",
        "_select_fsdp2_wrap_targets",
        "a scalar head in the place of an LM head (FSDP2)",
        REPLACED,
        read_in="verl.utils.fsdp_utils",
    ),
    VerlUse(
        "torch.distributed.fsdp",
        "MixedPrecision",
        "the head in float32 (FSDP1)",
        REPLACED,
        read_in=f"{_FSDP}:FSDPEngine._build_fsdp_module",
    ),
    VerlUse(
        f"{_FSDP}:FSDPEngine",
        "get_per_tensor_param",
        "adapters for the rollout under PEFT 0.21 and FSDP1; weights by the names of a family's files",
        REPLACED,
        read_in=_WORKERS,
    ),
    VerlUse(
        f"{_FSDP}:FSDPEngine",
        "device_mesh engine_config model_config ulysses_sequence_parallel_size use_remove_padding",
        "how the discriminator is built",
    ),
    VerlUse(
        f"{_FSDP}:FSDPEngine",
        "module optimizer optimizer_config checkpoint_manager is_param_offload_enabled _build_lr_scheduler",
        "learning rates of a stage, adapters of LoRA",
    ),
    VerlUse(f"{_FSDP}:FSDPEngine", "lr_scheduler", "learning rates of a stage", REPLACED),
    VerlUse(
        "verl.utils.checkpoint.checkpoint_manager:BaseCheckpointManager",
        "checkpoint_save_contents checkpoint_load_contents checkpoint_config previous_saved_paths",
        "weights of the KL reference, outside the rotation of checkpoints",
        REPLACED,
    ),
    VerlUse(
        "verl.models.transformers.monkey_patch",
        "apply_monkey_patch(*, model, ulysses_sp_size, use_remove_padding, use_fused_kernels, fused_kernels_backend)",
        "how the discriminator is built",
    ),
    VerlUse(
        "verl.utils.fsdp_utils",
        "get_init_weight_context_manager(*, use_meta_tensor, mesh) load_fsdp_model_to_gpu(model) "
        "offload_fsdp_model_to_cpu(model)",
        "how the discriminator is built; adapters of LoRA",
    ),
    VerlUse("verl.utils.torch_dtypes:PrecisionType", "to_dtype(precision)", "precision of the weights"),
    VerlUse("verl.utils.fs", "copy_to_local(src, *, use_shm)", "an adapter to begin with"),
    VerlUse("verl.utils.py_functional", "convert_to_regular_types(obj)", "PEFT's configuration"),
    VerlUse("verl.utils.model", "convert_weight_keys(state_dict, model)", "adapters for the rollout"),
)
