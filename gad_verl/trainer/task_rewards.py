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
"""Rewards of verl's reward interface for the rollouts of a step, beside the discriminator's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl import DataProto

# What verl's reward managers read of a row (verl/experimental/reward_loop/reward_manager/naive.py).
_ROW_FIELDS = ("data_source", "reward_model", "extra_info")


def _object_array(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def task_rewards(
    manager: Any,
    tokenizer: Any,
    partition_id: str,
    keys: list[str],
    lengths_to_mask: Callable[[torch.Tensor, int], torch.Tensor],
) -> list[float]:
    """Reward of each trajectory by verl's reward loop: a custom function, or verl's own by ``data_source``.

    Args:
        manager: verl's ``RewardLoopManager``.
        tokenizer: Of the student; its padding fills the batch.
        partition_id: Of TransferQueue.
        keys: Of the trajectories.
        lengths_to_mask: verl's helper of the trainer.
    """
    fields = ["prompts", "responses", "raw_prompt", *_ROW_FIELDS]
    # The check before the run has seen data_source and reward_model; verl's data set gives every row an extra_info.
    data = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=fields)
    prompts, responses = data["prompts"], data["responses"]
    padding = tokenizer.pad_token_id
    padded = {"prompts": prompts.to_padded_tensor(padding), "responses": responses.to_padded_tensor(padding)}
    masks = [
        lengths_to_mask(lengths.offsets().diff(), padded[name].size(1))
        for name, lengths in (("prompts", prompts), ("responses", responses))
    ]
    batch = TensorDict({**padded, "attention_mask": torch.cat(masks, dim=1)}, batch_size=len(keys))
    rows = {name: _object_array(list(data[name])) for name in ("raw_prompt", *_ROW_FIELDS)}
    output = manager.compute_rm_score(DataProto(batch=batch, non_tensor_batch=rows))
    return output.batch["rm_scores"].sum(dim=1).float().tolist()
