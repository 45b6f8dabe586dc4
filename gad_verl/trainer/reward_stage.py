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
"""The reward stage of a step, and what validation asks of the discriminator."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils import tensordict_utils as tu

from gad_verl.core import Phase, sequence_rewards_to_token_level
from gad_verl.core.teacher_mix import TeacherMix
from gad_verl.discriminator.groups import SequenceGroup
from gad_verl.discriminator.worker_group import DiscriminatorOutput
from gad_verl.errors import GadStalledError
from gad_verl.record import Sample
from gad_verl.trainer.adversary import StepOfAdversary
from gad_verl.trainer.metrics import discriminator_metrics, text_metrics
from gad_verl.trainer.rewards import Answers
from gad_verl.trainer.rollouts import EncodedGroup, RolloutGroup, encode_group, group_rollouts, rollout_order
from gad_verl.trainer.session_rewards import session_of, session_rewards
from gad_verl.trainer.task_rewards import task_rewards
from gad_verl.trainer.token_rewards import ResponseShares, mix_into, response_shares
from gad_verl.trainer.validation import ValidationRecord
from gad_verl.trainer.watchdog import watched

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PendingReward:
    """Rollouts whose scores are being computed."""

    partition_id: str
    keys: list[str]
    groups: list[RolloutGroup]
    encoded: list[EncodedGroup]
    update: StepOfAdversary


class RewardStageMixin(PPOTrainer):
    """The part of ``GadTrainerSync`` that turns rollouts into scores and rewards.

    Needs ``gad_config``, ``phase``, ``adversary``, ``toolbox`` and the builders of sequences.
    """

    _pending: PendingReward | None
    _validation: ValidationRecord

    @watched
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
        zeros = torch.zeros(len(groups), num_sessions)
        if validating:
            output = None
            if self._has_discriminator:
                output = self.discriminator.score([group.sequences() for group in encoded], num_sessions)
            self._record_validation(batch, groups, encoded, output)
            scores = zeros if output is None else output.student_scores
            self._write_rewards(batch.partition_id, batch.keys, groups, scores, {} if metrics is None else metrics)
            return batch
        self._remember_supervised_rows(groups, encoded)
        step = self.adversary.begin(
            self.global_steps, self.phase, self._sequences(groups, encoded), num_sessions, self._overlaps
        )
        self._pending = PendingReward(batch.partition_id, list(batch.keys), groups, encoded, step)
        if self._overlaps:
            # verl copies a row's fields, the reward among them, where it fills up the batch.
            self._write_rewards(batch.partition_id, batch.keys, groups, zeros, metrics)
            return batch
        self._use_scores(self._pending, metrics)
        self._finish_update(metrics)
        return batch

    def _sequences(self, groups: list[RolloutGroup], encoded: list[EncodedGroup]) -> list[SequenceGroup]:
        """What the discriminator reads; the prompts that are held out from its training are scored only."""
        held_out = self.toolbox.held_out(groups)
        return [encoding.sequences(trains=not out) for encoding, out in zip(encoded, held_out, strict=True)]

    @property
    def _overlaps(self) -> bool:
        return self.gad_config.discriminator_overlap and self.gad_config.discriminator_n_gpus_per_node > 0

    def _receive_scores(self, metrics: dict) -> None:
        """Wait for the scores of the step's rollouts, once."""
        pending = self._pending
        if pending is None or pending.update.has_scores:
            return
        begin = time.perf_counter()
        pending.update.scores()
        metrics["disc/wait_scores_s"] = time.perf_counter() - begin
        self._use_scores(pending, metrics)

    def _finish_update(self, metrics: dict) -> None:
        """Wait for the end of the discriminator's update."""
        report = self._pending.update.finish()
        metrics.update({f"disc/{name}": value for name, value in report.items()})
        self._pending = None

    def _use_scores(self, pending: PendingReward, metrics: dict) -> None:
        groups, encoded, output = pending.groups, pending.encoded, pending.update.scores()
        teacher_scores, student_scores, weights = output.teacher_scores, output.student_scores, output.weights
        metrics.update(discriminator_metrics(teacher_scores, student_scores, weights))
        metrics.update(text_metrics(encoded, student_scores))
        if self.teacher_mix.mode != "cycle":
            metrics.update(self.teacher_mix.metrics([group.teachers for group in groups]))
        self.observe_scores([group.index for group in groups], teacher_scores, student_scores, weights)
        metrics.update(self.toolbox.observe_trust(self.global_steps, self.phase, groups, output))
        self.toolbox.record_scores(self.global_steps, self.phase, output)
        self.toolbox.record_samples(self.global_steps, "train", self._samples(groups, output))
        rewards, shares = student_scores, None
        if self.phase is Phase.ADVERSARIAL:
            answers = self._answers(pending)
            rewards, more = self.toolbox.rewards.rewards(teacher_scores, student_scores, weights, answers)
            metrics.update(more)
            if self.gad_config.reward.wants_shares:
                builders = (self._student_builder, self._reader_builder)
                shares = [
                    response_shares(group, encoding, values, *builders, self.gad_config.reward.phrase_unit)
                    for group, encoding, values in zip(groups, encoded, output.student_values, strict=True)
                ]
        self._write_rewards(pending.partition_id, pending.keys, groups, rewards, metrics, shares)

    def _answers(self, pending: PendingReward) -> Answers:
        """What the options of the reward want to know of the responses."""
        encoded = pending.encoded
        task_rewards = None
        if self.gad_config.reward.task_weight > 0:
            task_rewards = self._task_rewards(pending)
        texts: list[list[str | None]] = []
        if self.gad_config.reward.malformed_penalty > 0:
            texts = [
                [None if ids is None else self._student_builder.student_text(ids)[0] for ids in group.response_ids]
                for group in pending.groups
            ]
        return Answers(
            lengths=torch.tensor([[1 if s is None else len(s.token_ids) for s in group.students] for group in encoded]),
            teacher_lengths=torch.tensor([len(group.teacher.token_ids) for group in encoded]),
            finished=torch.tensor([[s is None or s.finished for s in group.students] for group in encoded]),
            texts=texts,
            task_rewards=task_rewards,
            length_penalty=self.toolbox.knobs["length_penalty"],
        )

    def _task_rewards(self, pending: PendingReward) -> torch.Tensor:
        """Rewards of verl's reward interface, (G, n); 0 for failed rollouts."""
        by_key = task_rewards(
            self.reward_loop_manager, self.tokenizer, pending.partition_id, pending.keys, self._lengths_to_mask
        )
        return torch.tensor(
            [[0.0 if row is None else by_key[row] for row in group.rows] for group in pending.groups],
            dtype=torch.float32,
        )

    def _samples(self, groups: list[RolloutGroup], output: DiscriminatorOutput | None) -> Iterator[Sample]:
        """Texts of both sides, for the record."""
        for number, group in enumerate(groups):
            kept = [(at, ids) for at, ids in enumerate(group.response_ids) if ids is not None]
            scores = None if output is None else [output.student_scores[number, at].item() for at, _ in kept]
            yield Sample(
                index=group.index,
                prompt=self._student_builder.decode(group.prompt_ids),
                teacher=group.teacher_text,
                students=[self._student_builder.student_text(ids)[0] for _, ids in kept],
                teacher_score=None if output is None else output.teacher_scores[number].item(),
                student_scores=scores,
            )

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
        key, names_key = self.gad_config.teacher_key, self.gad_config.teachers.column
        validating = batch.partition_id == "val"
        mix = TeacherMix() if validating else self.teacher_mix
        fields = ["index", "raw_prompt", key, "prompts", "responses", *([names_key] if mix.needs_names else [])]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        groups = group_rollouts(
            keys=batch.keys,
            indices=[int(index) for index in data["index"]],
            messages=list(data["raw_prompt"]),
            teacher_values=list(data[key]),
            prompt_ids=[ids.tolist() for ids in data["prompts"].unbind()],
            response_ids=[ids.tolist() for ids in data["responses"].unbind()],
            num_sessions=num_sessions,
            visit=0 if validating else self._epoch,
            step=self.global_steps,
            mix=mix,
            teacher_name_values=list(data[names_key]) if mix.needs_names else None,
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
        self,
        partition_id: str,
        keys: list[str],
        groups: list[RolloutGroup],
        rewards: torch.Tensor,
        metrics: dict,
        shares: list[list[ResponseShares | None]] | None = None,
    ) -> None:
        """Write ``rm_scores``: the reward of a session on the last token of each of its outputs, or shares of it."""
        of_keys, nonfinite = session_rewards(keys, groups, rewards)
        metrics["gad/nonfinite_scores"] = float(nonfinite)
        responses = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=["responses"])
        token_level = sequence_rewards_to_token_level(of_keys, responses["responses"].offsets().diff())
        if shares is not None:
            metrics.update(mix_into(token_level, of_keys, groups, shares, self.gad_config.reward))
        rm_scores = torch.nested.as_nested_tensor(token_level, layout=torch.jagged)
        tq.kv_batch_put(
            keys=keys, partition_id=partition_id, fields=TensorDict({"rm_scores": rm_scores}, batch_size=len(keys))
        )

    @watched
    def _validate(self) -> dict[str, float]:
        self._validation = ValidationRecord()
        metrics = super()._validate()
        self._replicas_asleep = False
        metrics = metrics | self._validation.metrics()
        self._after_validation(metrics)
        return metrics

    def _record_validation(
        self,
        batch: KVBatchMeta,
        groups: list[RolloutGroup],
        encoded: list[EncodedGroup],
        output: DiscriminatorOutput | None,
    ) -> None:
        if output is not None:
            self._validation.add_scores(output.teacher_scores, output.student_scores, output.weights)
        self.toolbox.record_samples(self.global_steps, "val", self._samples(groups, output))
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
