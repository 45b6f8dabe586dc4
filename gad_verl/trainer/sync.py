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
"""The trainer mode ``gad_sync``: verl's ``sync`` with a discriminator as the reward and GAD's stages.

Everything that is not GAD is inherited. The step of verl (``PPOTrainer._step_once``) calls the stages overridden here:
the reward stage updates the discriminator and writes its pre-update scores; the stages after it do nothing in the
supervised phases; the actor stage trains on the teacher's text there.
"""

import logging
from pathlib import Path
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug import marked_timer
from verl.utils.model import get_generation_config

from gad_verl.config import StageOptimConfig, load_gad_config
from gad_verl.core import Phase
from gad_verl.data.tokens import SequenceBuilder, stop_token_ids
from gad_verl.discriminator.worker_group import DiscriminatorGroup
from gad_verl.errors import GadStalledError
from gad_verl.trainer import (
    estimators,  # noqa: F401  registers the estimator gad_process with verl
    metrics_file,
)
from gad_verl.trainer.adversary import Adversary
from gad_verl.trainer.checkpoint_stage import DISCRIMINATOR_FOLDER, CheckpointStageMixin
from gad_verl.trainer.data_reload import TrainingDataMixin
from gad_verl.trainer.ending_stage import EndingStageMixin
from gad_verl.trainer.metrics import phase_metrics
from gad_verl.trainer.reward_stage import PendingReward, RewardStageMixin
from gad_verl.trainer.supervised_stage import SupervisedStageMixin
from gad_verl.trainer.toolbox import Toolbox
from gad_verl.trainer.validation import ValidationRecord
from gad_verl.trainer.watchdog import Watchdog, watched
from gad_verl.workers.student import POLICY_LOSS, SUPERVISED_LOSS, StudentWorker

logger = logging.getLogger(__name__)

DISCRIMINATOR = "discriminator"
DISCRIMINATOR_POOL = "discriminator_pool"

# Names of the learning-rate stages, in checkpoints.
_STAGE_WARMUP, _STAGE_ADVERSARIAL, _STAGE_SEQKD = "warmup", "adversarial", "seqkd"


class _ColocatedReward:
    """verl's reward loop manager, seen as one whose reward is computed after the rollout: that opens the reward stage.

    With ``reward_loop_worker_handles`` None, verl's step and validation let the rollout sleep and call
    ``_compute_reward_colocate`` (trainer_base.py).
    """

    reward_loop_worker_handles = None

    def __init__(self, manager: Any) -> None:
        self.manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self.manager, name)


@register_trainer("gad_sync")
class GadTrainerSync(
    RewardStageMixin, SupervisedStageMixin, EndingStageMixin, CheckpointStageMixin, TrainingDataMixin, PPOTrainerSync
):
    """GAD on verl's synchronous trainer. Configured by ``gad_trainer.yaml``.

    The stages of a step stand in the mixins; here is what holds them together: set-up, stages, decisions.
    """

    def __init__(self, config: DictConfig) -> None:
        self.gad_config = load_gad_config(config)
        # While verl sets the trainer up, each finished component becomes one more attribute.
        self.watchdog = Watchdog(self.gad_config.watchdog, self._watched_actors, progress=lambda: len(vars(self)))
        super().__init__(config)
        self.discriminator: DiscriminatorGroup | None = None
        self.adversary: Adversary | None = None
        self.toolbox = Toolbox(self.gad_config)
        self._entered_stage: str | None = None
        self._kl_reference: str | None = None
        self._pending: PendingReward | None = None
        self._step_student_rows: list[tuple[list[int], list[int]]] = []
        self._validation = ValidationRecord()
        self._replicas_asleep = False
        self._checked_prompts = False

    # ------------------------------ verl's own mode ------------------------------

    @property
    def trainer_mode(self) -> str:
        """verl compares the mode with the literal "sync" in six places; this trainer has its semantics."""
        return "sync"

    @trainer_mode.setter
    def trainer_mode(self, _: str) -> None:
        """verl assigns the registered name in ``__init__``."""

    # ------------------------------ set-up ------------------------------

    def init(self) -> None:
        # Early, so that nobody's request is lost who asks while the models are loaded.
        self._stop_file.clear()
        self.watchdog.start()
        self._ending_with_reason(super().init)

    def fit(self, agent_loop_manager: Any) -> None:
        file = metrics_file.file_logger_path(self.config)
        self._logged_before = metrics_file.lines_until(file, self.global_steps)
        self.toolbox.open_record(
            Path(self.config.trainer.default_local_dir).absolute(),
            self.global_steps or None,
            OmegaConf.to_container(self.config, resolve=True),
            file,
        )
        finished = False
        try:
            self._ending_with_reason(super().fit, agent_loop_manager)
            finished = self._asked_to_end is None
        finally:
            self.toolbox.close_record(finished)
            self.watchdog.stop()
        if self._asked_to_end is not None:
            self._stop_file.confirm(self._asked_to_end)

    def on_validate_begin(self) -> None:
        self._restore_logged_lines()
        super().on_validate_begin()

    def on_train_begin(self) -> None:
        self._restore_logged_lines()
        self._training_began = True
        super().on_train_begin()

    def _restore_logged_lines(self) -> None:
        """Write what a resumed run had logged before: verl's file logger begins an empty file."""
        metrics_file.restore(self.logger, self._logged_before)
        self._logged_before = []

    def _ending_with_reason(self, call: Any, *args: Any) -> None:
        """Replace an error that the watchdog provoked by the reason it found."""
        try:
            call(*args)
        except GadStalledError:
            raise
        except Exception as error:
            if self.watchdog.failure is not None:
                raise GadStalledError(self.watchdog.failure) from error
            raise

    def _watched_actors(self) -> dict[str, Any]:
        actors: dict[str, Any] = {}

        def add(name: str, handles: Any) -> None:
            actors.update({f"{name} {rank}": handle for rank, handle in enumerate(handles or [])})

        add("student", getattr(getattr(self, "actor_rollout_wg", None), "workers", None))
        add("discriminator", getattr(getattr(self, "discriminator", None), "workers", None))
        add("rollout server", getattr(getattr(self, "llm_server_manager", None), "server_handles", None))
        add("agent loop", getattr(getattr(self, "agent_loop_manager", None), "agent_loop_workers", None))
        return actors

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        buffer.poll_interval = self.gad_config.replay_poll_interval_s
        wait = buffer._wait_for_next_poll
        last_progress: list[Any] = [None]

        def watched_wait(partition_id: str, last_debug_time: float) -> float:
            self.watchdog.check()
            progress = (len(buffer.partitions[partition_id]), len(buffer.finished_keys[partition_id]))
            if progress != last_progress[0]:
                last_progress[0] = progress
                self.watchdog.beat("gen")
            return wait(partition_id, last_debug_time)

        buffer._wait_for_next_poll = watched_wait
        return buffer

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        self.schedule = self.gad_config.build_schedule(self.total_training_steps, self.steps_per_epoch)
        logger.info("stages: %s", self.schedule)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in self.role_worker_mapping:
            if "actor" in str(role):
                self.role_worker_mapping[role] = ray.remote(StudentWorker)
        manager = self.resource_pool_manager
        if self._has_discriminator and self.gad_config.discriminator_n_gpus_per_node > 0:
            manager.resource_pool_spec[DISCRIMINATOR_POOL] = [
                self.gad_config.discriminator_n_gpus_per_node
            ] * self.gad_config.discriminator_nnodes
            manager.mapping[DISCRIMINATOR] = DISCRIMINATOR_POOL
        else:
            manager.mapping[DISCRIMINATOR] = "global_pool"
        if self._has_discriminator:
            create_pools = manager.create_resource_pool

            def create_and_spawn() -> None:
                create_pools()
                self._spawn_discriminator()

            manager.create_resource_pool = create_and_spawn

    def _spawn_discriminator(self) -> None:
        """Start its processes before the student's: they import verl while student and rollout are set up."""
        pool = self.resource_pool_manager.get_resource_pool(DISCRIMINATOR)
        self.discriminator = DiscriminatorGroup(self.config, self.gad_config, pool, self.total_training_steps)

    def _setup(self) -> None:
        super()._setup()
        self.reward_loop_manager = _ColocatedReward(self.reward_loop_manager)
        data = self.config.data
        template_kwargs = dict(data.get("apply_chat_template_kwargs", {}) or {})
        model_config = self.config.actor_rollout_ref.model
        generation_config = get_generation_config(
            model_config.path, trust_remote_code=model_config.get("trust_remote_code", False)
        )
        lengths = (data.max_prompt_length, data.max_response_length)
        self._student_builder = SequenceBuilder(
            self.tokenizer, *lengths, stop_token_ids(self.tokenizer, generation_config), template_kwargs
        )
        self._reader_builder = self._student_builder
        if self._has_discriminator:
            self._start_discriminator(lengths, template_kwargs)
        if self._resume_folder is not None:
            self.toolbox.load(self._resume_folder, self.adversary)

    @property
    def _has_discriminator(self) -> bool:
        return self.gad_config.stage != "seqkd"

    def _start_discriminator(self, lengths: tuple[int, int], template_kwargs: dict[str, Any]) -> None:
        self.discriminator.load_model()
        self.adversary = Adversary(self.discriminator, self.gad_config)
        if self.config.discriminator.model.path != self.config.actor_rollout_ref.model.path:
            self._reader_builder = SequenceBuilder(self.discriminator.tokenizer, *lengths, None, template_kwargs)
        if self._resumed_from is not None:
            self.discriminator.load(self._resumed_from / DISCRIMINATOR_FOLDER)

    def get_reward_handles(self) -> Any:
        """No rule-based reward while the rollouts stream: the reward is the discriminator's score."""
        return None

    # ------------------------------ stages ------------------------------

    @property
    def phase(self) -> Phase:
        """Phase of the current step."""
        return self.schedule.phase(max(1, self.global_steps))

    @property
    def _epoch(self) -> int:
        return (max(1, self.global_steps) - 1) // self.steps_per_epoch

    def _stage_of(self, phase: Phase) -> tuple[str, StageOptimConfig]:
        if phase is Phase.SEQKD:
            return _STAGE_SEQKD, self.gad_config.warmup
        if phase.is_warmup:
            return _STAGE_WARMUP, self.gad_config.warmup
        return _STAGE_ADVERSARIAL, self.gad_config.adversarial

    def _stage_steps(self, stage: str) -> int:
        """Horizon of the student's schedule: a stage of its own, or the run where the optimizer goes on."""
        if self.gad_config.stage != "auto" or not self.gad_config.reset_optimizer_at_switch:
            return self.total_training_steps
        warmup = self.schedule.warmup_steps
        return warmup if stage == _STAGE_WARMUP else self.total_training_steps - warmup

    def _enter_stage(self) -> None:
        """Learning rates, losses and the KL reference where a stage begins. The rollout is asleep."""
        stage, _ = self._stage_of(self.phase)
        is_switch = self._entered_stage is not None and self._entered_stage != stage
        if self._entered_stage != stage:
            reset = self._entered_stage is None or self.gad_config.reset_optimizer_at_switch
            self._begin_rates(reset)
            # A student that starts from an adapter is its own reference; without one, model.path is.
            starts_adapted = self._entered_stage is None and stage == _STAGE_ADVERSARIAL and self._starts_from_adapter
            if (is_switch or starts_adapted) and self._wants_new_reference:
                name = f"kl_reference_step_{self.global_steps - 1}"
                path = str(Path(self.config.trainer.default_local_dir).absolute() / name)
                self.actor_rollout_wg.save_student_weights(path)
                self.actor_rollout_wg.load_reference_weights(path)
                self._kl_reference = name
            self._entered_stage = stage
            text = f"stage {stage} begins, learning rate of the student {self._actor_lr:g}"
            logger.info("step %d: %s", self.global_steps, text)
            self.toolbox.note(self.global_steps, "schedule", "stage", "info", text, {"actor_lr": self._actor_lr})
        else:
            self._apply_factors()
        self.toolbox.apply_knobs(self.adversary)
        self.actor_rollout_wg.use_loss(SUPERVISED_LOSS if self.phase.trains_student_supervised else POLICY_LOSS)

    @property
    def _actor_lr(self) -> float:
        """Peak learning rate of the student in this stage, without factors."""
        rate = self._stage_of(self.phase)[1].actor_lr
        return self.config.actor_rollout_ref.actor.optim.lr if rate is None else rate

    @property
    def _wanted_factors(self) -> dict[str, float]:
        """Factors of the learning rates in this step."""
        knobs = self.toolbox.knobs
        trust = self.toolbox.trust_factor if self.phase is Phase.ADVERSARIAL else None
        actor = knobs["actor_lr_factor"] * (1.0 if trust is None else trust)
        return {"actor": actor, "discriminator": knobs["discriminator_lr_factor"]}

    def _begin_rates(self, reset_optimizer: bool) -> None:
        """Give the learning rates of a stage to the workers."""
        self.toolbox.applied_factors = {}
        self._apply_factors(reset_optimizer)

    def _apply_factors(self, reset_optimizer: bool = False) -> None:
        """Give the workers the learning rates that have changed; the others are not disturbed at their work."""
        wanted, applied = self._wanted_factors, self.toolbox.applied_factors
        stage, rates = self._stage_of(self.phase)
        if wanted["actor"] != applied.get("actor"):
            rate = self._actor_lr * wanted["actor"]
            self.actor_rollout_wg.begin_stage(rate, self._stage_steps(stage), reset_optimizer)
        if self._has_discriminator and wanted["discriminator"] != applied.get("discriminator"):
            rate = rates.discriminator_lr
            rate = self.config.discriminator.optim.lr if rate is None else rate
            self.discriminator.begin_stage(rate * wanted["discriminator"], self.total_training_steps)
        self.toolbox.applied_factors = wanted

    @property
    def _wants_new_reference(self) -> bool:
        return self.use_reference_policy and self.gad_config.kl_reference == "warmed_up"

    @property
    def _starts_from_adapter(self) -> bool:
        return self.config.actor_rollout_ref.model.get("lora_adapter_path") is not None

    def on_sample_end(self) -> None:
        super().on_sample_end()
        self._replicas_asleep = True
        self._enter_stage()

    def on_step_end(self) -> None:
        self.watchdog.beat("update_weights")
        if self.phase is Phase.SEQKD and not self._validates_after_this_step():
            return
        super().on_step_end()
        self._replicas_asleep = False

    def _validates_after_this_step(self) -> bool:
        frequency = self.config.trainer.test_freq
        return frequency > 0 and (self.global_steps >= self.total_training_steps or self.global_steps % frequency == 0)

    # ------------------------------ the step ------------------------------

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        metrics.update(phase_metrics(self.phase))
        seqkd = self.phase is Phase.SEQKD
        batch = self._step_seqkd(metrics, timing_raw) if seqkd else super().step(metrics, timing_raw)
        metrics.update(self.data_metrics())
        # Before verl saves: what is decided by this step's metrics belongs to its checkpoint.
        self._decide_by(metrics)
        return batch

    @watched
    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        if self._pending is not None:
            self._receive_scores(metrics)
            with marked_timer("wait_discriminator_step", timing_raw, color="brown"):
                self._finish_update(metrics)
        return batch

    # ------------------------------ stages that the supervised phases leave out ------------------------------

    @watched
    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        if self.phase is not Phase.ADVERSARIAL:
            return batch
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    @watched
    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is not Phase.ADVERSARIAL:
            return batch
        return super()._compute_old_log_prob(batch, metrics)

    @watched
    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is not Phase.ADVERSARIAL:
            return batch
        return super()._compute_ref_log_prob(batch, metrics)

    @watched
    def _compute_values(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is not Phase.ADVERSARIAL:
            return batch
        return super()._compute_values(batch, metrics)

    @watched
    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is Phase.ADVERSARIAL:
            self._receive_scores(metrics)
            return super()._compute_advantage(batch, metrics)
        # verl's metrics read these fields; the numbers made from them are dropped again (_compute_metrics).
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores"])
        names = ["advantages", "returns", *(["values"] if self.use_critic else [])]
        zeros = {name: torch.zeros_like(data["rm_scores"]) for name in names}
        tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(zeros, batch_size=len(batch))
        )
        return batch

    @watched
    def _update_critic(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is not Phase.ADVERSARIAL:
            return batch
        return super()._update_critic(batch, metrics)

    @watched
    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is Phase.ADVERSARIAL:
            if self.toolbox.trust_factor == 0:
                # A rate of 0 with none of the work, and Adam's averages are spared gradients that mean nothing.
                return batch
            self._apply_factors()
            return super()._update_actor(batch, metrics)
        if self.phase is Phase.WARMUP:
            self._update_student_supervised(self._step_student_rows, metrics)
        return batch

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        if self.phase is Phase.SEQKD:
            metrics.update({"training/global_step": global_steps, "training/epoch": epoch})
            metrics.update({f"timing_s/{name}": seconds for name, seconds in timing_raw.items()})
            metrics["perf/time_per_step"] = timing_raw["step"]
            return
        super()._compute_metrics(batch, metrics, timing_raw, global_steps=global_steps, epoch=epoch)
        if self.phase is not Phase.ADVERSARIAL:
            # Made from the zeros of _compute_advantage.
            empty = ("critic/advantages", "critic/returns", "critic/values", "critic/vf_explained_var")
            for name in [key for key in metrics if key.startswith(empty)]:
                del metrics[name]

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict, rollout_data_dir: str) -> None:
        if self.phase is not Phase.SEQKD:
            super()._log_rollout_data(batch, timing_raw, rollout_data_dir)
