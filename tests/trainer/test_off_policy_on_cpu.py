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
"""Ages of rollouts, and metrics of several updates: closed forms on random numbers."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.config import OffPolicyConfig
from gad_verl.core.statistics import score_statistics
from gad_verl.core.teacher_mix import WeightedText
from gad_verl.errors import GadConfigError, GadStalledError
from gad_verl.trainer.in_flight import PromptsInFlight
from gad_verl.trainer.mini_steps import LAST, SUMMED, combined
from gad_verl.trainer.off_policy import OffPolicy, mixes_versions, pairs_by_age, session_ages
from gad_verl.trainer.rollouts import RolloutGroup, Session

# First and last version of each session of a group; None is a session that is not there.
VERSIONS = st.lists(
    st.one_of(st.none(), st.tuples(st.integers(0, 9), st.integers(0, 3)).map(lambda v: (v[0], v[0] + v[1]))),
    min_size=3,
    max_size=3,
)


def group_of(versions: list[tuple[int, int] | None]) -> RolloutGroup:
    sessions = tuple(None if one is None else Session(0, [1], [1], versions=one) for one in versions)
    return RolloutGroup(0, [], [1], (WeightedText("text", 1.0),), "text", sessions)


@given(st.lists(VERSIONS, min_size=1, max_size=5), st.integers(1, 14), st.one_of(st.none(), st.integers(0, 8)))
def test_ages(versions: list[list[tuple[int, int] | None]], step: int, most: int | None) -> None:
    groups = [group_of(one) for one in versions]
    ages = session_ages(groups, step)
    too_old = OffPolicy(OffPolicyConfig(most), None).too_old(groups, step)
    for row, of_group in enumerate(versions):
        came = [one for one in of_group if one is not None]
        for place, one in enumerate(of_group):
            # The student of step s is that of version s - 1.
            assert ages[row, place] == (-1 if one is None else max(0, step - 1 - one[0]))
        assert mixes_versions(groups[row]) == (len({v for one in came for v in one}) > 1)
        assert too_old[row] == (most is not None and any(step - 1 - one[0] > most for one in came))


@given(st.integers(0, 10**6))
def test_pairs_by_age_are_the_pairs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = torch.randn(6, generator=generator), torch.randn(6, 4, generator=generator)
    weights = torch.randint(0, 2, (6, 4), generator=generator).float()
    ages = torch.randint(-1, 3, (6, 4), generator=generator)
    weights[ages < 0] = 0
    found = pairs_by_age(teacher, student, weights, ages, "disc/")
    right = (teacher[:, None] > student).float()
    for name, of_age in (("fresh", ages == 0), ("old", ages > 0)):
        used = (weights > 0) & of_age
        assert found[f"disc/{name}_pairs"] == used.sum()
        if used.any():
            assert found[f"disc/{name}_accuracy"] == pytest.approx(right[used].mean().item(), abs=1e-6)
        else:
            assert f"disc/{name}_accuracy" not in found
    total = score_statistics(teacher, student, weights).get("num_pairs", 0.0)
    assert found["disc/fresh_pairs"] + found["disc/old_pairs"] == total


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_statistics_of_a_cut_step_are_those_of_the_whole(seed: int, updates: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = torch.randn(5 * updates, generator=generator), torch.randn(5 * updates, 4, generator=generator)
    whole = score_statistics(teacher, student)
    parts = [
        {f"disc/{name}": value for name, value in score_statistics(*part).items()}
        for part in zip(teacher.chunk(updates), student.chunk(updates), strict=True)
    ]
    found = combined(parts)
    assert found.keys() == {f"disc/{name}" for name in whole}
    for name, value in whole.items():
        assert found[f"disc/{name}"] == pytest.approx(value, abs=1e-5), name


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1)), min_size=1, max_size=6))
def test_a_mean_counts_what_it_is_a_mean_of(parts: list[tuple[int, float]]) -> None:
    updates = [{"disc/num_pairs": 7.0, "disc/old_pairs": float(n), "disc/old_accuracy": a} for n, a in parts]
    found, total = combined(updates), sum(n for n, _ in parts)
    expected = sum(n * a for n, a in parts) / total if total else sum(a for _, a in parts) / len(parts)
    assert found["disc/old_accuracy"] == pytest.approx(expected)
    assert found["disc/old_pairs"] == total


def test_names_of_verl_are_left_to_verl_and_the_last_word_counts() -> None:
    found = combined([{"actor/loss": 1.0, "gad/trust_factor": 0.2}, {"actor/loss": 3.0, "gad/trust_factor": 0.4}])
    assert found == {"gad/trust_factor": 0.4}
    assert not set(SUMMED) & set(LAST)
    assert combined([]) == {}


# ------------------------------ prompts on their way ------------------------------


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), min_size=1, max_size=12))
def test_prompts_are_asked_for_the_step_that_trains_them(batch: int, asked: list[tuple[int, int]]) -> None:
    """Each call asks some, and then some are thrown away and asked anew."""
    prompts, steps = PromptsInFlight(batch, ahead=1e6), []
    for count, replaced in asked:
        steps += prompts.ask(count)
        thrown = min(replaced, len(steps))
        prompts.replace(thrown)
        # The newest are replaced here; their successors have their place.
        del steps[len(steps) - thrown :]
        steps += prompts.ask(thrown)
    assert steps == [1 + place // batch for place in range(len(steps))]
    cut = random.Random(len(steps)).randint(0, len(steps))
    resumed = PromptsInFlight(batch, ahead=1)
    resumed.resume(cut // batch, cut % batch)
    assert resumed.ask(len(steps) - cut) == steps[cut:]


def test_too_many_in_a_row_are_no_bad_luck() -> None:
    prompts = PromptsInFlight(8, ahead=1)
    prompts.ask(1000)
    for _ in range(20):
        prompts.replace(40)
        prompts.begin_step()
    with pytest.raises(GadStalledError, match="max_off_policy_threshold"):
        prompts.replace(41)


def test_an_age_is_not_negative() -> None:
    with pytest.raises(GadConfigError, match=r"gad\.off_policy\.discriminator_max_age"):
        OffPolicyConfig(discriminator_max_age=-1).validate()
