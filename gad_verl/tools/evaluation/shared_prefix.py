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
"""What all prompts begin with is read once: a teacher's context is often ten times as long as prompt and answer."""

import os
from collections.abc import Sequence
from typing import Any

import torch

# Fewer tokens are not worth a cache.
LEAST = 16


def common_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens with which all prompts begin, shorter than each of them; empty where that is not worth a cache."""
    # The least and the greatest in the order of the dictionary have in common what all have.
    shared = os.path.commonprefix([list(min(prompts)), list(max(prompts))]) if prompts else []
    # The last token of a prompt is read anew: its logits are those of the answer's first token.
    shared = shared[: min(map(len, prompts), default=1) - 1]
    return list(shared) if len(shared) >= LEAST else []


class SharedPrefix:
    """Keys and values of the common prefix, behind which one text after the other is read.

    A model whose cache cannot be cut back to the prefix (sliding windows, recurrent states) reads every text whole.

    Args:
        model: Of transformers, in eval mode.
        prompts: Token ids of all prompts that it will read.
        keeps_logits: Whether it can be asked for some logits alone; those of the prefix are of no use.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], keeps_logits: bool = False) -> None:
        self._model = model
        self._kept = {"logits_to_keep": 1} if keeps_logits else {}
        self._ids = common_prefix(prompts)
        self._cache: Any = None

    def __call__(self, ids: Sequence[int]) -> tuple[list[int], dict[str, Any]]:
        """What is left to read of a text that begins with one of the prompts, and the arguments that say so."""
        if not self._ids or list(ids[: len(self._ids)]) != self._ids:
            return list(ids), {"use_cache": False}
        if self._cache is None:
            self._cache = self._read()
            if self._cache is None:
                self._ids = []
                return list(ids), {"use_cache": False}
        # The text before this one stands behind the prefix.
        self._cache.crop(len(self._ids))
        return list(ids[len(self._ids) :]), {"use_cache": True, "past_key_values": self._cache}

    def _read(self) -> Any:
        from transformers.cache_utils import DynamicCache, DynamicLayer

        read = torch.tensor([self._ids], device=self._model.device)
        cache = getattr(self._model(input_ids=read, use_cache=True, **self._kept), "past_key_values", None)
        if type(cache) is not DynamicCache or not cache.layers:
            return None
        return cache if all(type(layer) is DynamicLayer for layer in cache.layers) else None
