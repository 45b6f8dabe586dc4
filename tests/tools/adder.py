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
"""Deterministic tools for tests, as ``actor_rollout_ref.rollout.multi_turn.function_tool_path`` names them."""

from verl.tools.function_tool import function_tool


@function_tool
def add(a: int, b: int) -> str:
    """Adds.

    Args:
        a: First.
        b: Second.
    """
    return str(a + b)


@function_tool
def spell(text: str, times: int = 1) -> str:
    """Repeats a text, and fails on none.

    Args:
        text: What is repeated.
        times: How often.
    """
    if not text:
        raise ValueError("nothing to spell")
    return text * times
