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
"""Memory of past responses, and when the discriminator learns."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.core.gating import GateOptions, UpdateGate
from gad_verl.core.replay import AGE_BANDS, ReplayBuffer, age_band, replay_count, replay_reading


def fill(buffer: ReplayBuffer, steps: range) -> None:
    for step in steps:
        buffer.add(step, [(step, number) for number in range(4)])


def test_the_oldest_step_goes_first() -> None:
    buffer: ReplayBuffer = ReplayBuffer(3)
    fill(buffer, range(1, 6))
    assert len(buffer) == 12 and {step for step, _ in buffer.sample(99, 1)} == {3, 4, 5}


def test_newest_first() -> None:
    buffer: ReplayBuffer = ReplayBuffer(3, order="newest")
    fill(buffer, range(1, 6))
    assert [step for step, _ in buffer.sample(6, 1)] == [5, 5, 5, 5, 4, 4]


def test_uniform_draws_reach_everything_without_repeating() -> None:
    buffer: ReplayBuffer = ReplayBuffer(5, seed=3)
    fill(buffer, range(5))
    seen = set()
    for step in range(60):
        drawn = buffer.sample(7, step)
        assert len(set(drawn)) == 7
        seen |= set(drawn)
    assert len(seen) == 20


def test_capacity_zero_remembers_nothing() -> None:
    buffer: ReplayBuffer = ReplayBuffer(0)
    fill(buffer, range(4))
    assert len(buffer) == 0 and buffer.sample(5, 1) == []


@given(st.integers(0, 6), st.integers(0, 8), st.sampled_from(["uniform", "newest", "recency"]))
def test_a_resumed_buffer_draws_what_the_whole_one_draws(capacity: int, cut: int, order: str) -> None:
    whole: ReplayBuffer = ReplayBuffer(capacity, order, seed=1)
    fill(whole, range(cut))
    resumed: ReplayBuffer = ReplayBuffer(capacity, order, seed=1)
    resumed.load_state_dict(whole.state_dict())
    for step in range(cut, cut + 3):
        assert whole.sample(5, step) == resumed.sample(5, step)
        for buffer in (whole, resumed):
            fill(buffer, range(step, step + 1))


@pytest.mark.parametrize(("fresh", "fraction", "count"), [(8, 0.5, 8), (8, 0.2, 2), (8, 0.0, 0), (3, 0.75, 9)])
def test_replayed_groups_make_up_the_fraction(fresh: int, fraction: float, count: int) -> None:
    assert replay_count(fresh, fraction) == count


def test_items_are_drawn_by_weights_that_fall_with_age() -> None:
    rate, draws, found = 0.7, 4000, dict.fromkeys(range(1, 5), 0)
    buffer: ReplayBuffer = ReplayBuffer(4, order="recency", recency_rate=rate)
    fill(buffer, range(1, 5))
    for seed in range(draws):
        ((step, item),) = buffer.draw(1, seed, step=5)
        assert item[0] == step
        found[step] += 1
    weights = {step: math.exp(-rate * (5 - step)) for step in found}
    for step, count in found.items():
        share = weights[step] / sum(weights.values())
        # Five standard errors.
        assert abs(count / draws - share) < 5 * math.sqrt(share * (1 - share) / draws)


@given(st.floats(0, 5), st.integers(0, 40), st.integers(0, 99))
def test_weighted_draws_never_repeat(rate: float, count: int, seed: int) -> None:
    buffer: ReplayBuffer = ReplayBuffer(5, order="recency", recency_rate=rate)
    fill(buffer, range(5))
    drawn = buffer.sample(count, seed)
    assert len(drawn) == len(set(drawn)) == min(count, 20)


@given(st.integers(1, 64), st.floats(0, 0.95))
def test_pairs_that_replace_leave_the_size_of_the_update(fresh: int, fraction: float) -> None:
    count = replay_count(fresh, fraction, "replace")
    assert 0 <= count <= fresh and abs(count / fresh - fraction) <= 0.5 / fresh + 1e-9
    # What is read grows by the share, or to the batch that holds it.
    assert replay_reading(fraction, "replace") == pytest.approx(1 + fraction)
    assert replay_reading(fraction, "add") * (1 - fraction) == pytest.approx(1)


@given(st.integers(1, 1000))
def test_every_age_has_one_band(age: int) -> None:
    (bounds,) = [one for one in AGE_BANDS if one[0] <= age and (one[1] is None or age <= one[1])]
    assert age_band(age).startswith(str(bounds[0]))


def test_arguments_of_the_buffer_are_checked() -> None:
    with pytest.raises(ValueError, match="capacity"):
        ReplayBuffer(-1)
    with pytest.raises(ValueError, match="order"):
        ReplayBuffer(1, "oldest")
    with pytest.raises(ValueError, match="recency_rate"):
        ReplayBuffer(1, recency_rate=-1.0)
    with pytest.raises(ValueError, match="fraction"):
        replay_count(1, 1.0)


def run(gate: UpdateGate, accuracies: list[float]) -> list[int]:
    updates = []
    for accuracy in accuracies:
        updates.append(gate.updates())
        gate.observe(accuracy)
    return updates


def test_the_default_gate_is_always_open() -> None:
    assert run(UpdateGate(GateOptions()), [1.0] * 5) == [1] * 5


def test_every_kth_step_and_several_updates() -> None:
    assert run(UpdateGate(GateOptions(every_steps=3, updates_per_step=2)), [0.5] * 7) == [2, 0, 0, 2, 0, 0, 2]


def test_only_while_the_accuracy_is_below_the_threshold() -> None:
    gate = UpdateGate(GateOptions(accuracy_below=0.8))
    assert run(gate, [0.6, 0.8, 0.9, 0.7, 0.6]) == [1, 1, 0, 0, 1]


def test_the_accuracy_is_averaged() -> None:
    gate = UpdateGate(GateOptions(accuracy_below=0.8, accuracy_memory=0.5))
    # averages 1.0, 0.75, 0.875
    assert run(gate, [1.0, 0.5, 1.0, 0.0]) == [1, 0, 1, 0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 20))
def test_a_resumed_gate_goes_on(accuracies: list[float], cut: int) -> None:
    options = GateOptions(every_steps=2, accuracy_below=0.7, accuracy_memory=0.6)
    whole = run(UpdateGate(options), accuracies)
    first = UpdateGate(options)
    begun = run(first, accuracies[:cut])
    second = UpdateGate(options)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + run(second, accuracies[cut:]) == whole


@pytest.mark.parametrize(
    "wrong", [{"every_steps": 0}, {"updates_per_step": 0}, {"accuracy_below": 0}, {"accuracy_memory": 1}]
)
def test_options_of_the_gate_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GateOptions(**wrong)
