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
"""Rows of the supervised stages: one per prompt, loss on the teacher's tokens."""

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu


def build_supervised_batch(
    rows: list[tuple[list[int], list[int]]], multiple_of: int, num_mini_batches: int, pad_token_id: int
) -> TensorDict:
    """Rows for cross-entropy on the responses (verl's ``sft_loss``), token-mean over each mini-batch.

    Args:
        rows: Prompt ids and response ids of each prompt; both with at least one token.
        multiple_of: The number of rows is raised to a multiple of this by rows without loss.
        num_mini_batches: Optimizer steps.
        pad_token_id: Fills rows without loss.

    Raises:
        ValueError: If there is no row, or a prompt or response is empty.
    """
    if not rows:
        raise ValueError("a supervised batch needs at least one row")
    if any(not prompt or not response for prompt, response in rows):
        raise ValueError("prompts and responses of a supervised batch need at least one token")
    sequences = [torch.tensor([*prompt, *response], dtype=torch.long) for prompt, response in rows]
    # verl shifts the flattened mask by one: a row must begin with a token without loss, which the prompt gives.
    masks = [torch.tensor([0] * len(prompt) + [1] * len(response)) for prompt, response in rows]
    for _ in range(-len(rows) % multiple_of):
        sequences.append(torch.full((2,), pad_token_id, dtype=torch.long))
        masks.append(torch.zeros(2, dtype=torch.long))
    return tu.get_tensordict(
        {
            "input_ids": torch.nested.as_nested_tensor(sequences, layout=torch.jagged),
            "position_ids": torch.nested.as_nested_tensor(
                [torch.arange(len(sequence)) for sequence in sequences], layout=torch.jagged
            ),
            "loss_mask": torch.nested.as_nested_tensor(masks, layout=torch.jagged),
        },
        {
            # The likelihood of the text, not of a sharpened distribution (verl divides the logits by it).
            "temperature": 1.0,
            "num_mini_batch": num_mini_batches,
            "epochs": 1,
            "dataloader_kwargs": {"shuffle": False},
            "calculate_entropy": False,
            "global_batch_size": len(sequences),
        },
    )
