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
"""The check before a run: configuration, data, tokenizers, checkpoints. Runs before Ray or a model starts."""

from gad_verl.preflight.config_check import check_config
from gad_verl.preflight.data_check import check_data, check_schedule
from gad_verl.preflight.family_check import check_families
from gad_verl.preflight.model_check import check_discriminator
from gad_verl.preflight.planned_run import PlannedRun, PreflightCallback, run_preflight
from gad_verl.preflight.prompt_check import check_prompts

__all__ = [
    "PlannedRun",
    "PreflightCallback",
    "check_config",
    "check_data",
    "check_discriminator",
    "check_families",
    "check_prompts",
    "check_schedule",
    "run_preflight",
]
