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
"""Rows that a run has once what is too long has been left out, or is refused."""

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.data.file_stamps import file_list
from gad_verl.data.tokenizer import load_tokenizer
from gad_verl.errors import GadDataError
from gad_verl.preflight.image_check import processor_of


def looks_at_lengths(config: DictConfig, gad_config: GadConfig) -> bool:
    """Whether the run's dataset leaves rows out by their length, or ends the run for one."""
    # Trajectories are looked at by a check of their own.
    texts = gad_config.teacher_overlong != "cut" and not gad_config.trajectory.enable
    return bool(config.data.filter_overlong_prompts) or texts


def kept_rows(config: DictConfig) -> int:
    """Rows that the run's dataset keeps of the training files: it is built as the trainer will build it.

    Raises:
        GadDataError: No row is left of training or validation, or a text is too long where that is an error.
        GadConfigError: The student's tokenizer cannot be loaded.
    """
    from verl.trainer.ppo.utils import create_rl_dataset

    data, model = config.data, config.actor_rollout_ref.model
    tokenizer = load_tokenizer("actor_rollout_ref.model", model)
    processor = processor_of(model)
    kept = []
    for split, is_train in (("train", True), ("val", False)):
        files, most = data[f"{split}_files"], data.get(f"{split}_max_samples", -1)
        rows = len(create_rl_dataset(files, data, tokenizer, processor, is_train=is_train, max_samples=most))
        if rows == 0:
            raise GadDataError(
                f"{', '.join(file_list(files))}: every prompt is longer than data.max_prompt_length="
                f"{data.max_prompt_length}, and data.filter_overlong_prompts=True leaves such rows out: raise it"
            )
        kept.append(rows)
    return kept[0]
