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
"""Experts of vLLM's CPU build compute from the weights that are there now, as transformers does."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.activations import ACT2FN

from gad_verl.cpu.vllm_cpu_experts import keep_live_weights, mix_experts

HIDDEN, INNER, EXPERTS, TOKENS, CHOSEN = 6, 5, 4, 9, 2


def parts(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    scores = draw(TOKENS, EXPERTS)
    weights, chosen = scores.softmax(-1).topk(CHOSEN)
    return {
        "hidden": draw(TOKENS, HIDDEN),
        "w13": draw(EXPERTS, 2 * INNER, HIDDEN),
        "w2": draw(EXPERTS, HIDDEN, INNER),
        "biases": (draw(EXPERTS, 2 * INNER), draw(EXPERTS, HIDDEN)),
        "chosen": chosen,
        "weights": weights,
        "scores": scores,
    }


def by_hand(given: dict[str, Any], act: Any) -> torch.Tensor:
    """Token by token."""
    rows = []
    for token in range(TOKENS):
        total = torch.zeros(HIDDEN)
        for place in range(CHOSEN):
            expert = int(given["chosen"][token, place])
            both = given["w13"][expert] @ given["hidden"][token] + given["biases"][0][expert]
            out = given["w2"][expert] @ act(both) + given["biases"][1][expert]
            total += given["weights"][token, place] * out
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("name", "of_transformers"), [("silu", "silu"), ("gelu", "gelu"), ("gelu_tanh", "gelu_pytorch_tanh")]
)
def test_gated_experts(name: str, of_transformers: str) -> None:
    given = parts(1)
    found = mix_experts(**{key: value for key, value in given.items() if key != "scores"}, activation=name)
    act = ACT2FN[of_transformers]
    torch.testing.assert_close(found, by_hand(given, lambda both: act(both[:INNER]) * both[INNER:]))


def test_experts_of_gpt_oss_are_those_of_transformers() -> None:
    from transformers import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    given = parts(2)
    # Large enough that gates and ups are cut.
    given["w13"] *= 6
    config = GptOssConfig(hidden_size=HIDDEN, intermediate_size=INNER, num_local_experts=EXPERTS)
    theirs = GptOssExperts(config)
    with torch.no_grad():
        theirs.gate_up_proj.copy_(given["w13"].transpose(1, 2))
        theirs.gate_up_proj_bias.copy_(given["biases"][0])
        theirs.down_proj.copy_(given["w2"].transpose(1, 2))
        theirs.down_proj_bias.copy_(given["biases"][1])
        expected = theirs.eval()(given["hidden"], given["chosen"], given["weights"]).view(TOKENS, HIDDEN)
    found = mix_experts(**{key: value for key, value in given.items() if key != "scores"}, activation="swigluoai")
    torch.testing.assert_close(found, expected)


def test_what_is_loaded_later_is_computed_with() -> None:
    """vLLM's own class packs the weights once, and takes what comes later as packed."""

    class Experts:
        w1_bias = w2_bias = None

        def process_weights_after_loading(self, layer: Any) -> None:
            raise AssertionError("packed")

        def _select_experts(self, hidden: torch.Tensor, router: torch.Tensor, *_: Any) -> Any:
            return (*router.softmax(-1).topk(CHOSEN),)

    class Kernel(Experts):
        """As those of one processor."""

    keep_live_weights(Experts)
    experts, given = Kernel(), parts(3)
    layer = SimpleNamespace(
        use_grouped_topk=False, renormalize=False, scoring_func="softmax", custom_routing_function=None
    )
    experts.process_weights_after_loading(layer)  # type: ignore[no-untyped-call]
    given["biases"] = (torch.zeros(EXPERTS, 2 * INNER), torch.zeros(EXPERTS, HIDDEN))
    act = ACT2FN["silu"]
    for _ in range(2):
        found = experts.apply(  # type: ignore[attr-defined]
            given["hidden"],
            given["w13"],
            given["w2"],
            given["scores"],
            SimpleNamespace(value="silu"),
            EXPERTS,
            None,
            None,
            False,
        )
        torch.testing.assert_close(found, by_hand(given, lambda both: act(both[:INNER]) * both[INNER:]))
        # A later update writes in place.
        given["w13"].mul_(-0.5)
        given["w2"].add_(0.3)
