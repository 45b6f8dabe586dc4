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
"""The cost model of the benchmarks: gad_verl's own, for the random models that they train."""

from gad_verl.core.cost_model import Shape, Work, update_tokens

__all__ = ["Shape", "Work", "of_qwen2", "update_tokens"]


def of_qwen2(hidden: int, layers: int, checkpointing: bool) -> Work:
    """Work of the random model of the benchmarks: one key-value head of 32, a feed-forward of twice the width."""
    attention = 2 * hidden * hidden + 2 * hidden * 32
    return Work(layers * (attention + 3 * hidden * 2 * hidden), 2 * layers * hidden, checkpointing)
