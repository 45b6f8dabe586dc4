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
"""The mathematics of GAD on plain tensors: imports torch, numpy and nothing of verl, Ray or Hydra."""

from gad_verl.core.advantages import group_advantages, low_variance_kl
from gad_verl.core.divergence import one_end, token_kl, token_log_probabilities
from gad_verl.core.diversity import rollout_diversity
from gad_verl.core.objective import LossWeights, blended_rate, loss_weights
from gad_verl.core.pair_loss import (
    LOSS_KINDS,
    PairLossOptions,
    bradley_terry_loss,
    discriminator_pair_loss,
    gradient_penalty_from_scores,
    pair_margins,
    pair_weights,
)
from gad_verl.core.rewards import sequence_rewards_to_token_level
from gad_verl.core.schedule import STAGES, Phase, StageSchedule
from gad_verl.core.statistics import correlation, score_statistics

__all__ = [
    "LOSS_KINDS",
    "STAGES",
    "LossWeights",
    "PairLossOptions",
    "Phase",
    "StageSchedule",
    "blended_rate",
    "bradley_terry_loss",
    "correlation",
    "discriminator_pair_loss",
    "gradient_penalty_from_scores",
    "group_advantages",
    "loss_weights",
    "low_variance_kl",
    "one_end",
    "pair_margins",
    "pair_weights",
    "rollout_diversity",
    "score_statistics",
    "sequence_rewards_to_token_level",
    "token_kl",
    "token_log_probabilities",
]
