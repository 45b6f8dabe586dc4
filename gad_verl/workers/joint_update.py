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
"""The student's update on rollouts and teacher's texts together: one batch, a loss by row, one backward.

The rows of the texts wait on the workers and join each mini-batch there, so that all that verl counts, balances, pads
and measures on its driver are the rollouts alone. In the loss both kinds part again: verl's policy loss sees the
rollouts only, normalized by their own tokens, whatever its mode and aggregation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict
from tensordict.tensorclass import NonTensorData
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.engine_workers import TrainingWorker
from verl.workers.utils.losses import sft_loss
from verl.workers.utils.padding import no_padding_2_padding

from gad_verl.core import LossWeights
from gad_verl.data.image_rows import MULTI_MODAL_INPUTS, column, images_of_rows, model_inputs
from gad_verl.data.prompt_images import positions_of

IS_TEXT, JOINT = "gad_is_text", "gad_joint"
# What verl's ppo_loss reads of a rollout beside its tokens, as far as options ask for it.
_OF_TOKENS = ("old_log_probs", "advantages", "ref_log_prob", "rollout_is_weights")
# What an engine reads of every row if it reads it at all, and what a teacher's text does not bring.
_REFUSED = ("routed_experts", "teacher_logprobs", "teacher_ids")


@dataclass(frozen=True)
class JointLoss:
    """How a mini-batch's loss is put together.

    Args:
        weights: Of its two terms.
        policy_tokens, text_tokens: Tokens with a loss in the global mini-batch, of all ranks.
    """

    weights: LossWeights
    policy_tokens: float
    text_tokens: float


@dataclass(frozen=True)
class TextRows:
    """A rank's rows of a step's texts.

    Args:
        rows: Nested ``prompts``, ``responses``, ``response_mask``; equal parts for the mini-batches, one after another.
        num_mini_batches: Of an epoch of the update.
        weights: Of the two terms of the loss.
    """

    rows: TensorDict
    num_mini_batches: int
    weights: LossWeights

    def of_mini_batch(self, number: int) -> TensorDict:
        """The rows that join a mini-batch; a second epoch takes them again."""
        size = len(self.rows) // self.num_mini_batches
        begin = (number % self.num_mini_batches) * size
        return tu.index_select_tensor_dict(self.rows, list(range(begin, begin + size)))


def _nested(rows: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def join_rows(policy: TensorDict, texts: TensorDict) -> TensorDict:
    """Rollouts and texts as one batch, with ``gad_is_text`` (N,) bool and a temperature for every row.

    Args:
        policy: A mini-batch of verl's policy update.
        texts: Nested ``prompts``, ``responses``, ``response_mask``; with images ``gad_images``.

    Raises:
        ValueError: If the rollouts carry what texts cannot have.
    """
    refused = [name for name in _REFUSED if name in policy]
    if refused:
        raise ValueError(f"rollouts with {', '.join(refused)} cannot be trained together with the teacher's texts")
    images = images_of_rows(texts) or [None] * len(texts)
    prompts, responses = texts["prompts"].unbind(), texts["responses"].unbind()
    sequences = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    masks = list(texts["response_mask"].unbind())
    positions = [positions_of(len(row), one).to(row.device) for row, one in zip(sequences, images, strict=True)]
    if policy["position_ids"].dim() == 2:
        # A student without eyes.
        positions = [row[0] for row in positions]
    added = {
        "input_ids": sequences,
        "position_ids": positions,
        "prompts": list(prompts),
        "responses": list(responses),
        "response_mask": masks,
        "loss_mask": masks,
    }
    nothing = [torch.zeros(len(mask), device=mask.device) for mask in masks]
    added |= {name: nothing for name in _OF_TOKENS if name in policy}
    fields: dict[str, Any] = {
        # torch's own would take four for the length of rows of positions that are equally long.
        name: tu.nested_tensor_from_tensor_list([*policy[name].unbind(), *(row.to(policy[name].dtype) for row in rows)])
        for name, rows in added.items()
    }
    if MULTI_MODAL_INPUTS in policy:
        fields[MULTI_MODAL_INPUTS] = column([*tu.get(policy, MULTI_MODAL_INPUTS), *model_inputs(images)])
    device = policy["input_ids"].device
    is_text = torch.tensor([False] * len(policy) + [True] * len(texts), device=device)
    fields[IS_TEXT] = is_text
    plain = {name: value.data for name, value in policy.items() if isinstance(value, NonTensorData)}
    temperature = plain["temperature"]
    # The likelihood of a text is that of the model, not of a sharpened distribution. One number where all agree: verl's
    # fused kernels take no other.
    if temperature != 1.0:
        del plain["temperature"]
        fields["temperature"] = torch.where(is_text, 1.0, float(temperature))
    return tu.get_tensordict(fields, plain)


def weighted_sft_loss(
    weight: float, model_output: dict[str, Any], data: TensorDict, dp_group: Any = None
) -> tuple[Tensor, dict[str, Any]]:
    """verl's ``sft_loss`` times a weight: the joint loss where no rollout takes part."""
    loss, metrics = sft_loss(None, model_output, data, dp_group)
    return weight * loss, metrics


def _rows(value: Tensor, offsets: Tensor, chosen: list[int]) -> Tensor:
    """Some rows of what the model says of every token, as a flat tensor."""
    flat = value.values() if value.is_nested else value
    bounds = offsets.tolist()
    return torch.cat([flat[bounds[row] : bounds[row + 1]] for row in chosen])


def _part(output: dict[str, Any], data: TensorDict, chosen: list[int]) -> tuple[dict[str, Any], TensorDict]:
    offsets = data["input_ids"].offsets()
    values = {name: _rows(value, offsets, chosen) for name, value in output.items() if isinstance(value, Tensor)}
    return values, tu.index_select_tensor_dict(data, chosen)


def _nobody(output: dict[str, Any], data: TensorDict) -> tuple[dict[str, Any], TensorDict]:
    """A rollout of two tokens that says nothing, for the names of the metrics of a micro-batch without rollouts."""
    values, rows = _part(output, data, [0])
    device = data["input_ids"].device
    one = torch.ones(1, dtype=torch.long, device=device)
    for name in ("prompts", "responses", "response_mask", "loss_mask"):
        rows[name] = _nested([one])
    for name in _OF_TOKENS:
        if name in rows:
            rows[name] = _nested([torch.zeros(1, device=device)])
    return {name: torch.zeros(2, device=device, dtype=value.dtype) for name, value in values.items()}, rows


def cross_entropy(output: dict[str, Any], data: TensorDict, num_tokens: float) -> Tensor:
    """Negative log-likelihood of the responses, a mean over ``num_tokens``; times the number of ranks, as verl wants.

    Args:
        output: ``log_probs`` of all tokens, nested or flat.
        data: The rows.
        num_tokens: Tokens with a loss in the global mini-batch.
    """
    log_probs = no_padding_2_padding(output["log_probs"], data)
    mask = data["response_mask"].to_padded_tensor(0).to(log_probs.dtype)
    return -(log_probs * mask).sum() / num_tokens * data["dp_size"]


def joint_loss(
    policy_loss: Callable[..., tuple[Tensor, dict[str, Any]]],
    model_output: dict[str, Any],
    data: TensorDict,
    dp_group: Any = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Loss of a micro-batch of :func:`join_rows`: the weighted sum of verl's policy loss and of cross-entropy.

    Metrics of verl's that are means of a micro-batch become token means of the mini-batch: micro-batches have different
    numbers of rollouts here.

    Args:
        policy_loss: verl's ``ppo_loss``, its configuration given.
        model_output, data, dp_group: See verl/workers/utils/losses.py.
    """
    joint: JointLoss = tu.get_non_tensor_data(data, JOINT, default=None)
    is_text = data[IS_TEXT].tolist()
    rollouts = [row for row, text in enumerate(is_text) if not text]
    texts = [row for row, text in enumerate(is_text) if text]
    output, rows = _part(model_output, data, rollouts) if rollouts else _nobody(model_output, data)
    # A mini-batch may consist of verl's padding alone, where many rollouts failed: its loss is 0, not 0 / 0.
    policy_tokens = max(1.0, joint.policy_tokens)
    tu.assign_non_tensor(rows, batch_num_tokens=policy_tokens)
    policy, metrics = policy_loss(model_output=output, data=rows, dp_group=dp_group)
    tokens = rows["loss_mask"].values().sum().item() if rollouts else 0.0
    share = tokens * data["dp_size"] / policy_tokens
    loss = joint.weights.policy * policy if rollouts else torch.zeros_like(policy)
    text_loss = torch.zeros_like(policy)
    if texts:
        text_loss = cross_entropy(*_part(model_output, data, texts), max(1.0, joint.text_tokens))
        loss = loss + joint.weights.texts * text_loss
    metrics = {name: _of_tokens(value, share, bool(rollouts)) for name, value in metrics.items()}
    metrics["text_loss"] = Metric(value=text_loss, aggregation=AggregationType.SUM)
    return loss, metrics


def _of_tokens(value: Any, share: float, has_rollouts: bool) -> Any:
    if not isinstance(value, Metric):
        return value
    if value.aggregation is AggregationType.MEAN:
        return Metric(value=share * value.aggregate(), aggregation=AggregationType.SUM)
    return value if has_rollouts else Metric(value=0.0, aggregation=value.aggregation)


class StudentTraining(TrainingWorker):
    """verl's training worker; while it holds :attr:`texts`, they join the mini-batches of its updates."""

    texts: TextRows | None = None
    # verl's, which mypy does not see.
    loss_fn: Any
    _mini_batch = 0

    def hold(self, texts: TextRows | None) -> None:
        """Keep the rows for the next update; None drops them."""
        self.texts, self._mini_batch = texts, 0

    def train_batch(self, data: TensorDict) -> TensorDict:
        """One optimizer step."""
        if self.texts is None:
            return super().train_batch(data)
        texts = self.texts.of_mini_batch(self._mini_batch).to(data["input_ids"].device)
        self._mini_batch += 1
        joined = join_rows(data, texts)
        self._count(joined, len(data))
        policy_loss, self.loss_fn = self.loss_fn, partial(joint_loss, self.loss_fn)
        try:
            return super().train_batch(joined)
        finally:
            self.loss_fn = policy_loss

    def _count(self, joined: TensorDict, num_rollouts: int) -> None:
        """Tokens of both kinds, and the lengths of all rows for verl's count of operations, over all ranks."""
        assert self.texts is not None
        tokens = [mask.sum().item() for mask in joined["loss_mask"].unbind()]
        mine = (sum(tokens[:num_rollouts]), sum(tokens[num_rollouts:]), joined["input_ids"].offsets().diff().tolist())
        group = self.engine.get_data_parallel_group()
        every: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(every, mine, group=group)
        joint = JointLoss(self.texts.weights, sum(one[0] for one in every), sum(one[1] for one in every))
        lengths = NonTensorData([length for one in every for length in one[2]])
        tu.assign_non_tensor(joined, global_token_num=lengths)
        tu.assign_non_tensor_data(joined, JOINT, joint)
