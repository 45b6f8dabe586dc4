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
"""Rewards of turns: what each turn of the assistant brought to the discriminator's score."""

from collections.abc import Sequence

import torch

from gad_verl.core.token_credit import value_credit
from gad_verl.data.trajectories import Trajectory, turn_ends
from gad_verl.trainer.encoding import EncodedGroup
from gad_verl.trainer.rollouts import RolloutGroup
from gad_verl.trainer.token_credit import ResponseCredit


def turn_credit(
    group: RolloutGroup, encoded: EncodedGroup, values: Sequence[torch.Tensor], mean: bool
) -> list[ResponseCredit | None]:
    """Credit of all trajectories of a group, on the last token of each turn; None where there is no trajectory.

    A turn gets the value at its end less the value at the end of the turn before (of the first turn: at the end of the
    prompt). The sum is the score less that value, which all trajectories of a group have in common.

    Args:
        group: As sampled.
        encoded: As the discriminator read it.
        values: Its values at every token of each student row, prompt included.
        mean: Whether the score is the mean over the ends of turns: a turn then gets its share of that.
    """
    found: list[ResponseCredit | None] = []
    start = len(encoded.prompt_ids) - 1
    for session, read, row in zip(group.answers, encoded.students, values, strict=True):
        if session is None or not isinstance(read, Trajectory):
            found.append(None)
            continue
        places = turn_ends(session.mask)
        at_ends, before = row[[start + 1 + end for end in read.ends]], row[start].item()
        shares = (at_ends - before) / len(at_ends) if mean else value_credit(at_ends, before)
        credit = torch.zeros(len(session.response_ids), dtype=row.dtype)
        # A row that was cut for the discriminator may have fewer turns; what follows brought nothing.
        credit[places[: len(shares)]] = shares
        found.append(ResponseCredit(credit, places))
    return found
