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

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from verl import DataProto

from gad_verl.trainer.rollouts import Rollouts, StepRollouts

# What verl's reward managers read of a row (verl/experimental/reward_loop/reward_manager/naive.py).
_ROW_FIELDS = ("data_source", "reward_model", "extra_info")


def _object_array(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _padded(nested: Any, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A nested tensor (N, *) padded on the right, (N, L), and its mask."""
    padded = nested.to_padded_tensor(padding)
    lengths = nested.offsets().diff()
    return padded, (torch.arange(padded.size(1)) < lengths.unsqueeze(1)).long()


def task_rewards(manager: Any, pad_token_id: int, rollouts: Rollouts, step: StepRollouts) -> list[float]:
    """Reward of each trajectory by verl's reward loop: a custom function, or verl's own by ``data_source``.

    Args:
        manager: verl's ``RewardLoopManager``.
        pad_token_id: Of the student's tokenizer.
        rollouts: Reads the fields.
        step: N trajectories.
    """
    # The check before the run has seen data_source and reward_model; verl's data set gives every row an extra_info.
    data = rollouts.fields(step, ["prompts", "responses", "raw_prompt", *_ROW_FIELDS])
    prompts, prompt_mask = _padded(data["prompts"], pad_token_id)
    responses, response_mask = _padded(data["responses"], pad_token_id)
    mask = torch.cat([prompt_mask, response_mask], dim=1)
    batch = TensorDict({"prompts": prompts, "responses": responses, "attention_mask": mask}, batch_size=len(step.keys))
    rows = {name: _object_array(list(data[name])) for name in ("raw_prompt", *_ROW_FIELDS)}
    output = manager.compute_rm_score(DataProto(batch=batch, non_tensor_batch=rows))
    return output.batch["rm_scores"].sum(dim=1).float().tolist()
