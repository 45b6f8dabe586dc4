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
"""The tool of the study of trajectories (``tools_language.py``)."""

from verl.tools.function_tool import function_tool


@function_tool
def plus(a: int, b: int) -> str:
    """Adds two numbers.

    Args:
        a: First number.
        b: Second number.
    """
    return str(a + b)
