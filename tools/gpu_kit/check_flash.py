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
"""Do torch's flash-attention kernels give through the flash-attn package what plain attention gives?"""

import sys

import torch
import torch.nn.functional as F
from flash_attn import flash_attn_func, flash_attn_varlen_func
from flash_attn.ops.triton.cross_entropy import cross_entropy_loss

torch.manual_seed(0)
worst = 0.0


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    heads = q.shape[1] // k.shape[1]
    q, k, v = (
        t.transpose(0, 1).double()[None] for t in (q, k.repeat_interleave(heads, 1), v.repeat_interleave(heads, 1))
    )
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)


def compare(name: str, found: torch.Tensor, wanted: torch.Tensor) -> None:
    global worst
    distance = ((found.double() - wanted).norm() / wanted.norm()).item()
    worst = max(worst, distance)
    sys.stdout.write(f"{name}: {distance:.1e}\n")


for heads, key_heads, width in ((4, 4, 64), (14, 2, 64), (12, 2, 128), (2, 1, 32)):
    lengths = [5, 129, 64]
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device="cuda")
    shapes = ((heads, width), (key_heads, width), (key_heads, width))
    leaves = [
        torch.randn(sum(lengths), *shape, device="cuda", dtype=torch.bfloat16).requires_grad_() for shape in shapes
    ]
    output = flash_attn_varlen_func(*leaves, offsets, offsets, max(lengths), max(lengths), causal=True)
    weight = torch.randn_like(output)
    gradients = torch.autograd.grad((output * weight).sum(), leaves)
    parts = [plain(*(leaf[a:b] for leaf in leaves)) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    wanted = torch.autograd.grad((torch.cat(parts) * weight.double()).sum(), leaves)
    compare(f"varlen {heads}/{key_heads}x{width}", output, torch.cat(parts).detach())
    for side, found, true in zip("qkv", gradients, wanted, strict=True):
        compare(f"  gradient {side}", found, true.double())
    dense = flash_attn_func(*(leaf[None, :64] for leaf in leaves), causal=True)[0]
    compare("  dense", dense, plain(*(leaf[:64] for leaf in leaves)).detach())
logits = torch.randn(33, 49152, device="cuda", dtype=torch.bfloat16)
labels = torch.randint(0, 49152, (33,), device="cuda")
compare(
    "cross-entropy", cross_entropy_loss(logits, labels)[0], F.cross_entropy(logits.double(), labels, reduction="none")
)
sys.exit(0 if worst < 2e-2 else f"off by {worst}")
