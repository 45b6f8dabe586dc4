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
"""Advantage estimators of gad_verl, under names that ``algorithm.adv_estimator`` takes; and what is known of verl's."""

from typing import Any

import numpy as np
import torch
from verl.trainer.ppo.core_algos import register_adv_est

from gad_verl.core.advantages import group_process_advantages

GAD_PROCESS = "gad_process"
# Those of verl (verl/trainer/ppo/core_algos.py) that do not compare the responses to one prompt with each other.
WITHOUT_SIBLINGS = ("gae", "reinforce_plus_plus")


@register_adv_est(GAD_PROCESS)
def process_advantages(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    config: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """GRPO with process supervision, for rewards of tokens or phrases. Signature of verl's estimators.

    See :func:`gad_verl.core.advantages.group_process_advantages`.
    """
    with torch.no_grad():
        divide_by_std = True if config is None else bool(config.get("norm_adv_by_std_in_grpo", True))
        advantages = group_process_advantages(token_level_rewards, response_mask, index.tolist(), divide_by_std)
    return advantages, advantages
