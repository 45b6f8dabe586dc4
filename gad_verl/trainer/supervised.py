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
"""The student's supervised steps, in the warmup and in SeqKD: cross-entropy on the teacher's text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.metric import reduce_metrics
from verl.utils.py_functional import rename_dict

from gad_verl.config.modes import updates_of_step
from gad_verl.core import LossWeights
from gad_verl.data.image_rows import IMAGES, column, set_images
from gad_verl.data.prompt_images import PromptImages
from gad_verl.data.tokens import EncodedResponse
from gad_verl.discriminator.worker_group import data_parallel_size
from gad_verl.workers.row_gradients import ROW_GRADIENT


@dataclass(frozen=True)
class SupervisedRow:
    """One sequence to learn.

    Args:
        prompt_ids: The prompt, at least one token; no loss.
        response_ids: The response, at least one token.
        loss_mask: 1 for each token of the response that has a loss, 0 for the others; None means all of them.
        images: Of the prompt.

    Raises:
        ValueError: If there is no token, or the mask is not as long as the response.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    loss_mask: list[int] | None = None
    images: PromptImages | None = None

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.response_ids:
            raise ValueError("prompts and responses of a supervised batch need at least one token")
        if self.loss_mask is not None and len(self.loss_mask) != len(self.response_ids):
            raise ValueError(f"{len(self.loss_mask)} entries of a loss mask for {len(self.response_ids)} tokens")

    @property
    def mask(self) -> list[int]:
        """Of the response."""
        return [1] * len(self.response_ids) if self.loss_mask is None else self.loss_mask


def supervised_row_of(
    prompt_ids: list[int],
    response: EncodedResponse,
    given_ids: Sequence[int] = (),
    images: PromptImages | None = None,
) -> SupervisedRow:
    """The row of a teacher's text.

    Args:
        prompt_ids: The prompt.
        response: The text.
        given_ids: What stands between both and is not learned.
        images: Of the prompt.
    """
    if not response.token_ids:
        # A limit below one character leaves nothing of a text: a row without loss, whose token nobody learns.
        return SupervisedRow(prompt_ids, prompt_ids[-1:], [0], images)
    if not given_ids:
        return SupervisedRow(prompt_ids, response.token_ids, images=images)
    mask = [0] * len(given_ids) + [1] * len(response.token_ids)
    return SupervisedRow(prompt_ids, [*given_ids, *response.token_ids], mask, images)


def build_supervised_batch(
    rows: Sequence[SupervisedRow],
    multiple_of: int,
    num_mini_batches: int,
    pad_token_id: int,
    gradients: Sequence[float] | None = None,
) -> TensorDict:
    """Rows for cross-entropy on the responses (verl's ``sft_loss``), token-mean over each mini-batch.

    Args:
        rows: At least one.
        multiple_of: The number of rows is raised to a multiple of this by rows without loss.
        num_mini_batches: Optimizer steps.
        pad_token_id: Fills rows without loss.
        gradients: Of another loss by the log-probability of each row (:mod:`gad_verl.workers.row_gradients`); None for
            cross-entropy.

    Raises:
        ValueError: If there is no row.
    """
    if not rows:
        raise ValueError("a supervised batch needs at least one row")
    sequences = [torch.tensor([*row.prompt_ids, *row.response_ids], dtype=torch.long) for row in rows]
    # verl shifts the flattened mask by one: a row must begin with a token without loss, which the prompt gives.
    masks = [torch.tensor([0] * len(row.prompt_ids) + row.mask) for row in rows]
    for _ in range(-len(rows) % multiple_of):
        sequences.append(torch.full((2,), pad_token_id, dtype=torch.long))
        masks.append(torch.zeros(2, dtype=torch.long))
    of_rows = {}
    if gradients is not None:
        padded = [*gradients, *[0.0] * (len(sequences) - len(rows))]
        of_rows[ROW_GRADIENT] = torch.tensor(padded, dtype=torch.float32)
    batch = tu.get_tensordict(
        {
            **of_rows,
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
    if any(row.images is not None for row in rows):
        images = [row.images for row in rows] + [None] * (len(sequences) - len(rows))
        set_images(batch, images, [len(sequence) for sequence in sequences])
    return batch


def in_equal_hands(count: int, hands: int, multiple_of: int) -> list[int | None]:
    """Places 0 to ``count - 1`` in their order, cut into so many parts of one size; None where a part is filled up.

    Each mini-batch of each rank is a part: filled up at their end alone, the last ones would have no token to learn.

    Args:
        count: At least one.
        hands: Parts.
        multiple_of: The size of a part is raised to a multiple of this.
    """
    size = -(-count // hands)
    size += -size % multiple_of
    each, more = divmod(count, hands)
    found: list[int | None] = []
    begin = 0
    for hand in range(hands):
        end = begin + each + (hand < more)
        found += [*range(begin, end), *[None] * (size - (end - begin))]
        begin = end
    return found


def build_text_rows(
    rows: Sequence[SupervisedRow],
    ranks: int,
    num_mini_batches: int,
    multiple_of: int,
    weights: LossWeights,
    pad_token_id: int,
) -> TensorDict:
    """Rows that join the mini-batches of a policy update (:mod:`gad_verl.workers.joint_update`).

    Each mini-batch of each rank gets as many as any other, and of all lengths: dealt out by falling length.

    Args:
        rows: At least one.
        ranks: Data-parallel ranks; the rows of each stand together, in the order of the mini-batches.
        num_mini_batches: Of one epoch of the update.
        multiple_of: The rows of a mini-batch on a rank are raised to a multiple of this by rows without loss.
        weights: Of the two terms of the loss.
        pad_token_id: Fills rows without loss.

    Raises:
        ValueError: If there is no row.
    """
    if not rows:
        raise ValueError("a supervised batch needs at least one row")
    hands = ranks * num_mini_batches
    size = -(-len(rows) // hands)
    size += -size % multiple_of
    padding = SupervisedRow([pad_token_id], [pad_token_id], [0])
    falling = sorted(rows, key=lambda row: len(row.prompt_ids) + len(row.response_ids), reverse=True)
    dealt: list[list[SupervisedRow]] = [[] for _ in range(hands)]
    for number, row in enumerate(falling):
        # Mini-batches first: none of them is left without a text. Every other round the other way, as in a draft.
        turn, seat = divmod(number, hands)
        rank, mini_batch = divmod(seat if turn % 2 == 0 else hands - 1 - seat, num_mini_batches)
        dealt[rank * num_mini_batches + mini_batch].append(row)
    ordered = [row for hand in dealt for row in [*hand, *[padding] * (size - len(hand))]]
    seen = [row.images for row in ordered]
    return tu.get_tensordict(
        {
            "prompts": _nested([row.prompt_ids for row in ordered]),
            "responses": _nested([row.response_ids for row in ordered]),
            "response_mask": _nested([row.mask for row in ordered]),
            **({IMAGES: column(seen)} if any(one is not None for one in seen) else {}),
        },
        {"num_mini_batches": num_mini_batches, "policy_weight": weights.policy, "texts_weight": weights.texts},
    )


def _nested(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row, dtype=torch.long) for row in rows], layout=torch.jagged)


class SupervisedStep:
    """Trains the student on rows.

    Args:
        student: Its worker group.
        config: The whole configuration.
        pad_token_id: Of the student's tokenizer.
        reference: Worker group of the reference; None where there is none, or where it is the student's adapter.
    """

    def __init__(self, student: Any, config: DictConfig, pad_token_id: int, reference: Any = None) -> None:
        actor = config.actor_rollout_ref.actor
        self._student, self._pad_token_id = student, pad_token_id
        self._padding = SupervisedRow([pad_token_id], [pad_token_id], [0])
        self._reference = reference
        self._rollouts_of_mini_batch = actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
        prompts = config.data.train_batch_size // updates_of_step(config)
        self._num_mini_batches = max(1, prompts // actor.ppo_mini_batch_size)
        self._micro_batch = 1 if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu
        reads = config.actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu
        self._micro_batch_read = 1 if actor.use_dynamic_bsz else reads
        ref = config.actor_rollout_ref.ref
        self._micro_batch_ref = 1 if ref.log_prob_use_dynamic_bsz else ref.log_prob_micro_batch_size_per_gpu

    def train(self, rows: Sequence[SupervisedRow], gradients: Sequence[float] | None = None) -> dict[str, Any]:
        """The optimizer steps of one training step; returns metrics.

        Args:
            rows: At least one.
            gradients: See :func:`build_supervised_batch`.
        """
        ranks = data_parallel_size(self._student, "actor")
        mini_batches = min(self._num_mini_batches, len(rows))
        places = in_equal_hands(len(rows), ranks * mini_batches, self._micro_batch)
        data = build_supervised_batch(
            [self._padding if place is None else rows[place] for place in places],
            multiple_of=1,
            num_mini_batches=mini_batches,
            pad_token_id=self._pad_token_id,
            gradients=None if gradients is None else [0.0 if one is None else gradients[one] for one in places],
        )
        metrics = rename_dict(self._student.update_actor(data)["metrics"], "actor/")
        metrics["perf/mfu/actor"] = metrics.pop("actor/mfu")
        tokens = float(sum(sum(row.mask) for row in rows))
        return reduce_metrics(metrics) | {"gad/supervised_tokens": tokens}

    def losses(self, rows: Sequence[SupervisedRow]) -> list[float]:
        """Cross-entropy of each row in nats, as the student is now; nobody learns."""
        multiple_of = data_parallel_size(self._student, "actor") * self._micro_batch_read
        return self._losses(rows, multiple_of, self._student.compute_log_prob)

    def reference_losses(self, rows: Sequence[SupervisedRow]) -> list[float]:
        """The same under the reference of the KL loss."""
        if self._reference is None:
            multiple_of = data_parallel_size(self._student, "actor") * self._micro_batch_read
            return self._losses(rows, multiple_of, self._student.compute_log_prob, no_lora_adapter=True)
        multiple_of = data_parallel_size(self._reference, "ref") * self._micro_batch_ref
        return self._losses(rows, multiple_of, self._reference.compute_ref_log_prob)

    def _losses(
        self,
        rows: Sequence[SupervisedRow],
        multiple_of: int,
        read: Callable[[TensorDict], Any],
        **options: Any,
    ) -> list[float]:
        data = build_supervised_batch(rows, multiple_of, num_mini_batches=1, pad_token_id=self._pad_token_id)
        tu.assign_non_tensor(data, compute_loss=False, **options)
        # At each token the log-probability of the next one, as verl's models give it.
        log_probs = tu.get(read(data), "log_probs").unbind()
        masks = data["loss_mask"].unbind()[: len(rows)]
        return [-float(found[:-1] @ mask[1:].to(found)) for found, mask in zip(log_probs, masks, strict=False)]

    def join(self, rows: Sequence[SupervisedRow], num_rollouts: int, weights: LossWeights) -> dict[str, float]:
        """Let rows join the student's next policy update; returns metrics.

        Args:
            rows: Of the teacher's texts of the step.
            num_rollouts: Rows of the policy update, those of verl's padding included.
            weights: Of the two terms of the loss.
        """
        texts = build_text_rows(
            rows,
            ranks=data_parallel_size(self._student, "actor"),
            num_mini_batches=num_rollouts // self._rollouts_of_mini_batch,
            multiple_of=self._micro_batch,
            weights=weights,
            pad_token_id=self._pad_token_id,
        )
        self._student.learn_also_from(texts)
        return {"gad/supervised_tokens": float(sum(sum(row.mask) for row in rows))}
