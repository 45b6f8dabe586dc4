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
"""Which checkpoint to take: the paper's rule, in words.

The paper takes the checkpoint with the best judge score whose responses have an acceptable length (arXiv 2511.10643).
What is acceptable it leaves open; here it is a band for the ratio of mean lengths, student to teacher. Without scores
of one judge for all checkpoints, the one that is hardest to tell from the teacher (lowest two-sample accuracy) is
taken.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gad_verl.core.intervals import Estimate

LENGTH_BAND = (0.7, 1.5)
BY_SCORE, BY_TWO_SAMPLE = "judge score", "two-sample accuracy"


@dataclass(frozen=True)
class Candidate:
    """What the rule looks at.

    Args:
        name: Of the checkpoint.
        length_ratio: Mean response length over the teacher's.
        score: The judge's score; None without.
        two_sample: Accuracy of the two-sample test on words; None without.
    """

    name: str
    length_ratio: float
    score: float | None = None
    two_sample: float | None = None


@dataclass(frozen=True)
class Proposal:
    """What the rule says.

    Args:
        name: The checkpoint; None if none fits.
        criterion: By what; None if there is nothing to go by.
        in_band: Those whose length is acceptable.
        within_noise: Those of them that cannot be told from the proposed one.
        reason: All of it in words.
    """

    name: str | None
    criterion: str | None
    in_band: list[str]
    within_noise: list[str]
    reason: str


# The figure of the second minus that of the first over the same prompts; None if they share none.
Difference = Callable[[str, str], Estimate | None]


def propose(
    candidates: Sequence[Candidate],
    difference: Difference,
    band: tuple[float, float] = LENGTH_BAND,
    scores_comparable: bool = True,
) -> Proposal:
    """Apply the rule.

    Args:
        candidates: At least one.
        difference: Paired difference of the criterion between two candidates, by name.
        band: Lowest and highest acceptable length ratio.
        scores_comparable: Whether all scores come from one judge.
    """
    # Marks that are all 0 give a score that is no number.
    scores = [candidate.score for candidate in candidates]
    with_scores = scores_comparable and not any(score is None or math.isnan(score) for score in scores)
    if not with_scores and any(candidate.two_sample is None for candidate in candidates):
        return Proposal(None, None, [], [], "No proposal: there are neither judge scores nor two-sample tests for all.")
    criterion = BY_SCORE if with_scores else BY_TWO_SAMPLE
    low, high = band
    lengths = ", ".join(f"{candidate.name} {candidate.length_ratio:.2f}" for candidate in candidates)
    inside = [candidate for candidate in candidates if low <= candidate.length_ratio <= high]
    names = [candidate.name for candidate in inside]
    if not inside:
        closest = min(candidates, key=lambda c: max(low - c.length_ratio, c.length_ratio - high))
        return Proposal(
            None,
            criterion,
            [],
            [],
            f"No proposal: no checkpoint's length ratio lies within {low:g} to {high:g} ({lengths}). "
            f"{closest.name} comes closest.",
        )

    def merit(candidate: Candidate) -> float:
        value = candidate.score if with_scores else -(candidate.two_sample or 0.0)
        return value if value is not None else float("-inf")

    best = max(inside, key=merit)
    # A difference is that of the proposed one: whether it is a better or a worse one is in its sign.
    better = 1 if with_scores else -1
    tied, ahead, alone = [], [], False
    for other in inside:
        if other is not best:
            estimate = difference(other.name, best.name)
            if estimate is None or estimate.covers(0):
                tied.append(other.name)
                alone |= estimate is not None and math.isnan(estimate.low)
            elif estimate.value * better < 0:
                ahead.append(other.name)
    sentences = [_opening(best, inside, criterion)]
    outside = [candidate.name for candidate in candidates if candidate not in inside]
    sentences.append(
        f"Length ratios ({lengths}) must lie within {low:g} to {high:g}"
        + (f"; {_list(outside)} left out." if outside else ".")
    )
    if not with_scores:
        why = "not every checkpoint has one" if scores_comparable else "they come from different judges"
        sentences.append(f"Judge scores were not used: {why}.")
    if tied and alone:
        sentences.append("One prompt has no interval: nothing is known of the noise.")
    elif tied:
        sentences.append(
            f"The difference to {_list(tied)} lies within the noise (its 95 % interval holds 0): on these prompts "
            f"{'they are' if len(tied) > 1 else 'it is'} as good a choice."
        )
    if ahead:
        sentences.append(
            f"Over the prompts that both have, {_list(ahead)} {'are' if len(ahead) > 1 else 'is'} better beyond the "
            "noise: compare figures of the same prompts before you choose."
        )
    if len(inside) > 1 and not tied and not ahead:
        sentences.append("The 95 % intervals of the paired differences to all others leave 0 out.")
    if len(inside) > 2:
        sentences.append("The best of several is flattered by chance: confirm it on other prompts.")
    return Proposal(best.name, criterion, names, tied, " ".join(sentences))


def _opening(best: Candidate, inside: Sequence[Candidate], criterion: str) -> str:
    if criterion == BY_SCORE:
        figure = f"judge score {best.score:.1f} (50 is parity)"
        rank = "the highest"
    else:
        figure = f"two-sample accuracy {best.two_sample:.2f} (0.5: cannot be told from the teacher)"
        rank = "the lowest"
    among = f", {rank} of those with an acceptable length" if len(inside) > 1 else ", the only one of acceptable length"
    return f"Proposed: {best.name}, {figure}{among}."


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
