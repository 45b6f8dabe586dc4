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
"""Rollouts that are older than the student that learns from them: their ages, and what the discriminator makes of them.

The age of a response is the number of updates of the rollout between the weights that began to write it and those that
learn from it: 0 in a synchronous run. Old responses flatter a discriminator, which has seen their kind; so what it
knows is told apart, on fresh pairs and on old ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gad_verl.config import OffPolicyConfig
from gad_verl.core.statistics import score_statistics
from gad_verl.trainer.rollouts import RolloutGroup
from gad_verl.trainer.scored import ScoredStep
from gad_verl.trainer.trust import StudentTrust

# Of the names of what is known of pairs of prompts that never train the discriminator.
_HELD_OUT = "trust_"


def session_ages(groups: Sequence[RolloutGroup], step: int) -> Tensor:
    """Ages (G, n) of all sessions, int64; -1 where there is none.

    Args:
        groups: G groups with n sessions.
        step: Training step: its student is that of version ``step - 1``.
    """

    def age(versions: tuple[int, int] | None) -> int:
        return -1 if versions is None else max(0, step - 1 - versions[0])

    return torch.tensor([[age(None if one is None else one.versions) for one in group.sessions] for group in groups])


def mixes_versions(group: RolloutGroup) -> bool:
    """Whether not all tokens of a group were written by the same weights."""
    versions = [one.versions for one in group.sessions if one is not None and one.versions is not None]
    return len({version for both in versions for version in both}) > 1


def pairs_by_age(
    teacher_scores: Tensor, student_scores: Tensor, weights: Tensor, ages: Tensor, prefix: str
) -> dict[str, float]:
    """Number and accuracy of fresh pairs (age 0) and of old ones.

    Args:
        teacher_scores: (G,).
        student_scores, weights, ages: (G, n).
        prefix: Of the names.
    """
    metrics = {}
    for name, of_age in (("fresh", ages == 0), ("old", ages > 0)):
        found = score_statistics(teacher_scores, student_scores, weights * of_age)
        metrics[f"{prefix}{name}_pairs"] = found.get("num_pairs", 0.0)
        if found:
            metrics[f"{prefix}{name}_accuracy"] = found["accuracy"]
    return metrics


@dataclass(frozen=True)
class OffPolicy:
    """Looks at the ages of a step's rollouts.

    Args:
        config: ``gad.off_policy``.
        trust: Whose held-out pairs are told apart by age too; None without ``gad.trust``.
    """

    config: OffPolicyConfig
    trust: StudentTrust | None

    def too_old(self, groups: Sequence[RolloutGroup], step: int) -> list[bool]:
        """Which groups do not train the discriminator, since one of their responses is too old."""
        limit = self.config.discriminator_max_age
        if limit is None:
            return [False] * len(groups)
        return (session_ages(groups, step) > limit).any(dim=1).tolist()

    def observe(self, step: ScoredStep) -> dict[str, float]:
        """Metrics of a step's ages."""
        groups, output, number = step.rollouts.groups, step.output, step.info.number
        ages = session_ages(groups, number)
        came = ages[ages >= 0].double()
        scores = (output.teacher_scores, output.student_scores)
        metrics = {
            "gad/mixed_version_groups": float(sum(map(mixes_versions, groups))),
            "disc/too_old_groups": float(sum(self.too_old(groups, number))),
        }
        if len(came):
            metrics |= {"gad/rollout_age_mean": came.mean().item(), "gad/rollout_age_max": came.max().item()}
        metrics |= pairs_by_age(*scores, output.weights, ages, "disc/")
        if self.trust is not None:
            held_out = torch.tensor(self.trust.held_out(groups))[:, None]
            metrics |= pairs_by_age(*scores, output.weights * held_out, ages, f"gad/{_HELD_OUT}")
        return metrics
