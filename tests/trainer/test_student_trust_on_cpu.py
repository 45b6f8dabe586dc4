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
"""Held-out prompts and the factor of the student's rate, on made-up scores."""

import pytest
import torch

from gad_verl.config import RecordConfig, TrustConfig
from gad_verl.core import Phase
from gad_verl.core.teacher_mix import WeightedText
from gad_verl.discriminator.worker_group import DiscriminatorOutput
from gad_verl.trainer.rollouts import RolloutGroup, Session, StepRollouts
from gad_verl.trainer.run_log import RunLog
from gad_verl.trainer.scored import ScoredStep, StepInfo
from gad_verl.trainer.trust import StudentTrust

N = 3


def group(number: int) -> RolloutGroup:
    messages = [{"role": "user", "content": f"question {number}"}]
    sessions = tuple(Session(row, [1], [1]) for row in range(N))
    return RolloutGroup(number, messages, [1], (WeightedText("text", 1.0),), "text", sessions)


def trust_of(config: TrustConfig) -> StudentTrust:
    return StudentTrust(config, RunLog(RecordConfig(enable=False)))


GROUPS = [group(number) for number in range(200)]


def scored(number: int, phase: Phase, chosen: list[bool], right: float) -> ScoredStep:
    info = StepInfo(number, phase, visit=0, num_sessions=N)
    return ScoredStep(info, StepRollouts("train", [], GROUPS), [], output(chosen, right))


def output(chosen: list[bool], right: float) -> DiscriminatorOutput:
    """Right on all training prompts, and on a share of the held-out ones."""
    teacher, held = torch.ones(200), 0
    for number, out in enumerate(chosen):
        if out:
            teacher[number] = 1.0 if held < right * sum(chosen) else -1.0
            held += 1
    return DiscriminatorOutput(teacher, torch.zeros(200, N), torch.ones(200, N), {})


def test_prompts_are_held_out_by_their_text_and_the_factor_follows_the_accuracy_on_them() -> None:
    config = TrustConfig(held_out_fraction=0.25, confidence=0.0, full_accuracy=0.75)
    trust = trust_of(config)
    chosen = trust.held_out(GROUPS)
    assert 25 < sum(chosen) < 75 and chosen == trust_of(config).held_out(GROUPS)
    assert chosen != trust_of(TrustConfig(held_out_fraction=0.25, seed=7)).held_out(GROUPS)
    assert trust.observe(scored(1, Phase.WARMUP, chosen, 0.5))["gad/trust_factor"] < 0.1
    # The warmup is no step in which the student follows the scores.
    assert trust.knowledge == 1.0
    for step in range(2, 8):
        metrics = trust.observe(scored(step, Phase.ADVERSARIAL, chosen, 0.625))
    assert metrics["gad/trust_factor"] == trust.knowledge == pytest.approx(0.5, abs=0.1)
    assert metrics["gad/trust_accuracy"] == pytest.approx(0.625, abs=0.03)
    other = trust_of(config)
    other.load_state_dict(trust.state_dict())
    assert other.knowledge == trust.knowledge
    step = scored(8, Phase.ADVERSARIAL, chosen, 0.4)
    assert other.observe(step) == trust.observe(step)
