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
"""What gad_verl uses of verl beyond its documented interfaces, and the check of it at start.

verl rearranges its private classes from release to release. A mismatch ends a run with one readable error before
anything is loaded, instead of an AttributeError in the middle of it, or of a part that goes dead without a word.
"""

from gad_verl.compat.installed import VERL_AT_LEAST, VERL_BELOW, check, unread_uses
from gad_verl.compat.tree import tree_findings
from gad_verl.compat.use import IMPLEMENTED, OVERRIDDEN, REPLACED, USED, VerlUse
from gad_verl.compat.uses import MEGATRON_USES, PACKAGES, VERL_USES

__all__ = [
    "IMPLEMENTED",
    "MEGATRON_USES",
    "OVERRIDDEN",
    "PACKAGES",
    "REPLACED",
    "USED",
    "VERL_AT_LEAST",
    "VERL_BELOW",
    "VERL_USES",
    "VerlUse",
    "check",
    "tree_findings",
    "unread_uses",
]
