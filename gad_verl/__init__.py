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
"""gad_verl: Generative Adversarial Distillation (arXiv 2511.10643) as a plugin of verl.

Everything here is loaded on first use, so that ``import gad_verl`` stays cheap in processes that do not train.
"""

import importlib

__version__ = "0.2.0"

_PUBLIC = {
    "GadConfig": "gad_verl.config",
    "GadConfigError": "gad_verl.errors",
    "GadDataError": "gad_verl.errors",
    "Phase": "gad_verl.core",
    "StageSchedule": "gad_verl.core",
    "bradley_terry_loss": "gad_verl.core",
    "score_statistics": "gad_verl.core",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
