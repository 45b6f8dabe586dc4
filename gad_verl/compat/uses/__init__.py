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
"""The one list of what gad_verl uses of verl and TransferQueue, and why. Parameters are those of verl 0.9.1.

``tests/compat`` reads the same from gad_verl's syntax trees and names what is missing here or no longer used.
"""

from gad_verl.compat.uses.megatron import MEGATRON_USES
from gad_verl.compat.uses.rollout import CPU, ROLLOUT, VLLM_USES
from gad_verl.compat.uses.trainer import DATA, STEP, TRANSFER_QUEUE
from gad_verl.compat.uses.workers import ENGINES, WORKER_CLASSES, WORKER_GROUPS

__all__ = ["MEGATRON_USES", "PACKAGES", "VERL_USES", "VLLM_USES"]

PACKAGES = ("verl", "transfer_queue")

VERL_USES = (*STEP, *TRANSFER_QUEUE, *DATA, *WORKER_GROUPS, *WORKER_CLASSES, *ENGINES, *ROLLOUT, *CPU, *VLLM_USES)
