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
"""The objective that mixes the discriminator's score with the teacher's texts."""

import math
import random

import pytest
import torch

from gad_verl.core import blended_rate, loss_weights
from gad_verl.core.advantages import group_process_advantages


def test_the_ends_are_seqkd_and_gad() -> None:
    nothing, everything = loss_weights(0.0), loss_weights(1.0)
    assert (nothing.policy, nothing.texts) == (0.0, 1.0)
    assert (everything.policy, everything.texts) == (1.0, 0.0)
    assert blended_rate(0.0, 1e-6, 5e-6) == 5e-6
    assert blended_rate(1.0, 1e-6, 5e-6) == 1e-6


def test_between_them_weights_are_linear_and_the_rate_is_geometric() -> None:
    random_ = random.Random(1)
    for _ in range(50):
        knowledge, anchor = random_.random(), random_.random()
        rates = 10 ** random_.uniform(-7, -3), 10 ** random_.uniform(-7, -3)
        weights = loss_weights(knowledge, anchor)
        assert weights.policy == knowledge
        assert weights.policy + weights.texts == pytest.approx(1 + anchor)
        expected = knowledge * math.log(rates[0]) + (1 - knowledge) * math.log(rates[1])
        assert math.log(blended_rate(knowledge, *rates)) == pytest.approx(expected)


def test_a_rate_of_zero_stops_only_what_has_a_part() -> None:
    assert blended_rate(0.5, 0.0, 1e-3) == 0.0
    assert blended_rate(0.0, 0.0, 1e-3) == 1e-3


@pytest.mark.parametrize("knowledge", [-0.1, 1.1, math.nan])
def test_knowledge_out_of_range(knowledge: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        loss_weights(knowledge)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        blended_rate(knowledge, 1.0, 1.0)


def test_negative_anchors_and_rates() -> None:
    with pytest.raises(ValueError, match="anchor"):
        loss_weights(0.5, -0.1)
    with pytest.raises(ValueError, match="rates"):
        blended_rate(0.5, -1e-6, 1e-6)


def test_margins_of_the_best_discriminator_are_nats() -> None:
    """The minimum of the expected Bradley-Terry loss is the log density ratio, up to a constant."""
    torch.manual_seed(3)
    teacher, student = torch.randn(6).softmax(0).double(), torch.randn(6).softmax(0).double()
    scores = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        margins = scores.unsqueeze(1) - scores.unsqueeze(0)
        loss = -(teacher.unsqueeze(1) * student.unsqueeze(0) * torch.nn.functional.logsigmoid(margins)).sum()
        loss.backward()
        return loss

    for _ in range(20):
        optimizer.step(closure)
    found, ratio = scores.detach(), (teacher / student).log()
    torch.testing.assert_close(found - found.mean(), ratio - ratio.mean(), atol=1e-4, rtol=1e-4)


def test_process_advantages_in_the_unit_of_the_rewards() -> None:
    torch.manual_seed(1)
    rewards, mask = torch.randn(8, 5), torch.ones(8, 5)
    groups = [0, 0, 0, 0, 1, 1, 1, 1]
    scaled = group_process_advantages(3 * rewards, mask, groups, divide_by_std=False)
    plain = group_process_advantages(rewards, mask, groups, divide_by_std=False)
    torch.testing.assert_close(scaled, 3 * plain)
    centred = rewards.view(2, 20) - rewards.view(2, 20).mean(dim=1, keepdim=True)
    torch.testing.assert_close(plain, centred.view(8, 5).flip(1).cumsum(1).flip(1))
