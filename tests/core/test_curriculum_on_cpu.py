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
"""Curriculum: pacing, which rows are drawn, learned margins, exact continuation."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_verl.core.curriculum import (
    Curriculum,
    CurriculumSettings,
    as_difficulty,
    group_margins,
)
from gad_verl.errors import GadDataError

MODES = ("order", "pool")


def build(num_rows: int, batch: int, difficulty: Any = "rows", keys: Any = None, **values: Any) -> Curriculum:
    """A curriculum whose rows are the harder the higher their number, unless told otherwise."""
    if isinstance(difficulty, str):
        difficulty = np.arange(num_rows, dtype=float)
    return Curriculum(CurriculumSettings(**values), difficulty, num_rows, batch, keys)


def drawn(curriculum: Curriculum, steps: int) -> list[list[int]]:
    return [curriculum.draw().rows for _ in range(steps)]


# ------------------------------ pacing ------------------------------


@given(steps=st.integers(0, 200), start=st.floats(0.01, 1.0))
def test_the_fraction_grows_from_start_to_one(steps: int, start: float) -> None:
    fractions = [CurriculumSettings("pool", start, steps).fraction(step) for step in range(1, steps + 3)]
    assert fractions[0] == pytest.approx(start if steps else 1.0)
    assert fractions[-1] == fractions[steps] == 1.0
    assert all(later >= earlier - 1e-12 for earlier, later in zip(fractions, fractions[1:], strict=False))
    assert all(start - 1e-12 <= fraction <= 1.0 for fraction in fractions)


def test_pacing_by_hand() -> None:
    settings = CurriculumSettings("pool", start=0.2, pacing_steps=4)
    assert [settings.fraction(step) for step in (1, 2, 3, 4, 5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])


# ------------------------------ draws ------------------------------

sizes = st.integers(1, 40).flatmap(lambda rows: st.tuples(st.just(rows), st.integers(1, rows)))


@given(sizes, st.sampled_from(MODES), st.integers(0, 30), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_step_has_its_rows_once_and_every_row_comes(
    size: tuple[int, int], mode: str, pacing_steps: int, descending: bool, seed: int
) -> None:
    rows, batch = size
    curriculum = build(rows, batch, mode=mode, pacing_steps=pacing_steps, start=0.3, descending=descending, seed=seed)
    steps = drawn(curriculum, pacing_steps + 2 * math.ceil(rows / batch) + 1)
    assert all(len(step) == batch == len(set(step)) and set(step) <= set(range(rows)) for step in steps)
    assert {row for step in steps for row in step} == set(range(rows))


@given(sizes, st.sampled_from(("order", "pool")))
@settings(max_examples=40, deadline=None)
def test_a_round_is_an_epoch(size: tuple[int, int], mode: str) -> None:
    rows, batch = size
    sequence = [row for step in drawn(build(rows, batch, mode=mode, start=1.0), 3 * rows) for row in step]
    visits = np.bincount(sequence, minlength=rows)
    # Whole rounds, and one that has begun. A row that ended a round is not taken again in the same step.
    assert visits.max() - visits.min() <= 1
    assert sorted(sequence[: rows // batch * batch]) == sorted(set(sequence[: rows // batch * batch]))


def test_the_pool_holds_the_easiest_rows() -> None:
    difficulty = np.random.default_rng(0).permutation(100).astype(float)
    for descending in (False, True):
        curriculum = build(100, 5, difficulty, mode="pool", start=0.1, pacing_steps=45, descending=descending)
        for step in range(1, 46):
            draw = curriculum.draw()
            limit = max(5, math.ceil(curriculum.settings.fraction(step) * 100))
            assert draw.available == limit and draw.step == step
            ranks = 99 - difficulty[draw.rows] if descending else difficulty[draw.rows]
            assert ranks.max() < limit
            assert draw.difficulty == pytest.approx(difficulty[draw.rows].mean())
            assert draw.place == pytest.approx(ranks.mean() / 99)


def test_new_rows_join_the_round_that_runs() -> None:
    # 10 of 20 rows for a step of 4, 15 for the next, then all: the round goes through all 20 before a row comes again.
    curriculum = build(20, 4, mode="pool", pacing_steps=2, start=0.5)
    (first,), (second,) = drawn(curriculum, 1), drawn(curriculum, 1)
    rest = [row for step in drawn(curriculum, 3) for row in step]
    assert set(first) <= set(range(10)) and set(second) <= set(range(15))
    assert sorted(first + second + rest) == list(range(20))


def test_order_goes_from_easy_to_hard() -> None:
    difficulty = [3.0, 1.0, 2.0, 0.0, 5.0, 4.0]
    assert drawn(build(6, 2, difficulty, mode="order"), 4) == [[3, 1], [2, 0], [5, 4], [3, 1]]
    assert drawn(build(6, 4, difficulty, mode="order", descending=True), 3) == [
        [4, 5, 0, 2],
        [1, 3, 4, 5],
        [0, 2, 1, 3],
    ]


def test_rows_of_equal_difficulty_are_not_in_the_order_of_the_file() -> None:
    firsts = [build(200, 20, np.zeros(200), mode="order", seed=seed).draw().rows for seed in (1, 2)]
    assert firsts[0] != firsts[1] and firsts[0] != sorted(firsts[0])


def test_growth_is_noted_at_each_tenth_and_at_the_end() -> None:
    curriculum = build(1000, 1, mode="pool", start=0.25, pacing_steps=300)
    noted = [draw.fraction for draw in (curriculum.draw() for _ in range(400)) if draw.growth]
    assert noted[0] == 0.25 and noted[-1] == 1.0 and len(noted) == len(set(noted)) == 9
    assert all(later - earlier >= 0.1 - 1e-9 for earlier, later in zip(noted, noted[1:-1], strict=False))
    assert not any(draw.growth for draw in (build(10, 2, mode="order").draw() for _ in range(3)))


def test_metrics_have_no_name_that_verl_would_reduce() -> None:
    metrics = build(10, 2, None, mode="pool").draw().metrics()
    assert "gad/curriculum_difficulty" not in metrics and metrics["gad/curriculum_known"] == 0.0
    assert metrics["gad/curriculum_seen"] == 0.2
    assert all("min" not in name and math.isfinite(value) for name, value in metrics.items())


# ------------------------------ learned margins ------------------------------


def test_group_margins_by_hand() -> None:
    students = np.array([[0.0, 2.0], [1.0, np.nan], [1.0, 5.0], [0.0, 0.0]])
    weights = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    margins = group_margins(np.array([3.0, 3.0, 3.0, 3.0]), students, weights)
    assert margins[:3].tolist() == [2.0, 2.0, 2.0] and math.isnan(margins[3])
    two_teachers = group_margins(np.array([[3.0, 5.0]]), np.array([[1.0, 3.0]]), np.ones((1, 2)))
    assert two_teachers.tolist() == [2.0]


def test_margins_move_the_rows() -> None:
    curriculum = build(6, 1, None, mode="order", margin_decay=0.5)
    curriculum.update([0, 1, 2, 3, 4, 5], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert curriculum.order().tolist() == [5, 4, 3, 2, 1, 0]
    # 0.5 * 6 - 0.5 * 8 = -1; what is not finite teaches nothing.
    curriculum.update([0, 3], [-8.0, math.nan])
    assert curriculum.order().tolist() == [0, 5, 4, 3, 2, 1]
    assert curriculum.draw().difficulty == pytest.approx(-1.0)


def test_unknown_rows_are_in_the_middle() -> None:
    curriculum = build(100, 2, None, mode="pool")
    curriculum.update(range(10), np.arange(10.0))
    places = {row: place for place, row in enumerate(curriculum.order().tolist())}
    assert [places[row] for row in range(5)] == list(range(5))
    assert [places[row] for row in range(5, 10)] == list(range(95, 100))


def test_a_given_difficulty_is_not_learned() -> None:
    curriculum = build(4, 1, mode="order")
    curriculum.update([0], [100.0])
    assert not curriculum.learns and curriculum.order().tolist() == [0, 1, 2, 3]


# ------------------------------ continuation ------------------------------


@given(
    size=sizes,
    mode=st.sampled_from(MODES),
    learns=st.booleans(),
    cut=st.integers(0, 12),
    pacing_steps=st.integers(0, 15),
)
@settings(max_examples=80, deadline=None)
def test_exact_continuation_at_any_cut(
    size: tuple[int, int], mode: str, learns: bool, cut: int, pacing_steps: int
) -> None:
    rows, batch = size

    def fresh() -> Curriculum:
        return build(rows, batch, None if learns else "rows", mode=mode, pacing_steps=pacing_steps, start=0.3)

    def go_on(curriculum: Curriculum, first: int, last: int) -> list[Any]:
        draws = []
        for step in range(first, last):
            draws.append(curriculum.draw())
            curriculum.update(draws[-1].rows, [math.sin(3.0 * step + row) for row in draws[-1].rows])
        return draws

    whole = fresh()
    expected = go_on(whole, 0, 20)
    first = fresh()
    before = go_on(first, 0, cut)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    go_on(first, cut, cut + 2)  # the state is a copy
    second = fresh()
    assert second.load_state_dict(state)
    # repr: nan (an unknown difficulty) is not equal to itself.
    assert repr(before + go_on(second, cut, 20)) == repr(expected)
    assert repr(second.state_dict()) == repr(whole.state_dict())


def test_rows_are_found_again_in_other_data() -> None:
    old = build(4, 2, None, keys=["a", "b", "c", "d"], mode="order")
    old.draw()
    old.update([0, 1, 2, 3], [4.0, 3.0, 2.0, 1.0])
    new = build(5, 2, None, keys=["x", "d", "a", "y", "c"], mode="order")
    new.order()  # sorted before: that must not stay
    assert not new.load_state_dict(old.state_dict())
    assert new.steps == 1
    # d 1, c 2, then the unknown ones at the median of (1, 4, 2), a 4 last.
    order = new.order().tolist()
    assert order[0] == 1 and order[-1] == 2 and set(order[1:4]) == {0, 3, 4}
    assert new.draw().known == pytest.approx(3 / 5)


def test_a_prompt_on_its_way_is_found_in_the_rows_that_replaced_its_own() -> None:
    """Its number is that of the rows before: there may be no such row, or another one stands there."""
    new = build(4, 2, None, keys=["x", "a", "a/1", "c"], mode="order")
    assert [new.find(row, key) for row, key in ((0, "a"), (2, "a"), (3, "c"), (90, "c"), (1, "gone"))] == [
        1,
        2,
        3,
        3,
        None,
    ]


def test_a_state_is_not_shared() -> None:
    curriculum = build(6, 2, None, mode="pool")
    state = curriculum.state_dict()
    kept = copy.deepcopy(state)
    curriculum.draw()
    curriculum.update([0], [1.0])
    assert repr(state) == repr(kept)


# ------------------------------ what cannot work ------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_rows": 3, "batch": 4}, "4 rows cannot be drawn from 3"),
        ({"num_rows": 3, "batch": 0}, "cannot be drawn"),
        ({"num_rows": 3, "batch": 1, "mode": "none"}, "mode must be one of order, pool;"),
        ({"num_rows": 3, "batch": 1, "difficulty": [1.0]}, "difficulties for 3 rows"),
        ({"num_rows": 3, "batch": 1, "difficulty": [1.0, math.nan, 1.0]}, "row 1 has no finite difficulty"),
        ({"num_rows": 3, "batch": 1, "keys": ["a"]}, "1 keys for 3 rows"),
    ],
)
def test_what_does_not_fit_raises(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)


@pytest.mark.parametrize("value", [None, "3", True, math.nan, math.inf, [1.0]])
def test_a_difficulty_is_a_finite_number(value: Any) -> None:
    with pytest.raises(GadDataError, match="data.parquet, row 3.*finite number"):
        as_difficulty(value, "data.parquet, row 3")


def test_numbers_of_any_kind_are_difficulties() -> None:
    assert [as_difficulty(value, "") for value in (2, 2.5, np.float32(0.5), np.int64(3))] == [2.0, 2.5, 0.5, 3.0]
