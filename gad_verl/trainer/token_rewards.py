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
"""Rewards of tokens and phrases: shares of the discriminator's score on the tokens that the student sampled."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gad_verl.config import RewardConfig
from gad_verl.core.shares import mix_granularities
from gad_verl.data.alignment import shares_of_response, token_ends, unit_ends
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.trainer.rollouts import EncodedGroup, RolloutGroup


@dataclass(frozen=True)
class ResponseShares:
    """Shares of one response.

    Args:
        shares: One per sampled token; their sum is the score less the value at the end of the prompt.
        ends: Sampled tokens with which the units (sentences or phrases) end.
        aligned: False where it is not known which token brought what: the whole sum then stands on the last one.
    """

    shares: torch.Tensor
    ends: list[int]
    aligned: bool = True


def response_shares(
    group: RolloutGroup,
    encoded: EncodedGroup,
    values: Sequence[torch.Tensor],
    student: SequenceBuilder,
    reader: SequenceBuilder,
    unit: str,
) -> list[ResponseShares | None]:
    """Shares of all responses of a group; None for a failed rollout.

    Where tokenizations cannot be aligned the sum is kept, on the last token: the rewards of a group must stay on one
    scale.

    Args:
        group: As sampled.
        encoded: As the discriminator read it.
        values: Its values at every token of each student row, prompt included.
        student, reader: Builders of the student's and of the discriminator's tokenizer.
        unit: See :func:`gad_verl.data.alignment.unit_ends`.
    """
    found: list[ResponseShares | None] = []
    prompt = len(encoded.prompt_ids)
    for ids, response, row in zip(group.response_ids, encoded.students, values, strict=True):
        if ids is None or response is None:
            found.append(None)
            continue
        text, finished = student.student_text(ids)
        student_ends = token_ends(student.tokenizer, ids, text, extra=int(finished))
        same = list(ids) == list(response.token_ids)
        reader_ends = None
        if not same:
            reader_text = text if not response.cut else reader.decode(response.token_ids)
            reader_ends = token_ends(reader.tokenizer, response.token_ids, reader_text, extra=int(response.finished))
        shares = shares_of_response(row[prompt:], row[prompt - 1].item(), reader_ends, student_ends, same)
        if shares is None:
            whole = torch.zeros(len(ids), dtype=row.dtype)
            whole[-1:] = row[-1] - row[prompt - 1]
            found.append(ResponseShares(whole, [], aligned=False))
            continue
        found.append(ResponseShares(shares, unit_ends(text, student_ends, unit) if student_ends is not None else []))
    return found


def mix_into(
    token_level: list[torch.Tensor],
    rewards: torch.Tensor,
    groups: Sequence[RolloutGroup],
    shares: Sequence[Sequence[ResponseShares | None]],
    config: RewardConfig,
) -> dict[str, float]:
    """Replace the rewards of the trajectories whose shares are known, in place.

    Args:
        token_level: For each trajectory the rewards of its tokens.
        rewards: (N,) sequence rewards of the trajectories.
        groups: Their ``rows`` are positions in ``token_level``.
        shares: One list per group, one entry per session.
        config: ``gad.reward``.

    Returns:
        ``gad/shares_missing``: the fraction of responses whose shares stand on the last token as a whole.
    """
    total = missing = 0
    for group, of_group in zip(groups, shares, strict=True):
        for position, entry in zip(group.rows, of_group, strict=True):
            if position is None:
                continue
            total += 1
            fits = entry is not None and len(entry.shares) == len(token_level[position])
            if not fits or not bool(torch.isfinite(entry.shares).all()):
                missing += 1
                continue
            missing += not entry.aligned
            token_level[position] = mix_granularities(
                rewards[position].item(),
                entry.shares.float(),
                entry.ends,
                config.sequence_weight,
                config.phrase_weight,
                config.token_weight,
            )
    return {"gad/shares_missing": missing / total if total else 0.0}
