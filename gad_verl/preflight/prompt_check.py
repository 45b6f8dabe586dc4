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
"""Every prompt of a run as student and discriminator will read it."""

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.data.file_stamps import file_list
from gad_verl.data.rendered_prompts import prompt_readers
from gad_verl.preflight.thinking_check import look_at_thinking


def check_prompts(config: DictConfig, gad_config: GadConfig) -> None:
    """Render every prompt of the training and validation files.

    Raises:
        GadDataError: Names the file, the row and the column, what the template says, and the remedy.
        GadConfigError: ``gad.thinking`` does not fit the teacher's texts.
    """
    paths = dict.fromkeys([*file_list(config.data.train_files), *file_list(config.data.val_files)])
    for number, reader in enumerate(prompt_readers(config, gad_config)):
        for path in paths:
            reader.check_file(path, config.data.prompt_key)
        reader.warn()
        if number == 0:
            look_at_thinking(config, gad_config, reader.builder)
