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
"""Several teacher texts and several teachers: which texts take part, with which weights."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_verl.core.teacher_mix import TeacherMix, WeightedText, interpolate, parse_schedule
from gad_verl.errors import GadConfigError, GadDataError

SWITCH = {"small": [[0, 1.0], [500, 0.0]], "large": [[0, 0.0], [500, 1.0]]}


# ------------------------------ schedules ------------------------------


def test_weights_are_linear_between_the_points() -> None:
    points = parse_schedule({"a": [[10, 1.0], [20, 3.0], [30, 0.0]], "b": 0.5})
    found = [interpolate(points["a"], step) for step in (0, 10, 15, 20, 25, 30, 99)]
    assert found == pytest.approx([1.0, 1.0, 2.0, 3.0, 1.5, 0.0, 0.0])
    assert [interpolate(points["b"], step) for step in (1, 1000)] == [0.5, 0.5]


@given(
    st.lists(st.tuples(st.integers(0, 50), st.floats(0, 10)), min_size=1, max_size=6, unique_by=lambda point: point[0]),
    st.integers(0, 60),
)
def test_interpolation_stays_between_its_points(raw: list[tuple[int, float]], step: int) -> None:
    points = tuple(sorted(raw))
    value = interpolate(points, step)
    weights = [weight for _, weight in points]
    assert min(weights) - 1e-9 <= value <= max(weights) + 1e-9
    if step in dict(points):
        assert value == pytest.approx(dict(points)[step])


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"a": [[0, -1.0]]}, r"\['a'\].*not negative"),
        ({"a": "much"}, r"\['a'\].*expected a weight"),
        ({"a": []}, "expected a weight"),
        ({"a": [[0]]}, r"expected \[step, weight\]"),
        ({"a": [[0.5, 1.0]]}, "whole number"),
        ({"a": [[-1, 1.0]]}, "whole number"),
        ({"a": [[0, "x"]]}, "a weight is a number"),
        ({"a": [[0, math.inf]]}, "finite"),
        ({"a": [[5, 1.0], [5, 2.0]]}, r"steps must rise; got \[5, 5\]"),
        ({"a": 0, "b": [[0, 0.0]]}, "every weight is 0"),
    ],
)
def test_schedules_that_cannot_work(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(GadConfigError, match=f"gad.teachers.schedule.*{message}"):
        parse_schedule(schedule)


def test_modes_that_cannot_work() -> None:
    with pytest.raises(GadConfigError, match="cycle, all, weighted"):
        TeacherMix("some")
    with pytest.raises(GadConfigError, match="no effect with gad.teachers.mode=cycle"):
        TeacherMix("cycle", {"a": 1})


# ------------------------------ choices ------------------------------


def test_cycle_takes_turns() -> None:
    mix = TeacherMix()
    texts = ["p", "q", "r"]
    for index in range(4):
        chosen = [mix.choose(texts, None, index, step=7, visit=visit) for visit in range(6)]
        assert chosen == [[WeightedText(texts[(index + visit) % 3], 1.0)] for visit in range(6)]


rows = st.lists(st.sampled_from(["small", "large", "other", None]), min_size=1, max_size=6)


@given(rows, st.integers(1, 600), st.integers(0, 10**6), st.sampled_from(["all", "weighted", "cycle"]), st.booleans())
@settings(deadline=None)
def test_weights_sum_to_one(teachers: list[str | None], step: int, index: int, mode: str, scheduled: bool) -> None:
    scheduled = scheduled and mode != "cycle"
    mix = TeacherMix(mode, {**SWITCH, "other": 0.1} if scheduled else None)
    texts = [f"text {number}" for number in range(len(teachers))]
    try:
        chosen = mix.choose(texts, teachers, index, step, visit=2)
    except GadDataError as error:
        # Only where nobody who weighs anything wrote a text of the row.
        assert scheduled and not any(mix.teacher_weights(step).get(teacher, 0.0) for teacher in teachers)
        assert f"row {index} of the training data" in str(error) and f"step {step}" in str(error)
        return
    assert sum(choice.weight for choice in chosen) == pytest.approx(1.0)
    assert all(choice.weight > 0 and choice.text in texts for choice in chosen)
    assert len(chosen) == 1 or mode == "all"
    assert chosen == mix.choose(texts, teachers, index, step, visit=2)
    one = mix.choose_one(chosen, index, step)
    assert one.text in [choice.text for choice in chosen] and one.weight == 1.0


def test_all_without_a_schedule_weighs_alike() -> None:
    chosen = TeacherMix("all").choose(["a", "b", "c", "d"], None, 0, 1, 0)
    assert [(choice.text, choice.weight) for choice in chosen] == [(text, 0.25) for text in "abcd"]


def test_a_teacher_shares_its_weight_among_its_texts() -> None:
    mix = TeacherMix("all", {"small": 1.0, "large": 3.0, "absent": 5.0})
    chosen = mix.choose(["a", "b", "c"], ["large", "small", "large"], 0, 1, 0)
    assert [choice.weight for choice in chosen] == pytest.approx([0.375, 0.25, 0.375])


@given(rows, st.integers(0, 50), st.integers(1, 50), st.sampled_from(["all", "weighted", "cycle"]))
@settings(deadline=None)
def test_each_text_keeps_how_it_ended(teachers: list[str | None], index: int, step: int, mode: str) -> None:
    texts = [f"{number}{'.' if number % 3 else ''}" for number in range(len(teachers))]
    chosen = TeacherMix(mode).choose(texts, teachers, index, step, 1, [text.endswith(".") for text in texts])
    one = TeacherMix(mode).choose_one(chosen, index, step)
    assert all(choice.finished == choice.text.endswith(".") for choice in [*chosen, one])
    # Nothing said means finished.
    assert all(choice.finished for choice in TeacherMix(mode).choose(texts, teachers, index, step, 1))


def test_a_switch_of_teachers() -> None:
    mix = TeacherMix("all", SWITCH)
    for step, small in ((1, 0.998), (125, 0.75), (250, 0.5), (499, 0.002)):
        weights = {choice.teacher: choice.weight for choice in mix.choose(["a", "b"], ["small", "large"], 0, step, 0)}
        assert weights == pytest.approx({"small": small, "large": 1.0 - small})
    # What weighs nothing costs nothing.
    assert mix.choose(["a", "b"], ["small", "large"], 0, 500, 0) == [WeightedText("b", 1.0, "large")]
    # A row with one teacher has that one at any time, as long as it weighs anything.
    assert mix.choose(["a"], ["small"], 0, 499, 0) == [WeightedText("a", 1.0, "small")]
    assert mix.turning_points() == [1, 500] and TeacherMix("all", {"a": 1}).turning_points() == []


def test_draws_follow_the_weights() -> None:
    mix = TeacherMix("weighted", {"small": 1.0, "large": 3.0})
    count = Counter(
        mix.choose(["a", "b"], ["small", "large"], index, step, 0)[0].text
        for index in range(40)
        for step in range(1, 101)
    )
    assert abs(count["a"] / 4000 - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4000)


def test_one_text_of_all_follows_the_weights() -> None:
    mix = TeacherMix("all", {"small": 1.0, "large": 3.0})
    both = mix.choose(["a", "b"], ["small", "large"], 0, 5, 0)
    names = [mix.choose_one(both, index, 5).teacher for index in range(4000)]
    assert abs(names.count("small") / 4000 - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4000)


def test_draws_of_rows_and_steps_are_not_the_same() -> None:
    mix = TeacherMix("weighted")
    texts = [str(number) for number in range(50)]
    assert len({mix.choose(texts, None, index, 1, 0)[0].text for index in range(50)}) > 20
    assert len({mix.choose(texts, None, 0, step, 0)[0].text for step in range(50)}) > 20
    other = TeacherMix("weighted", seed=2)
    assert any(mix.choose(texts, None, 0, step, 0) != other.choose(texts, None, 0, step, 0) for step in range(5))


# ------------------------------ checks before a run ------------------------------


def test_a_teacher_nobody_has() -> None:
    mix = TeacherMix("all", {"small": 1, "huge": 1})
    with pytest.raises(GadConfigError, match="'huge', whom no row.*'large', 'small'"):
        mix.check_rows({("small",): "f, row 0", ("large", None): "f, row 1"}, 1, 10)


def test_a_row_that_loses_its_teacher() -> None:
    mix = TeacherMix("weighted", SWITCH)
    found = {("small", "large"): "f, row 0", ("small",): "f, row 7"}
    mix.check_rows(found, 1, 499)
    with pytest.raises(GadDataError, match="f, row 7: .* at step 500 .*'small'"):
        mix.check_rows(found, 1, 500)
    with pytest.raises(GadDataError, match="f, row 7: .* at step 600"):
        mix.check_rows(found, 600, 700)
    with pytest.raises(GadDataError, match="f, row 9: .*None"):
        mix.check_rows({**found, (None,): "f, row 9"}, 1, 10)


@given(
    st.dictionaries(
        st.sampled_from("ab"),
        st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0.0, 1.0])), min_size=1, unique_by=lambda p: p[0]),
        min_size=2,
    ),
    st.integers(1, 6),
    st.integers(6, 15),
)
def test_the_check_finds_every_step_without_weight(raw: dict[str, Any], first: int, last: int) -> None:
    schedule = {teacher: [list(point) for point in sorted(points)] for teacher, points in raw.items()}
    if not any(weight for points in raw.values() for _, weight in points):
        return
    mix = TeacherMix("all", schedule)
    found = {("a", "b"): "here", ("a",): "there"}

    def works(step: int) -> bool:
        points = [mix.schedule[teacher] for teacher in "ab"]
        return interpolate(points[0], step) > 0 and sum(interpolate(point, step) for point in points) > 0

    if all(works(step) for step in range(first, last + 1)):
        mix.check_rows(found, first, last)
    else:
        with pytest.raises(GadDataError):
            mix.check_rows(found, first, last)


def test_without_a_schedule_nothing_is_checked() -> None:
    TeacherMix("all").check_rows({(None,): "f, row 0"}, 1, 10)


def test_metrics() -> None:
    mix = TeacherMix("all", SWITCH)
    choices = [mix.choose(["a", "b"], ["small", "large"], 0, 125, 0), mix.choose(["c"], ["small"], 1, 125, 0)]
    # Numbers by name: large 0, small 1.
    expected = {"gad/teacher_texts": 1.5, "gad/teacher_share_0": 0.125, "gad/teacher_share_1": 0.875}
    assert mix.metrics(choices) == pytest.approx(expected)
    assert mix.metrics([]) == {} and set(TeacherMix().metrics([[WeightedText("a", 1.0)]])) == {"gad/teacher_texts"}
