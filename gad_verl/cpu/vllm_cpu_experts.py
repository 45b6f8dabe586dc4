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
"""Experts in vLLM's CPU build that compute from their live weights, as torch does: no packing, no padding."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional


def _gate_and_up(act: Callable[[torch.Tensor], torch.Tensor], both: torch.Tensor) -> torch.Tensor:
    gate, up = both.chunk(2, dim=-1)
    return act(gate) * up


def _gpt_oss(both: torch.Tensor) -> torch.Tensor:
    """Gate and up by turns, both cut (transformers' GptOssExperts)."""
    gate, up = both[..., ::2].clamp(max=7.0), both[..., 1::2].clamp(-7.0, 7.0)
    return gate * torch.sigmoid(1.702 * gate) * (up + 1.0)


# By vLLM's MoEActivation; those that its experts on a CPU know.
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": partial(_gate_and_up, functional.silu),
    "gelu": partial(_gate_and_up, functional.gelu),
    "gelu_tanh": partial(_gate_and_up, partial(functional.gelu, approximate="tanh")),
    "swigluoai": _gpt_oss,
}


def mix_experts(
    hidden: torch.Tensor,
    w13: torch.Tensor,
    w2: torch.Tensor,
    biases: tuple[torch.Tensor | None, torch.Tensor | None],
    chosen: torch.Tensor,
    weights: torch.Tensor,
    activation: str,
) -> torch.Tensor:
    """The weighted sum of each token's experts.

    Args:
        hidden: [tokens, h].
        w13: Gate and up, [experts, 2 * i, h].
        w2: Down, [experts, h, i].
        biases: Of both, [experts, 2 * i] and [experts, h].
        chosen: Numbers of the experts of each token, [tokens, k].
        weights: Of these, [tokens, k].
        activation: vLLM's name.

    Returns:
        [tokens, h].
    """
    mixed = torch.zeros_like(hidden)
    for expert in chosen.unique().tolist():
        token, place = (chosen == expert).nonzero(as_tuple=True)
        first, second = (None if bias is None else bias[expert].to(hidden.dtype) for bias in biases)
        inner = _ACTIVATIONS[activation](functional.linear(hidden[token], w13[expert], first))
        out = functional.linear(inner, w2[expert], second)
        mixed.index_add_(0, token, out * weights[token, place, None].to(out.dtype))
    return mixed


def keep_live_weights(experts: Any) -> None:
    """Let vLLM's class of unquantized experts on a CPU compute from the layer's own weights.

    Args:
        experts: ``CPUUnquantizedExperts``; its subclasses differ in the kernel alone.
    """

    def process_weights_after_loading(self: Any, layer: Any) -> None:
        self.use_grouped_topk = layer.use_grouped_topk
        self.renormalize = layer.renormalize
        self.scoring_func = layer.scoring_func
        self.custom_routing_function = layer.custom_routing_function

    def apply(
        self: Any,
        hidden_states: torch.Tensor,
        w1: torch.Tensor,
        w2: torch.Tensor,
        router_logits: torch.Tensor,
        activation: Any,
        global_num_experts: int,
        expert_map: torch.Tensor | None,
        a1q_scale: torch.Tensor | None,
        apply_router_weight_on_input: bool,
        num_expert_group: int | None = None,
        e_score_correction_bias: torch.Tensor | None = None,
        routed_scaling_factor: float | None = None,
        topk_group: int | None = None,
    ) -> torch.Tensor:
        weights, chosen = self._select_experts(
            hidden_states, router_logits, num_expert_group, topk_group, e_score_correction_bias, routed_scaling_factor
        )
        if apply_router_weight_on_input:
            hidden_states = hidden_states * weights.to(hidden_states.dtype)
            weights = torch.ones_like(weights)
        return mix_experts(
            hidden_states, w1, w2, (self.w1_bias, self.w2_bias), chosen.long(), weights, activation.value
        )

    experts.process_weights_after_loading = process_weights_after_loading
    experts.apply = apply
