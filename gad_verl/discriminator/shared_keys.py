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
"""The prompt of a group is encoded once, under flash attention.

Flash attention takes no mask, but it takes sequences whose keys are more than their queries; the last query then sees
the last key. So a response is a sequence of its own whose keys and values are those of the prompt and its own: they are
computed once, and copied before the kernel. No masked pair is computed, and windows of attention end where they should.

Shape letters: T tokens of all groups, S sequences (a prompt, or what a row has beside it), K keys of all sequences.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gad_verl.discriminator.shared_prompt import group_parts
from gad_verl.errors import GadConfigError

FLASH_NAMES = ("flash_attention_2", "flash_attention_3")
# Models hand unknown arguments down to their attention.
_KEYS = "shared_prompt_keys"


class SharedKeys:
    """Which keys each sequence of a batch sees.

    One argument of the model: a kernel that were given the offsets without the keys would read beyond its memory. No
    dataclass: FSDP takes those apart and hands each layer a copy, and the layers are counted here.

    Args:
        index: (K,), positions of the keys of all sequences, one sequence after the other.
        query_offsets: (S + 1,) int32, where the queries of each sequence begin, and their end.
        key_offsets: (S + 1,) int32, the same of the keys.
        longest: Queries and keys of the longest sequences.
    """

    def __init__(self, index: Tensor, query_offsets: Tensor, key_offsets: Tensor, longest: tuple[int, int]) -> None:
        self.index, self.query_offsets, self.key_offsets, self.longest = index, query_offsets, key_offsets, longest
        self._layers = 0

    def offsets(self) -> dict[str, Any]:
        """For a layer that was given the keys, under transformers' names of what its flash attention takes."""
        self._layers += 1
        return {
            "cu_seq_lens_q": self.query_offsets,
            "cu_seq_lens_k": self.key_offsets,
            "max_length_q": self.longest[0],
            "max_length_k": self.longest[1],
        }

    def check(self, layers: int, family: str) -> None:
        """After a forward pass: a layer that was not given the keys attended to something else, without an error.

        Raises:
            GadConfigError: If there was one.
        """
        if self._layers < layers:
            raise GadConfigError(
                f"gad.discriminator_share_prompt=always: {self._layers} of {layers} layers of the family {family} were "
                "told which keys a response sees. Set it to never"
            )


@dataclass(frozen=True)
class KeyedGroups:
    """Groups with shared prompts, as a model with flash attention reads them: one row, nothing padded.

    Args:
        input_ids: (1, T).
        position_ids: (1, T).
        keys: For its attention.
        token_index: Positions of the tokens of all rows one after the other.
    """

    input_ids: Tensor
    position_ids: Tensor
    keys: SharedKeys
    token_index: Tensor

    def model_inputs(self) -> dict[str, Any]:
        """Arguments of the model; what it does not know itself is for its attention."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": None,
            "position_ids": self.position_ids,
            _KEYS: self.keys,
        }


def pack_keyed_groups(rows: Sequence[Tensor], prompt_lengths: Sequence[int], group_size: int) -> KeyedGroups:
    """Pack rows of groups; the arguments are those of ``pack_groups``."""
    device = rows[0].device
    ids, positions, keys, index = [], [], [], []
    queries, seen = [0], [0]
    base = 0
    for number, prompt in enumerate(prompt_lengths):
        offset = base
        parts = group_parts(rows[number * group_size : (number + 1) * group_size], prompt)
        for segment, (own, before) in enumerate(parts):
            own_keys = [torch.arange(base, base + before), torch.arange(offset, offset + len(own))]
            if segment > 0:
                index += own_keys
            # A row that is its prompt has no query of its own, and a kernel may not take an empty sequence.
            if len(own) > 0:
                ids.append(own)
                positions.append(torch.arange(before, before + len(own)))
                keys += own_keys
                queries.append(len(own))
                seen.append(before + len(own))
            offset += len(own)
        base = offset

    def offsets(lengths: list[int]) -> Tensor:
        return torch.tensor(lengths).cumsum(0).to(device, torch.int32)

    # Made where lengths are known, and moved once.
    return KeyedGroups(
        input_ids=torch.cat(ids).unsqueeze(0),
        position_ids=torch.cat(positions).unsqueeze(0).to(device),
        keys=SharedKeys(torch.cat(keys).to(device), offsets(queries), offsets(seen), (max(queries), max(seen))),
        token_index=torch.cat(index).to(device),
    )


class AttentionWithKeys:
    """An attention function of transformers that takes keys and values from where the sequences have them.

    Without the argument of a packed batch it is the function that it wraps.
    """

    def __init__(self, attention: Callable) -> None:
        self._attention = attention

    def __call__(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """transformers' attention interface; queries, keys and values are (1, heads, T, width)."""
        keys = kwargs.pop(_KEYS, None)
        if keys is not None:
            key, value = key.index_select(2, keys.index), value.index_select(2, keys.index)
            kwargs |= keys.offsets()
        return self._attention(module, query, key, value, attention_mask, *args, **kwargs)


def attend_with_keys(name: str) -> None:
    """Let an attention of transformers take keys; once in a process, for all models.

    Args:
        name: One of :data:`FLASH_NAMES`.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    found = ALL_ATTENTION_FUNCTIONS[name]
    if not isinstance(found, AttentionWithKeys):
        ALL_ATTENTION_FUNCTIONS.register(name, AttentionWithKeys(found))
