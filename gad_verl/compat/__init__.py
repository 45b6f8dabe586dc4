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
"""The one list of what gad_verl uses of verl beyond its documented interfaces, checked at start.

verl rearranges its private classes from release to release. A mismatch ends a run with one readable error before
anything is loaded, instead of an AttributeError in the middle of it.
"""

import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass

from packaging.version import Version

from gad_verl.compat.source import find_source, read_names
from gad_verl.errors import GadCompatError

VERL_AT_LEAST = "0.9.1"
VERL_BELOW = "0.10"


@dataclass(frozen=True)
class VerlUse:
    """One thing that is used.

    Args:
        module: Module of verl.
        names: Attributes; dots reach into classes.
        why: What for.
    """

    module: str
    names: tuple[str, ...]
    why: str


# verl's trainer imports it and does not declare it.
_UNDECLARED = "transfer_queue"

_TRAINER = "verl.trainer.ppo.v1.trainer_base"

VERL_USES = (
    VerlUse(
        _TRAINER,
        (
            "register_trainer",
            "TRAINER_REGISTRY",
            "PPOTrainer._setup",
            "PPOTrainer._init_dataloader",
            "PPOTrainer._init_resource_pool_mgr",
            "PPOTrainer._build_replay_buffer",
            "PPOTrainer._step_once",
            "PPOTrainer._next_train_batch",
            "PPOTrainer._submit_batch_to_rollout",
            "PPOTrainer._compute_reward_colocate",
            "PPOTrainer._balance_batch",
            "PPOTrainer._compute_old_log_prob",
            "PPOTrainer._compute_ref_log_prob",
            "PPOTrainer._compute_values",
            "PPOTrainer._compute_advantage",
            "PPOTrainer._update_critic",
            "PPOTrainer._update_actor",
            "PPOTrainer._compute_metrics",
            "PPOTrainer._log_rollout_data",
            "PPOTrainer._validate",
            "PPOTrainer._load_checkpoint",
            "PPOTrainer._save_checkpoint",
            "PPOTrainer.get_reward_handles",
            "PPOTrainer._lengths_to_mask",
        ),
        "the stages that trainer/sync.py overrides or calls",
    ),
    VerlUse("verl.trainer.ppo.v1.trainer_sync", ("PPOTrainerSync.on_sample_end", "PPOTrainerSync.on_step_end"), "sync"),
    VerlUse(
        "verl.trainer.ppo.v1.replay_buffer",
        ("ReplayBuffer._wait_for_next_poll", "ReplayBuffer._sync_metadata_from_transfer_queue"),
        "a short poll that notices dead workers",
    ),
    VerlUse(
        "verl.workers.engine_workers",
        (
            "TrainingWorker.reset",
            "ActorRolloutRefWorker.init_model",
            "ActorRolloutRefWorker.set_loss_fn",
            "ActorRolloutRefWorker.compute_log_prob",
            "ActorRolloutRefWorker.save_checkpoint",
            "TrainingWorker.save_checkpoint",
        ),
        "the discriminator's and the student's workers",
    ),
    VerlUse(
        "verl.workers.engine.fsdp.transformer_impl",
        (
            "FSDPEngineWithValueHead",
            "FSDPEngine._build_module",
            "FSDPEngine._build_fsdp_module",
            "FSDPEngine._build_lora_module",
            "FSDPEngine._build_lr_scheduler",
            "FSDPEngine.get_per_tensor_param",
            "FSDPEngine.forward_backward_batch",
            "FSDPEngine.optimizer_zero_grad",
            "FSDPEngine.optimizer_step",
            "FSDPEngine.lr_scheduler_step",
            "FSDPEngine.train_mode",
            "FSDPEngine.eval_mode",
            "FSDPEngineWithLMHead.prepare_model_inputs",
            "FSDPEngineWithValueHead.prepare_model_outputs",
            "apply_fsdp2",
        ),
        "the discriminator's engine: strict head, scores in float32; learning rates per stage",
    ),
    VerlUse(
        "verl.single_controller.ray",
        ("RayWorkerGroup", "RayClassWithInitArgs", "RayResourcePool"),
        "the discriminator's worker group",
    ),
    VerlUse(
        "verl.single_controller.ray.base",
        ("ResourcePoolManager.create_resource_pool",),
        "the discriminator's processes start before the student's",
    ),
    VerlUse("verl.single_controller.base.worker", ("Worker._query_dispatch_info",), "data-parallel size of a group"),
    VerlUse("verl.workers.engine.base", ("EngineRegistry.register", "BaseEngine.infer_batch"), "engine registry"),
    VerlUse(
        "verl.utils.checkpoint.checkpoint_manager",
        ("BaseCheckpointManager.register_checkpoint", "find_latest_ckpt_path"),
        "weights of the KL reference, retention",
    ),
    VerlUse(
        "verl.utils.seqlen_balancing",
        ("calculate_workload", "get_seqlen_balanced_partitions"),
        "groups balanced over ranks",
    ),
    VerlUse("verl.utils.tensordict_utils", ("get_tensordict", "get_non_tensor_data", "assign_non_tensor"), "batches"),
    VerlUse("verl.workers.utils.losses", ("sft_loss", "ppo_loss"), "supervised warmup and policy loss"),
    VerlUse("verl.workers.rollout.replica", ("RolloutReplicaRegistry.register", "TokenOutput"), "the rollout hf"),
    VerlUse("verl.workers.rollout.base", ("_ROLLOUT_REGISTRY", "BaseRollout"), "the rollout hf"),
    VerlUse(
        "verl.plugin.platform.platform_manager",
        ("PlatformRegistry.register", "_current_platform"),
        "the CPU platform",
    ),
    VerlUse(
        "verl.utils.distributed",
        ("initialize_global_process_group_ray", "initialize_global_process_group"),
        "gloo on the CPU platform",
    ),
    VerlUse("verl.utils.model", ("load_valuehead_model", "get_generation_config"), "value models on the CPU platform"),
    VerlUse("verl.utils.model", ("convert_weight_keys",), "adapters of LoRA for the rollout"),
    VerlUse(
        "verl.utils.fsdp_utils",
        ("load_fsdp_model_to_gpu", "offload_fsdp_model_to_cpu"),
        "adapters of LoRA for the rollout",
    ),
    VerlUse("verl.trainer.ppo.core_algos", ("register_adv_est",), "the estimator gad_process"),
    VerlUse(
        "verl.experimental.reward_loop.reward_loop",
        ("RewardLoopManager.compute_rm_score",),
        "gad.reward.task_weight: verl's reward beside the discriminator's",
    ),
    VerlUse("verl.utils.dataset.rl_dataset", ("RLHFDataset.maybe_filter_out_long_prompts",), "rows of GAD"),
    VerlUse(_TRAINER, ("PPOTrainer._fetch_one_gen_batch",), "training files that change"),
    VerlUse(
        "verl.trainer.ppo.utils",
        ("create_rl_dataset", "create_rl_sampler"),
        "curriculum and training files that change",
    ),
    VerlUse("verl.utils.tracking", ("Tracking", "FileLogger"), "curves of a resumed run"),
    VerlUse("verl.trainer.main_ppo", ("TaskRunnerV1", "run_ppo"), "entry point"),
)

# Read by the preflight where a strategy is "megatron": importing these needs Megatron.
MEGATRON_USES = (
    VerlUse(
        "verl.workers.engine.megatron.transformer_impl",
        (
            "MegatronEngineWithValueHead.prepare_model_outputs",
            "MegatronEngine.initialize",
            "MegatronEngine._build_megatron_module",
            "MegatronEngine._build_lr_scheduler",
            "MegatronEngine.optimizer_step",
            "MegatronEngine.optimizer_zero_grad",
            "MegatronEngine.load_checkpoint",
        ),
        "the discriminator's engine on Megatron; learning rates per stage",
    ),
    VerlUse("verl.models.mcore.bridge", ("LinearForLastLayer", "make_value_model"), "the discriminator's head"),
    VerlUse(
        "verl.utils.megatron_utils",
        ("load_megatron_model_to_gpu", "offload_megatron_model_to_cpu"),
        "weights of the KL reference on Megatron",
    ),
)


def _has(module: object, dotted: str) -> bool:
    for name in dotted.split("."):
        if not hasattr(module, name):
            return False
        module = getattr(module, name)
    return True


def missing_uses(uses: tuple[VerlUse, ...] = VERL_USES) -> list[str]:
    """What the installed verl lacks, as ``module.name (why)``."""
    missing = []
    for use in uses:
        try:
            module = importlib.import_module(use.module)
        except ImportError as error:
            missing.append(f"{use.module} ({use.why}): {error}")
            continue
        missing += [f"{use.module}.{name} ({use.why})" for name in use.names if not _has(module, name)]
    return missing


def unread_uses(uses: tuple[VerlUse, ...] = VERL_USES) -> list[str]:
    """What the source of the installed verl does not show, without importing it. May name more than is missing."""
    unread = []
    for use in uses:
        source = find_source(use.module)
        names = None if source is None else read_names(source)
        unread += [f"{use.module}.{name}" for name in use.names if names is None or name not in names]
        if names is None and not use.names:
            unread.append(use.module)
    return unread


def check(uses: tuple[VerlUse, ...] = VERL_USES, quick: bool = False) -> None:
    """Raise unless the installed verl has everything that is used.

    Args:
        uses: What is used.
        quick: Read verl's source first and import only where something seems to be missing. Importing verl's trainer
            and engines takes seconds, and the process that starts a run needs neither.

    Raises:
        GadCompatError: Names the version found and wanted, and what is missing.
    """
    try:
        found = importlib.metadata.version("verl")
    except importlib.metadata.PackageNotFoundError:
        raise GadCompatError(f"verl is not installed: pip install 'verl>={VERL_AT_LEAST},<{VERL_BELOW}'") from None
    wanted = f"verl>={VERL_AT_LEAST},<{VERL_BELOW}"
    if not Version(VERL_AT_LEAST) <= Version(found) < Version(VERL_BELOW):
        raise GadCompatError(f"gad_verl works with {wanted}, but verl {found} is installed: pip install '{wanted}'")
    if quick and importlib.util.find_spec(_UNDECLARED) is not None and not unread_uses(uses):
        return
    missing = missing_uses(uses)
    if missing:
        raise GadCompatError(
            f"verl {found} lacks what gad_verl uses (wanted: {wanted}, unmodified):\n  " + "\n  ".join(missing)
        )
