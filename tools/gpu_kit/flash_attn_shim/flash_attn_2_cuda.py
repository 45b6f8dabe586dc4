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
"""The functions of flash-attn 2.8.3's compiled module that training calls, by the flash-attention kernels inside torch.

flash-attn is published as source that takes an hour to compile. torch holds the same kernels
(aten::_flash_attention_*), so its Python package works on this module. Left out: dropout, ALiBi, soft caps, paged and
quantized keys.
"""

from typing import Any

import torch

_forward = torch.ops.aten._flash_attention_forward
_backward = torch.ops.aten._flash_attention_backward


def _plain(**given: Any) -> None:
    for name, value in given.items():
        if value not in (None, 0, 0.0, False):
            raise NotImplementedError(f"flash_attn_2_cuda on torch: {name}={value}")


def _window(left: int, right: int, causal: bool) -> dict[str, int]:
    # torch: -1 is no bound, as in flash-attn; a causal mask has none on the right.
    return {"window_size_left": left, "window_size_right": right if not causal else -1}


def fwd(q, k, v, out, alibi, dropout, scale, causal, left, right, softcap, return_softmax, generator):
    _plain(out=out, alibi=alibi, dropout=dropout, softcap=softcap)
    length = (q.shape[1], k.shape[1])
    result, lse, rng, _, _ = _forward(
        q, k, v, None, None, *length, 0.0, causal, False, scale=scale, **_window(left, right, causal)
    )
    return result, lse, q.new_empty(0), rng


def bwd(
    dout,
    q,
    k,
    v,
    out,
    lse,
    dq,
    dk,
    dv,
    alibi,
    dropout,
    scale,
    causal,
    left,
    right,
    softcap,
    deterministic,
    generator,
    rng,
):
    _plain(alibi=alibi, dropout=dropout, softcap=softcap)
    empty, length = torch.empty(0, device=q.device), (q.shape[1], k.shape[1])
    found = _backward(
        dout,
        q,
        k,
        v,
        out,
        lse,
        None,
        None,
        *length,
        0.0,
        causal,
        rng,
        empty,
        scale=scale,
        **_window(left, right, causal),
    )
    return _write(found, dq, dk, dv, lse)


def varlen_fwd(
    q, k, v, out, cu_q, cu_k, seqused_k, leftpad_k, block_table, alibi, max_q, max_k, dropout, scale, zero_tensors,
    causal, left, right, softcap, return_softmax, generator,
):  # fmt: skip
    _plain(out=out, seqused_k=seqused_k, leftpad_k=leftpad_k, block_table=block_table, alibi=alibi)
    _plain(dropout=dropout, softcap=softcap)
    result, lse, rng, _, _ = _forward(
        q, k, v, cu_q, cu_k, max_q, max_k, 0.0, causal, False, scale=scale, **_window(left, right, causal)
    )
    return result, lse, q.new_empty(0), rng


def varlen_bwd(
    dout, q, k, v, out, lse, dq, dk, dv, cu_q, cu_k, alibi, max_q, max_k, dropout, scale, zero_tensors, causal,
    left, right, softcap, deterministic, generator, rng,
):  # fmt: skip
    _plain(alibi=alibi, dropout=dropout, softcap=softcap)
    empty = torch.empty(0, device=q.device)
    found = _backward(
        dout, q, k, v, out, lse, cu_q, cu_k, max_q, max_k, 0.0, causal, rng, empty, scale=scale,
        **_window(left, right, causal),
    )  # fmt: skip
    return _write(found, dq, dk, dv, lse)


def _write(found: Any, dq: Any, dk: Any, dv: Any, lse: Any) -> tuple[Any, ...]:
    for target, gradient in zip((dq, dk, dv), found, strict=True):
        if target is not None:
            target.copy_(gradient)
    return dq, dk, dv, torch.empty_like(lse)


def fwd_kvcache(*_: Any, **__: Any) -> None:
    raise NotImplementedError("flash_attn_2_cuda on torch: generation with a cache")
