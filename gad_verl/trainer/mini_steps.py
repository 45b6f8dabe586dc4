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
"""Metrics of a step that is cut into several updates (``parameter_sync_step``), put together as if it had been one.

verl puts metrics together by words in their names, a mean for what it does not know: counts would become means.
"""

import math
from collections.abc import Sequence

# What is counted, or takes time: the sum over the updates.
SUMMED = (
    "disc/num_pairs",
    "disc/fresh_pairs",
    "disc/old_pairs",
    "disc/too_old_groups",
    "disc/replayed_groups",
    "disc/updates",
    "disc/skipped_steps",
    "disc/busy_s",
    "disc/wait_scores_s",
    "gad/prompts",
    "gad/failed_rollouts",
    "gad/mixed_version_groups",
    "gad/nonfinite_scores",
    "gad/student_cut_texts",
    "gad/supervised_tokens",
    "gad/teacher_cut_texts",
    "gad/trust_fresh_pairs",
    "gad/trust_old_pairs",
)
# What is known after the last update.
LAST = (
    "disc/lr",
    "gad/policy_weight",
    "gad/texts_weight",
    "gad/trust_accuracy",
    "gad/trust_error",
    "gad/trust_factor",
    "gad/trust_prompts",
)
# A mean over something else than all pairs.
_WEIGHTS = {
    "disc/fresh_accuracy": "disc/fresh_pairs",
    "disc/old_accuracy": "disc/old_pairs",
    "disc/replay_accuracy": "disc/replayed_groups",
    "gad/trust_fresh_accuracy": "gad/trust_fresh_pairs",
    "gad/trust_old_accuracy": "gad/trust_old_pairs",
}
_PAIRS = "disc/num_pairs"


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    total = sum(weights)
    if total == 0:
        return sum(values) / len(values)
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / total


def combined(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Metrics ``disc/*`` and ``gad/*`` of a step from those of its updates, in their order."""
    found: dict[str, float] = {}
    names = dict.fromkeys(name for one in updates for name in one if name.startswith(("disc/", "gad/")))
    for name in names:
        having = [one for one in updates if name in one]
        values = [float(one[name]) for one in having]
        weights = [float(one.get(_WEIGHTS.get(name, _PAIRS), 1.0)) for one in having]
        if name in SUMMED:
            found[name] = sum(values)
        elif name in LAST:
            found[name] = values[-1]
        elif name.endswith(("_highest", "_max", "_peak_gb")):
            found[name] = max(values)
        elif name.endswith("_lowest"):
            found[name] = min(values)
        elif name.endswith("_std"):
            means = [float(one.get(f"{name.removesuffix('_std')}_mean", 0.0)) for one in having]
            squares = _mean([std**2 + mean**2 for std, mean in zip(values, means, strict=True)], weights)
            found[name] = math.sqrt(max(0.0, squares - _mean(means, weights) ** 2))
        else:
            found[name] = _mean(values, weights)
    return found
