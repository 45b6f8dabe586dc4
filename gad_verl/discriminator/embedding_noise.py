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
"""Noise on the input embeddings of some rows of a micro-batch, for the gradient penalty."""

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

NOISE_SEED = "noise_seed"


def row_noise(embeddings: Tensor, seed: int, distance: float) -> Tensor:
    """Gaussian noise for the embeddings (tokens, hidden) of one row.

    Its standard deviation is ``distance`` times the root mean square of the embeddings. The same seed gives the same
    noise whatever the micro-batch.
    """
    generator = torch.Generator(device=embeddings.device).manual_seed(seed)
    noise = torch.randn(embeddings.shape, generator=generator, device=embeddings.device, dtype=torch.float32)
    scale = embeddings.detach().float().square().mean().sqrt() * distance
    return (noise * scale).to(embeddings.dtype)


class EmbeddingNoise:
    """Holds what :meth:`hook`, a forward hook of the embedding module, adds in the next forward pass.

    Args:
        distance: See :func:`row_noise`.
    """

    def __init__(self, distance: float) -> None:
        self._rows: list[tuple[int, int, int, int]] = []
        self._distance = distance

    def clear(self) -> None:
        """No noise."""
        self._rows = []

    def plan(self, micro_batch: TensorDict, shape: torch.Size) -> None:
        """Note the rows with a seed.

        Args:
            micro_batch: With ``noise_seed`` (R,), 0 for none; without it there is no noise.
            shape: Of the token ids that the model gets: (R, longest) padded, or (1, tokens) packed.

        Raises:
            ValueError: If the packed tokens are not those of whole rows (sequence parallelism).
        """
        self.clear()
        if NOISE_SEED not in micro_batch.keys():
            return
        seeds = micro_batch[NOISE_SEED].tolist()
        if not any(seeds):
            return
        offsets = micro_batch["input_ids"].offsets().tolist()
        if shape[0] == 1 and shape[1] < offsets[-1]:
            raise ValueError(
                "the gradient penalty needs whole rows: set discriminator.fsdp.ulysses_sequence_parallel_size=1"
            )
        packed = shape[0] == 1 and len(seeds) > 1
        for row, seed in enumerate(seeds):
            if seed:
                begin, end = offsets[row], offsets[row + 1]
                self._rows.append((0, begin, end, seed) if packed else (row, 0, end - begin, seed))

    def hook(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        """Add the planned noise to the embeddings, once."""
        if not self._rows:
            return output
        noise = torch.zeros_like(output)
        for row, begin, end, seed in self._rows:
            noise[row, begin:end] = row_noise(output[row, begin:end], seed, self._distance)
        self.clear()
        return output + noise
