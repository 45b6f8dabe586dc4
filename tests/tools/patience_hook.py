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
"""Makes the watchdog impatient at the end of a step. Loaded by ``VERL_USE_EXTERNAL_MODULES=patience_hook`` in a test.

The start-up and the first step wait for processes that import verl: 20 to 30 seconds where other work shares two cores.
"""

import dataclasses
import os
from types import ModuleType

import wrapt


def _install(module: ModuleType) -> None:
    beat = module.Watchdog.beat
    patience_s = float(os.environ["GAD_TEST_PATIENCE_S"])

    def beat_then_lose_patience(self: object, stage: str) -> None:
        beat(self, stage)
        if stage == "update_weights":
            self._config = dataclasses.replace(self._config, stage_timeout_s=patience_s)

    module.Watchdog.beat = beat_then_lose_patience


wrapt.register_post_import_hook(_install, "gad_verl.trainer.watchdog")
