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
"""What all prompts begin with is read once, and nothing that is computed notices it."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

from gad_verl.tools.evaluation.shared_prefix import LEAST, SharedPrefix, common_prefix

SIZE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2}
ATTENTION = {"intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
MODELS: dict[str, Any] = {
    "full attention": lambda: LlamaForCausalLM(LlamaConfig(**SIZE, **ATTENTION)),
    "sliding windows": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZE, **ATTENTION, sliding_window=8)),
    "recurrent states": lambda: MambaForCausalLM(MambaConfig(**SIZE, state_size=4)),
}


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.lists(st.integers(0, 3), min_size=1), min_size=1))
def test_the_prefix_is_the_longest_that_leaves_each_prompt_a_token(head: list[int], tails: list[list[int]]) -> None:
    prompts = [[*head, *tail] for tail in tails]
    shared = 0
    while all(shared + 1 < len(prompt) and prompt[shared] == prompts[0][shared] for prompt in prompts):
        shared += 1
    assert common_prefix(prompts) == (prompts[0][:shared] if shared >= LEAST else [])
    assert common_prefix([]) == []


@pytest.mark.parametrize("kind", MODELS)
def test_logits_are_those_of_whole_texts_in_any_order(kind: str) -> None:
    torch.manual_seed(3)
    model = MODELS[kind]().eval()
    draw = torch.Generator().manual_seed(4)

    def tokens(number: int) -> list[int]:
        return torch.randint(50, (number,), generator=draw).tolist()

    head = tokens(20)
    prompts = [[*head, *tokens(length)] for length in (3, 9, 1)]
    unread = SharedPrefix(model, prompts)
    lengths = []
    # The short text after the long one: nothing of the longer may stay behind. A foreign text is read whole.
    texts = [[*prompts[place], *tokens(length)] for place, length in ((0, 2), (1, 12), (2, 4), (1, 1), (0, 6))]
    for text in [*texts, tokens(30), texts[0]]:
        ids, behind = unread(text)
        lengths.append(len(text) - len(ids))
        with torch.inference_mode():
            whole = model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -len(ids) :]
            part = model(input_ids=torch.tensor([ids]), **behind).logits[0]
        torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5)
    assert set(lengths) == ({0, 20} if kind == "full attention" else {0})
    assert lengths[-2] == 0
