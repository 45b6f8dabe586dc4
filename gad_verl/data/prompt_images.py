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
"""The images of a prompt as models read them, and the positions of its tokens."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class PromptImages:
    """The images of a prompt as models read them; one object for all rows of the prompt.

    Args:
        inputs: What verl calls ``multi_modal_inputs``: ``pixel_values``, ``image_grid_thw`` ...
        positions: (4, P) positions of the prompt's P tokens, as verl's agent loop makes them: one row by the number of
            the token, three for time, height and width.
        files: Contents of their files; empty where nobody will ask.
    """

    inputs: dict[str, torch.Tensor]
    positions: torch.Tensor
    files: tuple[bytes, ...] = ()


def positions_of(length: int, images: PromptImages | None) -> torch.Tensor:
    """(4, ``length``) positions of a row of tokens: those of its prompt, then on from the largest one.

    Args:
        length: Tokens of the row, prompt included.
        images: Of its prompt; None for a row of text.
    """
    numbers = torch.arange(length)
    if images is None:
        return numbers.repeat(4, 1)
    prompt = images.positions.shape[1]
    seen = images.positions[1:].max() + 1
    after = seen + torch.arange(length - prompt)
    return torch.cat([numbers.unsqueeze(0), torch.cat([images.positions[1:], after.repeat(3, 1)], dim=1)])
