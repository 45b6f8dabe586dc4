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
"""Configuration of GAD: the dataclasses behind the key ``gad`` and the YAML files that Hydra finds."""

from gad_verl.config.data import CurriculumConfig, TeacherMixConfig
from gad_verl.config.guardian import GuardianConfig
from gad_verl.config.off_policy import OffPolicyConfig
from gad_verl.config.schema import GadConfig, StageOptimConfig, WatchdogConfig, load_gad_config
from gad_verl.config.stability import (
    DiscriminatorLossConfig,
    DiscriminatorUpdatesConfig,
    RecordConfig,
    ReplayConfig,
    RewardConfig,
    SodaConfig,
    TrustConfig,
)
from gad_verl.config.thinking import ThinkingConfig
from gad_verl.config.trajectory import TrajectoryConfig

__all__ = [
    "CurriculumConfig",
    "DiscriminatorLossConfig",
    "DiscriminatorUpdatesConfig",
    "GadConfig",
    "GuardianConfig",
    "OffPolicyConfig",
    "RecordConfig",
    "ReplayConfig",
    "RewardConfig",
    "SodaConfig",
    "StageOptimConfig",
    "TeacherMixConfig",
    "ThinkingConfig",
    "TrajectoryConfig",
    "TrustConfig",
    "WatchdogConfig",
    "load_gad_config",
]
