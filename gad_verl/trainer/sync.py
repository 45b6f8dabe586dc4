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
import time
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer
from verl.utils.metric import reduce_metrics
from verl.utils.model import get_generation_config
from verl.utils.py_functional import rename_dict

from gad_verl.config import StageOptimConfig, load_gad_config
from gad_verl.core import Phase, sequence_rewards_to_token_level
from gad_verl.data.schema import teacher_texts
from gad_verl.data.tokens import SequenceBuilder, stop_token_ids
from gad_verl.discriminator.worker_group import (
    DiscriminatorGroup,
    DiscriminatorOutput,
    PendingUpdate,
    data_parallel_size,
)
from gad_verl.errors import GadStalledError
from gad_verl.trainer import checkpoints, metrics_file
from gad_verl.trainer.data_reload import TrainingDataMixin
from gad_verl.trainer.metrics import discriminator_metrics, phase_metrics, text_metrics
from gad_verl.trainer.rollouts import (
    EncodedGroup,
    RolloutGroup,
    choose_text,
    encode_group,
    group_rollouts,
    rollout_order,
)
from gad_verl.trainer.session_rewards import session_of, session_rewards
from gad_verl.trainer.supervised import build_supervised_batch
from gad_verl.trainer.validation import ValidationRecord
from gad_verl.trainer.watchdog import Watchdog
from gad_verl.workers.student import POLICY_LOSS, SUPERVISED_LOSS, StudentWorker

logger = logging.getLogger(__name__)

DISCRIMINATOR = "discriminator"
DISCRIMINATOR_POOL = "discriminator_pool"

# Names of the learning-rate stages, in checkpoints.
_STAGE_WARMUP, _STAGE_ADVERSARIAL, _STAGE_SEQKD = "warmup", "adversarial", "seqkd"


@dataclass(frozen=True)
class _PendingReward:
    """Rollouts whose scores are being computed on the discriminator's own pool."""

    partition_id: str
    keys: list[str]
    groups: list[RolloutGroup]
    encoded: list[EncodedGroup]
    update: PendingUpdate


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


def _watched(method: Any) -> Any:
    """Tell the watchdog that this stage began."""

    @wraps(method)
    def run(self: "GadTrainerSync", *args: Any, **kwargs: Any) -> Any:
        self.watchdog.beat(method.__name__.strip("_"))
        return method(self, *args, **kwargs)

    return run


@register_trainer("gad_sync")
class GadTrainerSync(TrainingDataMixin, PPOTrainerSync):
    """GAD on verl's synchronous trainer. Configured by ``gad_trainer.yaml``."""

    def __init__(self, config: DictConfig) -> None:
        self.gad_config = load_gad_config(config)
        # While verl sets the trainer up, each finished component becomes one more attribute.
        self.watchdog = Watchdog(self.gad_config.watchdog, self._watched_actors, progress=lambda: len(vars(self)))
        super().__init__(config)
        self.discriminator: DiscriminatorGroup | None = None
        self._entered_stage: str | None = None
        self._kl_reference: str | None = None
        self._pending: _PendingReward | None = None
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
        self.watchdog.start()
        self._ending_with_reason(super().init)

    def fit(self, agent_loop_manager: Any) -> None:
        self._logged_before = metrics_file.lines_until(metrics_file.file_logger_path(self.config), self.global_steps)
        try:
            self._ending_with_reason(super().fit, agent_loop_manager)
        finally:
            self.watchdog.stop()

    def on_validate_begin(self) -> None:
        self._restore_logged_lines()
        super().on_validate_begin()

    def on_train_begin(self) -> None:
        self._restore_logged_lines()
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

    @property
    def _has_discriminator(self) -> bool:
        return self.gad_config.stage != "seqkd"

    def _start_discriminator(self, lengths: tuple[int, int], template_kwargs: dict[str, Any]) -> None:
        self.discriminator.load_model()
        if self.config.discriminator.model.path != self.config.actor_rollout_ref.model.path:
            self._reader_builder = SequenceBuilder(self.discriminator.tokenizer, *lengths, None, template_kwargs)
        if self._resumed_from is not None:
            self.discriminator.load(self._resumed_from / DISCRIMINATOR)

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
        stage, rates = self._stage_of(self.phase)
        actor_lr = self.config.actor_rollout_ref.actor.optim.lr if rates.actor_lr is None else rates.actor_lr
        is_switch = self._entered_stage is not None and self._entered_stage != stage
        if self._entered_stage != stage:
            reset = self._entered_stage is None or self.gad_config.reset_optimizer_at_switch
            self.actor_rollout_wg.begin_stage(actor_lr, self._stage_steps(stage), reset)
            if self._has_discriminator:
                disc_lr = self.config.discriminator.optim.lr
                if rates.discriminator_lr is not None:
                    disc_lr = rates.discriminator_lr
                self.discriminator.begin_stage(disc_lr, self.total_training_steps)
            # A student that starts from an adapter is its own reference; without one, model.path is.
            starts_adapted = self._entered_stage is None and stage == _STAGE_ADVERSARIAL and self._starts_from_adapter
            if (is_switch or starts_adapted) and self._wants_new_reference:
                name = f"kl_reference_step_{self.global_steps - 1}"
                path = str(Path(self.config.trainer.default_local_dir).absolute() / name)
                self.actor_rollout_wg.save_student_weights(path)
                self.actor_rollout_wg.load_reference_weights(path)
                self._kl_reference = name
            self._entered_stage = stage
            logger.info("step %d: stage %s begins, student lr %g", self.global_steps, stage, actor_lr)
        self.actor_rollout_wg.use_loss(SUPERVISED_LOSS if self.phase.trains_student_supervised else POLICY_LOSS)

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
        return batch

    def _step_seqkd(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """Cross-entropy on the teacher's text, straight from the data: nothing is generated."""
        if not self._replicas_asleep:
            self.checkpoint_manager.sleep_replicas()
            self._replicas_asleep = True
        self._enter_stage()
        batch = self._next_train_batch()
        # Known to TransferQueue like the prompts of a rollout: verl clears a step's keys and takes no empty list.
        keys = list(batch["uid"])
        tags = [{"is_prompt": True, "status": "finished", "global_steps": self.global_steps}] * len(keys)
        tq.kv_batch_put(keys=keys, partition_id="train", tags=tags)
        builder = self._student_builder
        rows = []
        for index, messages, value in zip(
            batch["index"], batch["raw_prompt"], batch[self.gad_config.teacher_key], strict=True
        ):
            texts = teacher_texts(value, f"row {index} of the training data")
            text = choose_text(texts, int(index), self._epoch)
            rows.append((builder.prompt(messages), builder.response(text).token_ids))
        with marked_timer("update_actor", timing_raw, color="red"):
            self._update_student_supervised(rows, metrics)
        return KVBatchMeta(partition_id="train", keys=keys, tags=tags)

    @_watched
    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        if self._pending is not None:
            self._receive_scores(metrics)
            with marked_timer("wait_discriminator_step", timing_raw, color="brown"):
                report = self._pending.update.finish()
            metrics.update({f"disc/{name}": value for name, value in report.items()})
            self._pending = None
        return batch

    @_watched
    def _compute_reward_colocate(self, batch: KVBatchMeta, metrics: dict | None = None) -> KVBatchMeta:
        """Score the rollouts, and train the discriminator on them unless this is validation.

        Where the discriminator has a pool of its own, its work only begins here: the scores are awaited where the
        advantages need them, the optimizer step at the end of the step.
        """
        validating = batch.partition_id == "val"
        self._sort_rows(batch)
        num_sessions = self._num_sessions(validating)
        groups = self._read_groups(batch, num_sessions)
        encoded = [encode_group(group, self._student_builder, self._reader_builder) for group in groups]
        sequences = [group.sequences() for group in encoded]
        zeros = torch.zeros(len(groups), num_sessions)
        if validating:
            output = self.discriminator.score(sequences, num_sessions) if self._has_discriminator else None
            self._record_validation(batch, groups, encoded, output)
            scores = zeros if output is None else output.student_scores
            self._write_rewards(batch.partition_id, batch.keys, groups, scores, {} if metrics is None else metrics)
            return batch
        self._remember_supervised_rows(groups, encoded)
        if self._overlaps:
            update = self.discriminator.begin_update(sequences, num_sessions)
            self._pending = _PendingReward(batch.partition_id, list(batch.keys), groups, encoded, update)
            # verl copies a row's fields, the reward among them, where it fills up the batch.
            self._write_rewards(batch.partition_id, batch.keys, groups, zeros, metrics)
            return batch
        output = self.discriminator.update(sequences, num_sessions)
        metrics.update({f"disc/{name}": value for name, value in output.report.items()})
        self._use_scores(batch.partition_id, batch.keys, groups, encoded, output, metrics)
        return batch

    @property
    def _overlaps(self) -> bool:
        return self.gad_config.discriminator_overlap and self.gad_config.discriminator_n_gpus_per_node > 0

    def _receive_scores(self, metrics: dict) -> None:
        """Wait for the scores of the step's rollouts, once."""
        pending = self._pending
        if pending is None or pending.update.has_scores:
            return
        begin = time.perf_counter()
        output = pending.update.scores()
        metrics["disc/wait_scores_s"] = time.perf_counter() - begin
        self._use_scores(pending.partition_id, pending.keys, pending.groups, pending.encoded, output, metrics)

    def _use_scores(
        self,
        partition_id: str,
        keys: list[str],
        groups: list[RolloutGroup],
        encoded: list[EncodedGroup],
        output: DiscriminatorOutput,
        metrics: dict,
    ) -> None:
        metrics.update(discriminator_metrics(output.teacher_scores, output.student_scores, output.weights))
        metrics.update(text_metrics(encoded, output.student_scores))
        self.observe_scores(
            [group.index for group in groups], output.teacher_scores, output.student_scores, output.weights
        )
        self._write_rewards(partition_id, keys, groups, output.student_scores, metrics)

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        """Fewer rollouts where the warmup asks for fewer: only the discriminator reads them."""
        sessions = self._num_sessions(validating=False)
        if sessions != self.config.actor_rollout_ref.rollout.n:
            tu.assign_non_tensor_data(batch, "__rollout_n__", sessions)
        return super()._submit_batch_to_rollout(batch)

    def _num_sessions(self, validating: bool) -> int:
        rollout = self.config.actor_rollout_ref.rollout
        if validating:
            return rollout.val_kwargs.n
        if self.phase.is_warmup and self.gad_config.warmup_rollout_n is not None:
            return self.gad_config.warmup_rollout_n
        return rollout.n

    def _sort_rows(self, batch: KVBatchMeta) -> None:
        if len(batch) == 0:
            raise GadStalledError(
                f"all rollouts of step {self.global_steps} failed; the errors of the agent loops are in the log above"
            )
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["index"])
        batch.reorder(rollout_order(batch.keys, [int(index) for index in data["index"]]))

    def _read_groups(self, batch: KVBatchMeta, num_sessions: int) -> list[RolloutGroup]:
        key = self.gad_config.teacher_key
        fields = ["index", "raw_prompt", key, "prompts", "responses"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        groups = group_rollouts(
            keys=batch.keys,
            indices=[int(index) for index in data["index"]],
            messages=list(data["raw_prompt"]),
            teacher_values=list(data[key]),
            prompt_ids=[ids.tolist() for ids in data["prompts"].unbind()],
            response_ids=[ids.tolist() for ids in data["responses"].unbind()],
            num_sessions=num_sessions,
            visit=0 if batch.partition_id == "val" else self._epoch,
        )
        if not self._checked_prompts:
            self._checked_prompts = True
            self._warn_of_other_prompts(groups)
        return groups

    def _warn_of_other_prompts(self, groups: list[RolloutGroup]) -> None:
        """Once: the chat template is the same in every step."""
        if any(group.prompt_ids != self._student_builder.prompt(group.messages) for group in groups):
            logger.warning(
                "the rollout renders prompts differently from gad_verl (system prompt, tools or chat template?): the "
                "warmup trains the student on other prompt tokens than it is asked with"
            )

    def _write_rewards(
        self, partition_id: str, keys: list[str], groups: list[RolloutGroup], scores: torch.Tensor, metrics: dict
    ) -> None:
        """Write ``rm_scores``: the score of a session on the last token of each of its outputs."""
        rewards, nonfinite = session_rewards(keys, groups, scores)
        metrics["gad/nonfinite_scores"] = float(nonfinite)
        responses = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=["responses"])
        token_level = sequence_rewards_to_token_level(rewards, responses["responses"].offsets().diff())
        rm_scores = torch.nested.as_nested_tensor(token_level, layout=torch.jagged)
        tq.kv_batch_put(
            keys=keys, partition_id=partition_id, fields=TensorDict({"rm_scores": rm_scores}, batch_size=len(keys))
        )

    def _remember_supervised_rows(self, groups: list[RolloutGroup], encoded: list[EncodedGroup]) -> None:
        if not self.phase.trains_student_supervised:
            return
        builder = self._student_builder
        shared = self._reader_builder is builder
        self._step_student_rows = [
            (
                encoding.prompt_ids if shared else builder.prompt(group.messages),
                encoding.teacher.token_ids if shared else builder.response(group.teacher_text).token_ids,
            )
            for group, encoding in zip(groups, encoded, strict=True)
        ]

    # ------------------------------ stages that the supervised phases leave out ------------------------------

    @_watched
    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        if self.phase is not Phase.ADVERSARIAL:
            return batch
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    @_watched
    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is not Phase.ADVERSARIAL:
            return batch
        return super()._compute_old_log_prob(batch, metrics)

    @_watched
    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is not Phase.ADVERSARIAL:
            return batch
        return super()._compute_ref_log_prob(batch, metrics)

    @_watched
    def _compute_values(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is not Phase.ADVERSARIAL:
            return batch
        return super()._compute_values(batch, metrics)

    @_watched
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

    @_watched
    def _update_critic(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is not Phase.ADVERSARIAL:
            return batch
        return super()._update_critic(batch, metrics)

    @_watched
    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.phase is Phase.ADVERSARIAL:
            return super()._update_actor(batch, metrics)
        if self.phase is Phase.WARMUP:
            self._update_student_supervised(self._step_student_rows, metrics)
        return batch

    def _update_student_supervised(self, rows: list[tuple[list[int], list[int]]], metrics: dict) -> None:
        mini_batches = self.config.data.train_batch_size // self.config.actor_rollout_ref.actor.ppo_mini_batch_size
        mini_batches = max(1, mini_batches)
        actor_config = self.config.actor_rollout_ref.actor
        micro = 1 if actor_config.use_dynamic_bsz else actor_config.ppo_micro_batch_size_per_gpu
        data = build_supervised_batch(
            rows,
            multiple_of=data_parallel_size(self.actor_rollout_wg, "actor") * mini_batches * micro,
            num_mini_batches=mini_batches,
            pad_token_id=self._student_builder.eos_token_id,
        )
        output: TensorDict = self.actor_rollout_wg.update_actor(data)
        output = rename_dict(output["metrics"], "actor/")
        output["perf/mfu/actor"] = output.pop("actor/mfu")
        metrics.update(reduce_metrics(output))
        metrics["gad/supervised_tokens"] = float(sum(len(response) for _, response in rows))

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

    # ------------------------------ validation ------------------------------

    @_watched
    def _validate(self) -> dict[str, float]:
        self._validation = ValidationRecord()
        metrics = super()._validate()
        self._replicas_asleep = False
        return metrics | self._validation.metrics()

    def _record_validation(
        self,
        batch: KVBatchMeta,
        groups: list[RolloutGroup],
        encoded: list[EncodedGroup],
        output: DiscriminatorOutput | None,
    ) -> None:
        if output is not None:
            self._validation.add_scores(output.teacher_scores, output.student_scores, output.weights)
        teacher_of_session: dict[str, str] = {}
        for group, encoding in zip(groups, encoded, strict=True):
            texts = [None if ids is None else self._student_builder.student_text(ids)[0] for ids in group.response_ids]
            self._validation.add_texts(group, encoding, texts)
            for row in group.rows:
                if row is not None:
                    teacher_of_session[session_of(batch.keys[row])] = group.teacher_text
        self._offer_ground_truth(batch, teacher_of_session)

    def _offer_ground_truth(self, batch: KVBatchMeta, teacher_of_session: dict[str, str]) -> None:
        """Show the teacher's text as the ground truth of verl's dumped generations, where the row has none."""
        if "reward_model" in self.val_dataset.dataframe.column_names:
            return
        truths = [{"ground_truth": teacher_of_session.get(session_of(key))} for key in batch.keys]
        tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=tu.get_tensordict({"reward_model": truths})
        )

    # ------------------------------ checkpoints ------------------------------

    @property
    def _discriminator_shape(self) -> dict[str, Any] | None:
        if not self._has_discriminator:
            return None
        return checkpoints.discriminator_shape(
            self.discriminator.hf_config, self.gad_config.discriminator_num_layers, self.config.discriminator.model
        )

    @property
    def _checkpoint_root(self) -> Path:
        return Path(self.config.trainer.default_local_dir).absolute()

    def _load_checkpoint(self) -> None:
        """Resume from a complete checkpoint only; the discriminator's part is loaded once its workers exist."""
        trainer = self.config.trainer
        self._resumed_from = None
        if trainer.resume_mode == "auto":
            folder = checkpoints.find_resumable(self._checkpoint_root)
            if folder is not None:
                checkpoints.write_tracker(self._checkpoint_root, int(folder.name.rsplit("_", 1)[1]))
        elif trainer.resume_mode == "resume_path":
            folder = Path(trainer.resume_from_path).absolute()
        else:
            folder = None
        super()._load_checkpoint()
        if folder is None:
            return
        state = checkpoints.read_state(folder)
        self._resumed_from = folder if state.has_discriminator else None
        self._entered_stage, self._kl_reference = state.stage, state.kl_reference
        self.actor_rollout_wg.resume_stage(self._stage_steps(state.stage))
        if state.kl_reference is not None and self._wants_new_reference:
            self.actor_rollout_wg.load_reference_weights(str(folder.parent / state.kl_reference))
        logger.info("resumed from %s in stage %s", folder, state.stage)

    @_watched
    def _save_checkpoint(self) -> None:
        """Discriminator and state first, verl's tracker last: a checkpoint that is tracked is whole."""
        folder = self._checkpoint_root / f"global_step_{self.global_steps}"
        if self._has_discriminator:
            self.discriminator.save(folder / DISCRIMINATOR, self.global_steps)
        checkpoints.GadState(
            step=self.global_steps,
            stage=self._entered_stage,
            has_discriminator=self._has_discriminator,
            kl_reference=self._kl_reference,
            discriminator_shape=self._discriminator_shape,
            has_critic=self.use_critic,
        ).write(folder)
        keep_actor = self.config.trainer.get("max_actor_ckpt_to_keep", None)
        keep = self.gad_config.keep_checkpoints or keep_actor
        keep_critic = self.config.trainer.get("max_critic_ckpt_to_keep", None)
        with open_dict(self.config.trainer):
            # verl's rotation would delete the student of a checkpoint before the tracker has moved on.
            self.config.trainer.max_actor_ckpt_to_keep = None
            self.config.trainer.max_critic_ckpt_to_keep = None
            try:
                super()._save_checkpoint()
            finally:
                self.config.trainer.max_actor_ckpt_to_keep = keep_actor
                self.config.trainer.max_critic_ckpt_to_keep = keep_critic
        checkpoints.mark_complete(folder)
        self._remove_everywhere(checkpoints.folders_to_remove(self._checkpoint_root, keep, self.global_steps))

    def _remove_everywhere(self, folders: list[Path]) -> None:
        """Delete checkpoints on every node that holds a part of them."""
        if not folders:
            return
        paths = [str(folder) for folder in folders]

        def remove(_: Any, targets: list[str] = paths) -> None:
            import shutil

            for target in targets:
                shutil.rmtree(target, ignore_errors=True)

        groups = [self.actor_rollout_wg, *([self.discriminator] if self._has_discriminator else [])]
        ray.get([worker.__ray_call__.remote(remove) for group in groups for worker in group.workers])
        logger.info("removed old checkpoints: %s", ", ".join(paths))
