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
"""The student's supervised steps, in the warmup and in SeqKD: cross-entropy on the teacher's text."""

import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.debug import marked_timer
from verl.utils.metric import reduce_metrics
from verl.utils.py_functional import rename_dict

from gad_verl.data.schema import teacher_names, teacher_texts
from gad_verl.discriminator.worker_group import data_parallel_size
from gad_verl.trainer.rollouts import EncodedGroup, RolloutGroup
from gad_verl.trainer.supervised import build_supervised_batch


class SupervisedStageMixin(PPOTrainer):
    """The part of ``GadTrainerSync`` that trains the student on the teacher's text."""

    # Prompt and response ids of the step's rows.
    _step_student_rows: list[tuple[list[int], list[int]]]

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
        names = batch.get(self.gad_config.teachers.column, None) if self.teacher_mix.needs_names else None
        for row, (index, messages, value) in enumerate(
            zip(batch["index"], batch["raw_prompt"], batch[self.gad_config.teacher_key], strict=True)
        ):
            where = f"row {index} of the training data"
            texts = teacher_texts(value, where)
            teachers = None if names is None else teacher_names(names[row], len(texts), where)
            choice = self.teacher_mix.choose_one(texts, teachers, int(index), self.global_steps, self._epoch)
            rows.append((builder.prompt(messages), builder.response(choice.text).token_ids))
        with marked_timer("update_actor", timing_raw, color="red"):
            self._update_student_supervised(rows, metrics)
        return KVBatchMeta(partition_id="train", keys=keys, tags=tags)

    def _remember_supervised_rows(self, groups: list[RolloutGroup], encoded: list[EncodedGroup]) -> None:
        if not self.phase.trains_student_supervised:
            return
        builder = self._student_builder
        rows = []
        for group, encoding in zip(groups, encoded, strict=True):
            if self._reader_builder is builder and len(encoding.teachers) == 1:
                rows.append((encoding.prompt_ids, encoding.teacher.token_ids))
            else:
                rows.append((builder.prompt(group.messages), builder.response(group.teacher_text).token_ids))
        self._step_student_rows = rows

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
