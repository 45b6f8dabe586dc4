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
"""Kills the trainer while it writes a checkpoint. Loaded by ``VERL_USE_EXTERNAL_MODULES=crash_hook`` in a test."""

import os
import signal
from types import ModuleType

import wrapt


def _install(module: ModuleType) -> None:
    write = module.GadState.write
    step = int(os.environ["GAD_TEST_CRASH_STEP"])

    def write_then_die(self: object, folder: object) -> None:
        write(self, folder)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    module.GadState.write = write_then_die


wrapt.register_post_import_hook(_install, "gad_verl.trainer.checkpoints")
