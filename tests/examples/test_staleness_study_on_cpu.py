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
"""The study of old rollouts: who wrote them, what a token weighs, and that age 0 is the arm "GAD" of study 2."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from language import ARMS, GAD, MAIN, REGIMES, settings
from oracle_language import STOP_IDS, CausalTransformer, RecurrentStudent, make_corpus
from staleness import CUT, STALE_ARMS, Arm, StaleGad, tables, token_weights
from variants import VariantGad

pytestmark = pytest.mark.usefixtures("one_thread")

WARMUP, STEPS = 3, 8


def made(kind: type, **more: object) -> VariantGad:
    corpus = make_corpus(4, 64, 8, 8, seed=1)
    torch.manual_seed(0)
    options = dataclasses.replace(
        settings(REGIMES[MAIN], ARMS[GAD], seed=1),
        total_steps=STEPS,
        warmup_steps=WARMUP,
        discriminator_only_steps=WARMUP,
        actor_lr=1e-2,
    )
    return kind(RecurrentStudent(16, 8), CausalTransformer(16, 1, 2, 1), corpus.train, options, STOP_IDS, **more)


def test_age_zero_is_gad() -> None:
    weights = []
    for kind, more in ((VariantGad, {}), (StaleGad, {"arm": Arm(0)}), (StaleGad, {"arm": Arm(0, corrects=True)})):
        gad = made(kind, **more)
        gad.run()
        weights.append(torch.cat([one.detach().flatten() for one in gad.student.parameters()]))
    torch.testing.assert_close(weights[1], weights[0])
    torch.testing.assert_close(weights[2], weights[0])


@pytest.mark.parametrize("age", [1, 2, 4])
def test_rollouts_are_of_the_student_of_so_many_steps_before(age: int) -> None:
    gad, before = made(StaleGad, arm=Arm(age)), []
    sample = gad.rollout

    def noted(chosen: object) -> object:
        before.append(copy.deepcopy(gad.student.state_dict()))
        found = sample(chosen)
        writer, wanted = gad.writers[0].state_dict(), before[max(0, len(before) - 1 - age)]
        assert all(torch.equal(writer[name], wanted[name]) for name in wanted)
        return found

    gad.rollout = noted
    gad.run()
    assert len(before) == STEPS
    # The student did move, and its own weights are back after each rollout.
    assert any(not torch.equal(before[-1][name], before[-2][name]) for name in before[0])


@given(st.lists(st.tuples(st.floats(-9, 0), st.floats(-9, 0)), min_size=1, max_size=20))
def test_weights_are_ratios_that_are_cut(pairs: list[tuple[float, float]]) -> None:
    now, written = torch.tensor(pairs, dtype=torch.float64).T
    expected = torch.minimum(torch.exp(now) / torch.exp(written), torch.tensor(CUT, dtype=torch.float64))
    torch.testing.assert_close(token_weights(now, written), expected)


def test_the_table_has_every_age() -> None:
    rows = [
        {
            "arm": arm.name,
            "seed": 1,
            "valid": 0.5,
            "covered": 1.0,
            "accuracy": 0.6,
            "kl": 0.0,
            "weight": 1.0,
            "cpu_s": 1,
        }
        for arm in STALE_ARMS
    ]
    (text,) = tables(rows)
    assert all(f"| {arm.name} |" in text for arm in STALE_ARMS) and text.count("age 8, corrected") == 2
