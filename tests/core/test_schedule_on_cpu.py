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
"""Which phase a step has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.core import STAGES, Phase, StageSchedule


@given(data=st.data(), total=st.integers(1, 40))
def test_auto_runs_through_its_phases_in_order(data: st.DataObject, total: int) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    only = data.draw(st.integers(0, warmup))
    schedule = StageSchedule("auto", total, warmup, only)
    found = [schedule.phase(step) for step in range(1, total + 1)]
    expected = [Phase.DISCRIMINATOR_ONLY] * only + [Phase.WARMUP] * (warmup - only)
    assert found == expected + [Phase.ADVERSARIAL] * (total - warmup)
    # A run that goes on beyond its end stays in the last phase.
    assert schedule.phase(total + 1000) is Phase.ADVERSARIAL


@given(data=st.data(), total=st.integers(1, 40))
def test_warmup_alone(data: st.DataObject, total: int) -> None:
    only = data.draw(st.integers(0, total - 1))
    # warmup_steps is read by "auto" alone.
    schedule = StageSchedule("warmup", total, data.draw(st.integers(0, 100)), only)
    found = [schedule.phase(step) for step in range(1, total + 1)]
    assert found == [Phase.DISCRIMINATOR_ONLY] * only + [Phase.WARMUP] * (total - only)


@pytest.mark.parametrize(("stage", "phase"), [("gad", Phase.ADVERSARIAL), ("seqkd", Phase.SEQKD)])
def test_single_stages(stage: str, phase: Phase) -> None:
    # Settings of the warmup do not concern these stages, whatever they are.
    schedule = StageSchedule(stage, total_steps=3, warmup_steps=10, discriminator_only_steps=20)
    assert {schedule.phase(step) for step in range(1, 4)} == {phase}


def test_what_a_phase_trains() -> None:
    assert [phase for phase in Phase if phase.trains_discriminator] == [
        Phase.DISCRIMINATOR_ONLY,
        Phase.WARMUP,
        Phase.ADVERSARIAL,
    ]
    assert [phase for phase in Phase if phase.trains_student_supervised] == [Phase.WARMUP, Phase.SEQKD]
    assert [phase for phase in Phase if phase.is_warmup] == [Phase.DISCRIMINATOR_ONLY, Phase.WARMUP]
    # Logged as gad/stage: documented numbers.
    assert [phase.value for phase in Phase] == [0, 1, 2, 3, 4, 5]
    assert [phase for phase in Phase if not phase.generates] == [Phase.SEQKD, Phase.PREFERENCE]


def test_stage_names_agree_with_the_configuration() -> None:
    from gad_verl.config import schema

    assert STAGES == schema.STAGES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense", 10), "gad.stage must be one of auto, seqkd, warmup, gad, soda; got 'nonsense'"),
        (("", 10), "gad.stage"),
        (("auto", 0), "at least one step"),
        (("gad", -1), "at least one step"),
        (("auto", 10, -1), "must not be negative"),
        (("warmup", 10, 0, -1), "must not be negative"),
        (("auto", 10, 10), "no adversarial step.*gad.warmup_steps"),
        (("auto", 10, 11), "no adversarial step"),
        (("auto", 10, 4, 5), "gad.discriminator_only_steps"),
        (("warmup", 10, 0, 10), "gad.discriminator_only_steps"),
        (("warmup", 10, 0, 11), "gad.discriminator_only_steps"),
    ],
)
def test_errors(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StageSchedule(*arguments)


@pytest.mark.parametrize("step", [0, -1])
def test_steps_count_from_one(step: int) -> None:
    for stage in STAGES:
        with pytest.raises(ValueError, match="steps count from 1"):
            StageSchedule(stage, 10, snapshot_steps=1).phase(step)
