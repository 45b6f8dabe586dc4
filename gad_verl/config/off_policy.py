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
"""Rollouts that are older than the student that learns from them."""

from dataclasses import dataclass

from gad_verl.config.checks import NOT_NEGATIVE, require_each


@dataclass
class OffPolicyConfig:
    """What is done with old rollouts, beside verl's ``algorithm.rollout_correction`` and ``trainer.v1.sampler``."""

    discriminator_max_age: int | None = None

    def validate(self) -> None:
        require_each("gad.off_policy", self, NOT_NEGATIVE, "discriminator_max_age")
