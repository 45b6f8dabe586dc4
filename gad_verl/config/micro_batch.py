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
"""What a micro-batch of the discriminator holds, by the keys of verl's critic."""

from omegaconf import DictConfig


def tokens_per_micro_batch(section: DictConfig) -> int:
    """Tokens that a micro-batch of the discriminator holds, over the ranks that share a sequence.

    Args:
        section: ``discriminator``.
    """
    if section.strategy == "megatron":
        return int(section.ppo_max_token_len_per_gpu * section.megatron.context_parallel_size)
    return int(section.ppo_max_token_len_per_gpu * section.fsdp.ulysses_sequence_parallel_size)
