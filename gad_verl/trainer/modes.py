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
"""The trainer modes of gad_verl: for each of verl's a thin class over the one that holds the overrides."""

from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from gad_verl.trainer import estimators  # noqa: F401  registers the estimator gad_process with verl
from gad_verl.trainer.gad_trainer import GadTrainer


@register_trainer("gad_sync")
class GadTrainerSync(GadTrainer, PPOTrainerSync):
    """verl's ``sync``: rollout and training in turns on the same machines."""

    verl_mode = "sync"
