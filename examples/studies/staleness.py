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
"""What old rollouts cost: study 2's language, its student trained on responses of itself that are some steps old.

    python examples/studies/staleness.py                # all runs; interrupt it at any time, run it again to go on

An asynchronous run trains on responses of an earlier student. Here their age is exact: at each adversarial step the
rollouts are those of the student of 0, 1, 2, 4 or 8 steps before, for the student's update and for the discriminator's
pairs alike; the scores are of now, as in the trainer. With the correction each token is weighed by the ratio of its
probability now to that when it was written, cut at 2 (verl's ``algorithm.rollout_correction``, token level). Everything
else is the arm "GAD" of ``language.py``.
"""

import copy
import functools
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from study_common import Column, Row, Rows, Run, arguments, arm_table, paired_difference, run_all, show

# isort: split
from gad_in_one_file import Example, Gad, Group
from language import ARMS, FIRST_SEED, GAD, MAIN, REGIMES, SEQKD, judged, seqkd, settings
from oracle_language import STOP_IDS, CausalTransformer
from token_rows import token_log_probs
from torch import Tensor, nn

from gad_verl import core
from gad_verl.data.tokens import EncodedResponse

NAME = "staleness"
AGES = (0, 1, 2, 4, 8)
CUT = 2.0


@dataclass(frozen=True)
class Arm:
    """How old rollouts are.

    Args:
        age: Steps between the student that writes and the one that learns.
        corrects: Whether tokens are weighed.
    """

    age: int
    corrects: bool = False

    @property
    def name(self) -> str:
        """As the tables have it."""
        return f"age {self.age}" + (", corrected" if self.corrects else "")


STALE_ARMS = [Arm(0), *(Arm(age, corrects) for age in AGES[1:] for corrects in (False, True))]


def token_weights(now: Tensor, written: Tensor) -> Tensor:
    """Importance weights (tokens,) of log-probabilities now and when the tokens were written."""
    return torch.exp(now.detach() - written).clamp(max=CUT)


class StaleGad(Gad):
    """GAD whose rollouts are of an earlier student.

    Args:
        arm: How old.
    """

    def __init__(self, *arguments: Any, arm: Arm, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.arm = arm
        self.writers: deque[nn.Module] = deque(maxlen=arm.age + 1)

    def rollout(self, chosen: Sequence[tuple[Example, EncodedResponse]]) -> list[Group]:
        """By the student of ``age`` steps before; the oldest there is in the first steps."""
        student = self.student
        self.writers.append(copy.deepcopy(student))
        self.student = self.writers[0]
        try:
            return super().rollout(chosen)
        finally:
            self.student = student

    def _policy_gradient(
        self, groups: list[Group], advantages: Tensor, weight: float, metrics: dict[str, float]
    ) -> float:
        """That of the base class in one pass, with weights of the tokens."""
        options = self.settings
        rows = [
            (group.prompt_ids, ids, advantage)
            for group, row in zip(groups, advantages.tolist(), strict=True)
            for ids, advantage in zip(group.sampled, row, strict=True)
            if ids is not None
        ]
        prompts, responses, values = zip(*rows, strict=True)
        log_probs, _, row = token_log_probs(self.student, prompts, responses, options.temperature)
        with torch.no_grad():
            written, _, _ = token_log_probs(self.writers[0], prompts, responses, options.temperature)
        tokens, weights = len(log_probs), token_weights(log_probs, written)
        metrics["stale/weight_mean"] = weights.mean().item()
        metrics["stale/kl"] = (written - log_probs.detach()).mean().item()
        if not self.arm.corrects:
            weights = torch.ones_like(weights)
        ratio = (log_probs - log_probs.detach()).exp()
        policy = -(weights * torch.tensor(values)[row] * ratio).sum() / tokens
        kl = torch.zeros_like(policy)
        if options.kl_loss_coef and self.reference is not None:
            with torch.no_grad():
                reference, _, _ = token_log_probs(self.reference, prompts, responses, options.temperature)
            kl = core.low_variance_kl(log_probs, reference).sum() / tokens
        (weight * (policy + options.kl_loss_coef * kl)).backward()
        metrics |= {"actor/pg_loss": policy.item(), "actor/kl_loss": kl.item()}
        return policy.item() + options.kl_loss_coef * kl.item()


def run(arm: Arm | None, seed: int) -> dict[str, Any]:
    """One run; returns its row. Without an arm it is SeqKD, from which all arms go on."""
    regime, common = REGIMES[MAIN], {"regime": MAIN, "arm": SEQKD if arm is None else arm.name, "seed": seed}
    trained, corpus, seqkd_row = seqkd(MAIN, seed)
    if arm is None:
        return common | seqkd_row
    torch.manual_seed(seed + 1)
    discriminator = CausalTransformer(regime.discriminator_width, 2, 2, 1)
    options = settings(regime, ARMS[GAD], seed)
    gad = StaleGad(copy.deepcopy(trained), discriminator, corpus.train, options, STOP_IDS, arm=arm)
    seen: dict[str, list[float]] = {"disc/accuracy": [], "stale/weight_mean": [], "stale/kl": []}

    def watch(step: int, metrics: dict[str, float], _: Gad) -> None:
        for name, values in seen.items():
            values += [metrics[name]] if name in metrics else []

    gad.run([watch])
    return {
        **common,
        **judged(gad.student, corpus, seed),
        "accuracy": _mean(seen["disc/accuracy"][-100:]),
        "weight": _mean(seen["stale/weight_mean"]),
        "kl": _mean(seen["stale/kl"]),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def all_runs(seeds: int) -> list[Run]:
    """Every run, seed by seed: a part of the study has all ages."""
    return [
        Run(f"{SEQKD if arm is None else arm.name}/seed={seed}", functools.partial(run, arm, seed))
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
        for arm in (None, *STALE_ARMS)
    ]


COLUMNS = [
    Column("valid, %", "valid", 1, 100),
    Column("valid answers covered, of 3", "covered"),
    Column("accuracy of D, last 100 steps", "accuracy"),
    Column("KL of the writer to the student, nats a token", "kl", 4),
    Column("mean weight of a token", "weight", 3),
]


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md: all ages, and their differences to fresh rollouts on the same seeds."""
    fresh, parts = Arm(0).name, []
    for arm in STALE_ARMS[1:]:
        points = [100 * value for value in paired_difference(rows, fresh, arm.name, "valid")]
        if points:
            parts.append(f"{arm.name} {show(points, 1)}")
    seeds = sorted({row["seed"] for row in rows})
    note = (
        f"Seeds {seeds[0]} to {seeds[-1]}, {len(rows)} runs, {sum(row['cpu_s'] for row in rows) / 60:.0f} minutes of "
        f"one core. Points of validity against fresh rollouts on the same seeds: {'; '.join(parts) or 'no runs yet'}."
    )
    return [arm_table(rows, [SEQKD, *(arm.name for arm in STALE_ARMS)], COLUMNS) + "\n" + note + "\n"]


def main() -> int:
    options = arguments(__doc__, NAME, seeds=5).parse_args()
    torch.set_num_threads(1)
    return 0 if run_all(Rows(options.rows), all_runs(options.seeds), options.budget_s) else 1


if __name__ == "__main__":
    sys.exit(main())
