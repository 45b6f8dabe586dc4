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
"""Rewards of trajectories from scores of groups."""

import math

import pytest
import torch

from gad_verl.trainer.rollouts import RolloutGroup
from gad_verl.trainer.session_rewards import session_rewards


def _group(rows: list[int | None]) -> RolloutGroup:
    return RolloutGroup(
        index=0,
        messages=[],
        teacher_text="",
        rows=rows,
        response_ids=[None if row is None else [1] for row in rows],
        prompt_ids=[],
    )


def test_each_session_gets_its_score_and_all_its_outputs_the_same() -> None:
    keys = ["a_0_0", "a_0_1", "a_1_0", "b_1_0"]
    # The first session of "a" has two outputs, of which the last is scored; session 0 of "b" failed.
    groups = [_group([1, 2]), _group([None, 3])]
    scores = torch.randn(2, 2)
    rewards, nonfinite = session_rewards(keys, groups, scores)
    assert rewards.tolist() == pytest.approx(
        [scores[0, 0].item(), scores[0, 0].item(), scores[0, 1].item(), scores[1, 1].item()]
    )
    assert nonfinite == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_becomes_the_mean_of_its_group_and_is_counted(bad: float) -> None:
    keys = ["a_0_0", "a_1_0", "a_2_0", "b_0_0", "b_1_0"]
    groups = [_group([0, 1, 2]), _group([3, 4, None])]
    scores = torch.tensor([[1.0, bad, 4.0], [bad, bad, bad]])
    rewards, nonfinite = session_rewards(keys, groups, scores)
    # The failed session is no response: its placeholder does not count. A whole group without a score takes the mean.
    assert rewards.tolist() == pytest.approx([1.0, 2.5, 4.0, 2.5, 2.5])
    assert nonfinite == 3


def test_no_finite_score_at_all_ends_the_run_with_a_remedy() -> None:
    with pytest.raises(FloatingPointError, match="discriminator.optim.lr"):
        session_rewards(["a_0_0"], [_group([0])], torch.full((1, 1), math.nan))
