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
"""Where each sequence of a batch goes: one pass or two, and which rank reads it.

The driver decides, from the lengths of all sequences, for all ranks: a rank that decided by its own data would wait
for the others for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

from gad_verl.errors import GadConfigError


@dataclass(frozen=True)
class BatchPlan:
    """Order of the units (groups or rows) of a batch, in equal consecutive parts for the ranks.

    Args:
        order: Positions of the units; None stands for a unit of padding.
        imbalance: Tokens of the rank that reads most over the mean of the ranks; 1 is perfect.
    """

    order: list[int | None]
    imbalance: float

    def padded(self, units: Sequence, padding: object) -> list:
        """The units in the order of the plan."""
        return [padding if position is None else units[position] for position in self.order]

    def restored(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the plan's units (first dimension) in the order in which the units were given."""
        positions = [place for place, position in enumerate(self.order) if position is not None]
        inverse = torch.empty(len(positions), dtype=torch.long)
        inverse[torch.tensor([self.order[place] for place in positions])] = torch.tensor(positions)
        return values[inverse]


def fits_one_pass(group_tokens: Sequence[int], longest_row: int, max_tokens: int | None, passes: str, key: str) -> bool:
    """Whether every group goes through the discriminator as a whole.

    Args:
        group_tokens: Tokens of each group, teacher and students.
        longest_row: Tokens of the longest single sequence.
        max_tokens: Tokens that a micro-batch holds; None where micro-batches are counted in sequences.
        passes: ``gad.discriminator_passes``.
        key: Configuration key of ``max_tokens``, for the error.

    Raises:
        GadConfigError: If a group (``passes="one"``) or a single sequence fits no micro-batch.
    """
    if passes == "two":
        one_pass = False
    else:
        one_pass = max_tokens is None or max(group_tokens) <= max_tokens
    if passes == "one" and not one_pass:
        raise GadConfigError(
            f"a group of one teacher and its student responses has {max(group_tokens)} tokens, but a micro-batch of "
            f"the discriminator holds {max_tokens}: raise {key} to at least {max(group_tokens)}, or set "
            "gad.discriminator_passes=auto, which reads such batches in two passes"
        )
    if max_tokens is not None and longest_row > max_tokens:
        raise GadConfigError(
            f"a sequence has {longest_row} tokens, but a micro-batch of the discriminator holds {max_tokens}: raise "
            f"{key} to at least {longest_row}, or lower data.max_prompt_length or data.max_response_length"
        )
    return one_pass


def plan_batch(lengths: Sequence[Sequence[int]], num_ranks: int, multiple_per_rank: int = 1) -> BatchPlan:
    """Spread units over ranks so that each rank has as many units as the others and about as much to compute.

    Work is estimated as in verl (``calculate_workload``: tokens, and their square for attention). Within a rank the
    longest units come first: sequences of like length meet in a micro-batch and pad each other little.

    Args:
        lengths: For each unit the lengths of its sequences, in tokens.
        num_ranks: Data-parallel ranks.
        multiple_per_rank: Each rank's number of units is a multiple of this.
    """
    count = num_ranks * multiple_per_rank
    padding = -len(lengths) % count
    tokens = [sum(unit) for unit in lengths] + [0] * padding
    workloads = [int(calculate_workload(torch.tensor(unit)).sum()) for unit in lengths] + [0] * padding
    parts = get_seqlen_balanced_partitions(workloads, num_ranks, equal_size=True)
    parts = [sorted(part, key=lambda position: (-workloads[position], position)) for part in parts]
    per_rank = [sum(tokens[position] for position in part) for part in parts]
    order = [position if position < len(lengths) else None for part in parts for position in part]
    return BatchPlan(order, imbalance=max(per_rank) * num_ranks / max(1, sum(per_rank)))
