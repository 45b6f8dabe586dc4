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
"""flash-attn's functions in plain torch, one sequence after the other: a model asked for flash attention runs on a CPU.

Written from what the package documents: without a mask, causal sequences end together (the last query sees the last
key), a window counts tokens to the left, a group of query heads shares a head of keys.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor


def _attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None, causal: bool, window: int, softcap: float
) -> Tensor:
    """One sequence: (tokens, heads, width)."""
    heads = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(heads, 1), value.repeat_interleave(heads, 1)
    scores = torch.einsum("qhw,khw->hqk", query.float(), key.float())
    scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(len(query)).unsqueeze(1) + len(key) - len(query) - torch.arange(len(key))
    if causal:
        scores = scores.masked_fill(distance < 0, -torch.inf)
    if window >= 0:
        scores = scores.masked_fill(distance > window, -torch.inf)
    return torch.einsum("hqk,khw->qhw", scores.softmax(-1), value.float()).to(query.dtype)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Tensor:
    """Sequences one after the other: (tokens of all, heads, width)."""
    assert dropout_p == 0 and cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    ends_q, ends_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    assert len(ends_q) == len(ends_k) and (ends_q[-1], ends_k[-1]) == (len(q), len(k))
    parts = []
    for number in range(len(ends_q) - 1):
        mine, seen = slice(*ends_q[number : number + 2]), slice(*ends_k[number : number + 2])
        assert 0 < mine.stop - mine.start <= max_seqlen_q and 0 < seen.stop - seen.start <= max_seqlen_k
        parts.append(_attend(q[mine], k[seen], v[seen], softmax_scale, causal, window_size[0], softcap))
    return torch.cat(parts)


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Tensor:
    """Sequences of one length: (sequences, tokens, heads, width)."""
    rows = zip(q, k, v, strict=True)
    return torch.stack([_attend(*row, softmax_scale, causal, window_size[0], softcap) for row in rows])


def _target_dtype(query: Tensor, module: torch.nn.Module) -> torch.dtype | None:
    """transformers looks for the type of a linear layer, and GPT-2 has none."""
    if query.dtype == torch.float32 and torch.is_autocast_enabled(query.device.type):
        return torch.get_autocast_dtype(query.device.type)
    return None


@contextmanager
def plain_flash() -> Iterator[None]:
    """transformers takes these functions for the package's, in float32 too, which no kernel computes in."""
    from transformers import PreTrainedModel
    from transformers import modeling_flash_attention_utils as utils
    from transformers.integrations import flash_attention

    functions = (flash_attn_func, flash_attn_varlen_func, None, utils._pad_input, utils._unpad_input)
    with (
        mock.patch.object(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True),
        # Of this module alone: what imports from it is bound to its other functions by name.
        mock.patch.object(utils, "_lazy_imports", lambda *_, **__: functions),
        mock.patch.object(utils, "_loaded_implementation", None),
        mock.patch.object(flash_attention, "get_target_dtype", _target_dtype),
    ):
        yield
