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
"""How far two language models are apart, in nats, from their logits.

With p and q the distributions over the next token behind the same prefix of an answer,

    KL(P, Q) = E over the answers of P of the sum over their tokens of KL(p(.|prefix), q(.|prefix))

is exact: the sum over an answer's tokens has the mean that ``log P(answer) - log Q(answer)`` has. It has less noise,
because the mean over all tokens that could stand at a place is taken instead of the one that does. Answers that a limit
cuts belong to it: it is then the divergence of answers of so many tokens at most.

Logits may lie in memory as they come, in half precision too; what is computed from them is done for some columns of the
vocabulary at a time.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Columns at a time: with 128 tokens 2 MiB of a tensor in single precision, which the caches of a CPU hold.
COLUMNS = 4096


def one_end(logits: Tensor, ends: Sequence[int], temperature: float = 1.0) -> Tensor:
    """The same logits with all tokens that end an answer as one: which of them was written makes no other text.

    Args:
        logits: Shape ``(..., vocabulary)``.
        ends: Columns of these tokens; the first one gets the probability of all, the others get none.
        temperature: At which the logits will be read.

    Returns:
        Shape ``(..., vocabulary)``; ``logits`` themselves if there is one end or none.
    """
    if len(ends) < 2:
        return logits
    merged = logits.clone()
    together = torch.logsumexp(_scaled(logits[..., list(ends)], temperature), dim=-1) * temperature
    merged[..., list(ends)] = float("-inf")
    merged[..., ends[0]] = together.to(merged.dtype)
    return merged


def log_normalizer(logits: Tensor, temperature: float = 1.0, columns: int = COLUMNS) -> Tensor:
    """Log of the sum of ``exp(logits / temperature)`` over the vocabulary.

    Args:
        logits: Shape ``(..., vocabulary)``.
        temperature: Above 0.
        columns: Of the vocabulary, at a time.

    Returns:
        Shape ``(...)``, double precision.

    Raises:
        ValueError: If the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0; got {temperature}")
    total = torch.full(logits.shape[:-1], float("-inf"), dtype=torch.float64, device=logits.device)
    for part in _parts(logits.shape[-1], columns):
        total = torch.logaddexp(total, torch.logsumexp(_scaled(logits[..., part], temperature), dim=-1).double())
    return total


def token_log_probabilities(
    logits: Tensor, token_ids: Tensor, temperature: float = 1.0, columns: int = COLUMNS
) -> Tensor:
    """Log-probability of each token.

    Args:
        logits: Shape ``(..., tokens, vocabulary)``, each behind the prefix of its token.
        token_ids: Shape ``(..., tokens)``.
        temperature: Above 0.
        columns: Of the vocabulary, at a time.

    Returns:
        Shape ``(..., tokens)``, nats, double precision. Their sum is the log-probability of the answer.

    Raises:
        ValueError: If the temperature is not above 0.
    """
    own = logits.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1).double() / temperature
    return own - log_normalizer(logits, temperature, columns)


def token_kl(
    p_logits: Tensor,
    q_logits: Tensor,
    p_temperature: float = 1.0,
    q_temperature: float = 1.0,
    columns: int = COLUMNS,
) -> Tensor:
    """KL(p, q) at each token, over the whole vocabulary.

    A token of logit -inf in p adds nothing; one that p may write and that has -inf in q makes the divergence infinite.

    Args:
        p_logits, q_logits: Shape ``(..., vocabulary)``, the same vocabulary: cut off what pads one of them.
        p_temperature, q_temperature: By which the logits are divided, above 0.
        columns: Of the vocabulary, at a time.

    Returns:
        Shape ``(...)``, nats, double precision, not negative. The sum over an answer's tokens is the answer's.

    Raises:
        ValueError: If the shapes differ, or a temperature is not above 0.
    """
    if p_logits.shape != q_logits.shape:
        raise ValueError(f"logits of two vocabularies: shapes {tuple(p_logits.shape)} and {tuple(q_logits.shape)}")
    p_total = log_normalizer(p_logits, p_temperature, columns).unsqueeze(-1)
    q_total = log_normalizer(q_logits, q_temperature, columns).unsqueeze(-1)
    result = torch.zeros(p_logits.shape[:-1], dtype=torch.float64, device=p_logits.device)
    for part in _parts(p_logits.shape[-1], columns):
        log_p, log_q = _scaled(p_logits[..., part], p_temperature), _scaled(q_logits[..., part], q_temperature)
        log_p, log_q = log_p - p_total.to(log_p.dtype), log_q - q_total.to(log_q.dtype)
        p, q = log_p.exp(), log_q.exp()
        # Of infinities only that of log q may stay: 0 * log 0 is 0.
        ratio = torch.where(log_p == float("-inf"), 0.0, log_p - log_q)
        gain = torch.where(ratio == float("inf"), ratio, p * ratio)
        # q - p sums to 0. With it no term is negative, and what the normalizers were rounded by cancels.
        result += (gain + (q - p)).sum(dim=-1, dtype=torch.float64)
    return result.clamp_min(0.0)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature


def _parts(width: int, columns: int) -> Iterator[slice]:
    return (slice(start, start + columns) for start in range(0, width, columns))
