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
"""The dry run: its stages are those of the schedule, its errors one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.core.schedule import STAGES, StageSchedule
from gad_verl.preflight import dry_run


@given(
    stage=st.sampled_from(STAGES),
    total=st.integers(1, 40),
    warmup=st.integers(0, 40),
    alone=st.integers(0, 40),
)
def test_stages_cover_every_step_once_with_its_phase(stage, total, warmup, alone):
    try:
        schedule = StageSchedule(stage, total, warmup, alone)
    except ValueError:
        return
    found = list(dry_run.stages(schedule))
    steps = [(step, phase) for phase, first, last in found for step in range(first, last + 1)]
    assert steps == [(step, schedule.phase(step)) for step in range(1, total + 1)]
    # No phase is cut in two.
    assert all(before[0] is not after[0] for before, after in zip(found, found[1:], strict=False))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config-path", "recipes/gad/config"], "is relative"),
        (["--config-name", "gad_trianer"], "gad_trianer"),
        (["gad.stagge=auto"], "stagge"),
        (["trainer.v1.trainer_mode=sync"], "trainer.v1.trainer_mode=sync is stock verl"),
        (["actor_rollout_ref.actor.use_dynamic_bsz=False", "trainer.n_gpus_per_node=7"], "verl refuses"),
    ],
)
def test_a_mistake_is_one_line(arguments, expected, capsys):
    assert dry_run.main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("gad_verl: GadConfigError: ") and expected in error
