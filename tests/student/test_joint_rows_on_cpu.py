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
"""Rows of rollouts and texts in one batch, without an engine: what is refused, and a mini-batch of padding alone."""

from functools import partial
from typing import Any

import pytest
import torch
from joint_probe import LAYOUTS, nested, policy_batch, policy_loss, rows
from verl.utils import tensordict_utils as tu

from gad_verl.core import LossWeights
from gad_verl.data.image_rows import column
from gad_verl.data.prompt_images import PromptImages, positions_of
from gad_verl.trainer.supervised import SupervisedRow, build_text_rows
from gad_verl.workers.joint_update import IS_TEXT, JOINT, JointLoss, TextRows, join_rows, joint_loss

WEIGHTS = LossWeights(0.4, 0.6)


@pytest.fixture
def parts() -> tuple[Any, Any]:
    """A mini-batch of rollouts, and the texts that join it."""
    rollouts, texts = rows(seed=2)
    for row in rollouts:
        row["old"] = row["reference"] = torch.zeros(len(row["response"]))
    held = build_text_rows([SupervisedRow(*text) for text in texts], 1, 1, 1, WEIGHTS, 0)
    return policy_batch(rollouts, LAYOUTS["plain"], len(rollouts)), held


def test_the_rows_are_those_of_both_and_each_has_its_temperature(parts: tuple[Any, Any]) -> None:
    policy, texts = parts
    joined = join_rows(policy, texts)
    is_text = joined[IS_TEXT].tolist()
    assert is_text == [False] * len(policy) + [True] * len(texts)
    assert joined["temperature"].tolist() == pytest.approx([1.0 if text else 0.8 for text in is_text])
    for name in ("prompts", "responses", "response_mask"):
        found = [row.tolist() for row in joined[name].unbind()]
        assert found == [row.tolist() for part in (policy, texts) for row in part[name].unbind()]
    assert "rm_scores" not in joined


def test_what_texts_cannot_have_is_refused_by_name(parts: tuple[Any, Any]) -> None:
    policy, texts = parts
    kept = {key: policy[key] for key in ("input_ids", "position_ids")}
    policy = tu.get_tensordict({**kept, "routed_experts": torch.zeros(len(policy), 2)})
    with pytest.raises(ValueError, match="rollouts with routed_experts"):
        join_rows(policy, texts)


def test_texts_bring_their_images_and_positions(parts: tuple[Any, Any]) -> None:
    """As verl's agent loops leave rollouts of a student with eyes: four rows of positions, inputs for each row."""
    policy, _ = parts
    # Rows of one length, which torch's own nested tensors would take for another shape.
    positions = [positions_of(len(ids), None) + 7 for ids in policy["input_ids"].unbind()]
    policy["position_ids"] = tu.nested_tensor_from_tensor_list(positions)
    policy["multi_modal_inputs"] = column([{"pixel_values": torch.full((1, 2), float(n))} for n in range(len(policy))])
    seen = torch.arange(4).repeat(4, 1)
    seen[1:, 2:] = 1
    images = PromptImages({"pixel_values": torch.full((1, 2), 50.0)}, seen)
    rows_of_texts = [SupervisedRow([1, 2, 3, 4], [5, 6], images=images), SupervisedRow([1, 2, 3], [4, 5, 6])]
    joined = join_rows(policy, build_text_rows(rows_of_texts, 1, 1, 3, WEIGHTS, 0))
    found = joined["position_ids"].unbind()
    for row, expected in zip(found, positions, strict=False):
        assert torch.equal(row, expected)
    given = [one.get("pixel_values") for one in tu.get(joined, "multi_modal_inputs")]
    assert [one[0, 0].item() for one in given[: len(policy)]] == list(range(len(policy)))
    assert [None if one is None else one[0, 0].item() for one in given[len(policy) :]].count(50.0) == 1
    of_image = next(n for n, one in enumerate(given) if one is not None and one[0, 0] == 50)
    assert found[of_image].tolist() == [[0, 1, 2, 3, 4, 5], *[[0, 1, 1, 1, 2, 3]] * 3]


def test_a_mini_batch_of_padding_alone_teaches_its_texts(parts: tuple[Any, Any]) -> None:
    """verl fills up what failed with rows without loss; they may be all that a mini-batch has."""
    policy, texts = parts
    nothing = [torch.zeros(len(mask), dtype=torch.long) for mask in policy["response_mask"].unbind()]
    policy["response_mask"] = policy["loss_mask"] = nested(nothing)
    joined = join_rows(policy, texts)
    tokens = float(sum(mask.sum() for mask in texts["response_mask"].unbind()))
    tu.assign_non_tensor_data(joined, JOINT, JointLoss(WEIGHTS, 0.0, tokens))
    tu.assign_non_tensor(joined, dp_size=1, batch_num_tokens=tokens)
    log_probs = torch.full((len(joined["input_ids"].values()),), -2.0, requires_grad=True)
    loss, metrics = joint_loss(partial(policy_loss(LAYOUTS["plain"])), {"log_probs": log_probs}, joined)
    assert loss.item() == pytest.approx(WEIGHTS.texts * 2.0)
    loss.backward()
    assert bool(torch.isfinite(log_probs.grad).all()) and log_probs.grad.abs().sum() > 0
    assert all(value == value for metric in metrics.values() for value in getattr(metric, "values", [metric]))


def test_a_second_epoch_takes_the_same_rows_again() -> None:
    texts = [SupervisedRow([1], [number + 2]) for number in range(6)]
    held = TextRows(build_text_rows(texts, 1, 3, 1, WEIGHTS, 0), 3, WEIGHTS)
    first, second = (
        [held.of_mini_batch(number)["responses"].values().tolist() for number in (0 + e, 1 + e, 2 + e)] for e in (0, 3)
    )
    assert first == second and sorted(sum(first, [])) == list(range(2, 8))


def test_rows_are_dealt_so_that_no_mini_batch_is_without_a_text() -> None:
    texts = [SupervisedRow([1] * (length + 1), [2]) for length in range(5)]
    held = build_text_rows(texts, ranks=2, num_mini_batches=3, multiple_of=2, weights=WEIGHTS, pad_token_id=0)
    real = torch.stack([mask.sum() for mask in held["response_mask"].unbind()]).view(2, 3, 2)
    assert int(real.sum()) == 5
    assert bool((real.sum(dim=(0, 2)) > 0).all())
    with pytest.raises(ValueError, match="at least one row"):
        build_text_rows([], 1, 1, 1, WEIGHTS, 0)
