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
"""Rewards of tokens and phrases: each sampled token's credit of the discriminator's score."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gad_verl.config import RewardConfig
from gad_verl.core.token_credit import mix_granularities
from gad_verl.data.alignment import credit_of_response, token_ends, unit_ends
from gad_verl.data.trajectories import turn_ends
from gad_verl.trainer.encoding import EncodedGroup, Encoding
from gad_verl.trainer.rollouts import RolloutGroup


@dataclass(frozen=True)
class ResponseCredit:
    """Credit of one response's tokens.

    Args:
        of_tokens: One per sampled token; their sum is the score less the value at the end of the prompt.
        ends: Sampled tokens with which the units (sentences or phrases) end.
        aligned: False where it is not known which token brought what: the whole sum then stands on the last one.
    """

    of_tokens: torch.Tensor
    ends: list[int]
    aligned: bool = True


def response_credit(
    group: RolloutGroup, encoded: EncodedGroup, values: Sequence[torch.Tensor], encoding: Encoding, unit: str
) -> list[ResponseCredit | None]:
    """Credit of all responses of a group; None where there is no answer.

    Where tokenizations cannot be aligned the sum is kept, on the last token: the rewards of a group must stay on one
    scale.

    Args:
        group: As sampled.
        encoded: As the discriminator read it.
        values: Its values at every token of each student row, prompt included.
        encoding: Of both sides.
        unit: See :func:`gad_verl.data.alignment.unit_ends`.
    """
    found: list[ResponseCredit | None] = []
    prompt = len(encoded.prompt_ids)
    student, reader = encoding.student, encoding.reader
    for session, response, row in zip(group.answers, encoded.students, values, strict=True):
        if session is None or response is None:
            found.append(None)
            continue
        ids = session.response_ids
        text, finished = student.student_text(ids)
        student_ends = token_ends(student.tokenizer, ids, text, extra=int(finished))
        same = list(ids) == list(response.token_ids)
        reader_ends = None
        if not same:
            reader_text = text if not response.cut else reader.decode(response.token_ids)
            reader_ends = token_ends(reader.tokenizer, response.token_ids, reader_text, extra=int(not response.cut))
        credit = credit_of_response(row[prompt:], row[prompt - 1].item(), reader_ends, student_ends, same)
        if credit is None:
            whole = torch.zeros(len(ids), dtype=row.dtype)
            whole[-1:] = row[-1] - row[prompt - 1]
            found.append(ResponseCredit(whole, [], aligned=False))
            continue
        found.append(ResponseCredit(credit, unit_ends(text, student_ends, unit) if student_ends is not None else []))
    return found


def mix_credit(
    token_level: list[torch.Tensor],
    rewards: torch.Tensor,
    groups: Sequence[RolloutGroup],
    credit: Sequence[Sequence[ResponseCredit | None]],
    config: RewardConfig,
) -> dict[str, float]:
    """Replace the rewards of the trajectories whose credit is known, in place.

    Args:
        token_level: For each trajectory the rewards of its tokens.
        rewards: (N,) sequence rewards of the trajectories.
        groups: Rows of their sessions are positions in ``token_level``.
        credit: One list per group, one entry per session.
        config: ``gad.reward``.

    Returns:
        ``gad/token_credit_missing``: the fraction of responses whose credit stands on the last token as a whole.
    """
    total = missing = 0
    for group, of_group in zip(groups, credit, strict=True):
        for session, entry in zip(group.sessions, of_group, strict=True):
            if session is None:
                continue
            total += 1
            fits = entry is not None and len(entry.of_tokens) == len(token_level[session.row])
            if entry is None or not fits or not bool(torch.isfinite(entry.of_tokens).all()):
                missing += 1
                continue
            missing += not entry.aligned
            token_level[session.row] = mix_granularities(
                rewards[session.row].item(),
                entry.of_tokens.float(),
                entry.ends,
                config.sequence_weight,
                config.phrase_weight,
                config.token_weight,
                last=turn_ends(session.mask)[-1] if any(session.mask) else -1,
            )
    return {"gad/token_credit_missing": missing / total if total else 0.0}
