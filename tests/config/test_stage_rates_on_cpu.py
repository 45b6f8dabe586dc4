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
"""The learning rates that a plan and a model card name are those that the steps of the run have, and no others."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gad_verl.config.stage_rates import stage_rates
from gad_verl.core.schedule import STAGES, Phase, StageSchedule

RATES = st.none() | st.sampled_from([1e-6, 2e-6, 3e-6])
TEXTS = (Phase.WARMUP, Phase.SEQKD, Phase.DISCRIMINATOR_ONLY)


@given(
    stage=st.sampled_from(STAGES),
    total=st.integers(1, 12),
    warmup=st.integers(0, 8),
    alone=st.integers(0, 4),
    rates=st.tuples(RATES, RATES, RATES, RATES),
    turns_to_texts=st.booleans(),
    frozen=st.booleans(),
)
def test_they_are_those_of_the_steps(
    stage: str, total: int, warmup: int, alone: int, rates: Any, turns_to_texts: bool, frozen: bool
) -> None:
    try:
        phases = StageSchedule(stage, total, warmup, alone, snapshot_steps=1).steps_by_phase()
    except ValueError:
        return
    settings = {
        "actor_rollout_ref.actor.optim.lr": 7e-6,
        "discriminator.optim.lr": 8e-6,
        "gad.warmup.actor_lr": rates[0],
        "gad.warmup.discriminator_lr": rates[1],
        "gad.adversarial.actor_lr": rates[2],
        "gad.adversarial.discriminator_lr": rates[3],
        "gad.trust.held_out_fraction": 0.1 if turns_to_texts else 0.0,
        "gad.trust.otherwise": "supervised",
        "gad.discriminator_updates.frozen": frozen,
    }
    student, discriminator = set(), set()
    for phase in phases:
        if phase not in (Phase.DISCRIMINATOR_ONLY, Phase.SNAPSHOT):
            student.add(rates[0 if phase in TEXTS else 2] or 7e-6)
        if phase is Phase.ADVERSARIAL and turns_to_texts:
            student.add(rates[0] or 7e-6)
        if phase in (Phase.DISCRIMINATOR_ONLY, Phase.WARMUP) or (phase is Phase.ADVERSARIAL and not frozen):
            discriminator.add(rates[1 if phase in TEXTS else 3] or 8e-6)
    for side, wanted in (("student", student), ("discriminator", discriminator)):
        found = stage_rates(side, phases, settings.get)
        assert {rate for _, rate in found} == wanted
        titles = [title for title, _ in found]
        assert len(set(titles)) == len(titles) and "" not in titles[1:]
        assert len(phases) > 1 or turns_to_texts or len(found) <= 1


def test_what_is_not_known_is_left_out() -> None:
    assert stage_rates("student", list(Phase), {}.get) == stage_rates("discriminator", list(Phase), {}.get) == []
    assert stage_rates("student", [Phase.SEQKD], {"gad.warmup.actor_lr": 5e-6}.get) == [("", 5e-6)]
