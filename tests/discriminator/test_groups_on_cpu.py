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
"""Batches of groups: rows and weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from worker_probe import NUM_STUDENTS, make_groups

from gad_verl.discriminator.groups import (
    PLACEHOLDER,
    DistinctRows,
    GroupLayout,
    SequenceGroup,
    build_group_batch,
    build_row_batch,
    noise_seeds,
    score_weights_of,
    split_group_scores,
    take_sources,
)
from gad_verl.discriminator.loss import batch_layout, last_token_scores, row_scores
from gad_verl.discriminator.row_tensors import complete_rows


def test_rows_are_teacher_then_students_and_failed_rollouts_weigh_nothing() -> None:
    groups = make_groups()
    batch = build_group_batch(groups, NUM_STUDENTS)
    rows = batch["input_ids"].unbind()
    weights = batch["row_weight"].view(-1, NUM_STUDENTS + 1)
    for number, group in enumerate(groups):
        first = number * (NUM_STUDENTS + 1)
        assert rows[first].tolist() == group.teacher_ids[0]
        assert weights[number, 0] == 1
        for session, ids in enumerate(group.student_ids):
            assert weights[number, session + 1] == (0 if ids is None else 1)
            if ids is not None:
                assert rows[first + 1 + session].tolist() == ids
    failed = sum(ids is None for group in groups for ids in group.student_ids)
    assert batch["num_pairs"] == len(groups) * NUM_STUDENTS - failed
    assert batch["force_group_size"] == NUM_STUDENTS + 1


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=7), min_size=1, max_size=6))
def test_ranks_complete_the_rows_that_they_are_sent(rows: list[list[int]]) -> None:
    sent = build_row_batch(rows)
    assert [name for name, value in sent.items() if isinstance(value, torch.Tensor)] == ["input_ids"]
    assert sent["input_ids"].dtype == torch.int32
    for part in (complete_rows(sent), complete_rows(complete_rows(build_row_batch(rows)))):
        read = {name: [row.tolist() for row in part[name].unbind()] for name in part.keys() if name != "temperature"}
        assert read == {
            "input_ids": rows,
            "position_ids": [list(range(len(row))) for row in rows],
            "loss_mask": [[1] * len(row) for row in rows],
        }
        assert all(part[name].dtype == torch.int64 for name in read)


def test_wrong_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one group"):
        build_group_batch([], NUM_STUDENTS)
    with pytest.raises(ValueError, match="expected 2"):
        build_group_batch(make_groups(), 2)
    for teacher_ids, weights in (((), ()), ((), (1.0,)), (([1], [2]), (1.0,)), (([1],), (0.5, 0.5))):
        with pytest.raises(ValueError, match=f"{len(teacher_ids)} responses, {len(weights)} weights"):
            SequenceGroup(teacher_ids, [[3]], teacher_weights=weights)
    with pytest.raises(ValueError, match="seeds"):
        build_group_batch(make_groups(), NUM_STUDENTS, GroupLayout(1, NUM_STUDENTS, noisy_students=1))


@given(data=st.data(), teachers=st.integers(1, 3), students=st.integers(1, 3), noisy=st.none() | st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_groups_of_any_number_of_teachers_share_a_layout(
    data: st.DataObject, teachers: int, students: int, noisy: int | None
) -> None:
    ids = st.lists(st.integers(1, 99), min_size=1, max_size=4)
    groups = []
    for number in range(data.draw(st.integers(1, 3))):
        count = teachers if number == 0 else data.draw(st.integers(1, teachers))
        groups.append(
            SequenceGroup(
                tuple(data.draw(ids) for _ in range(count)),
                [data.draw(st.none() | ids) for _ in range(students)],
                teacher_weights=tuple(data.draw(st.floats(0.1, 1)) for _ in range(count)),
                trains=data.draw(st.booleans()),
            )
        )
    layout = GroupLayout.of(groups, students, noisy)
    assert layout.num_teachers == teachers
    batch = build_group_batch(groups, students, layout, noise_seeds(len(groups), layout, 1))
    assert batch_layout(batch) == layout
    weights = batch["row_weight"].view(len(groups), layout.group_size)
    lengths = iter(batch["input_ids"].offsets().diff().tolist())
    pairs = 0.0
    for number, group in enumerate(groups):
        assert layout.lengths([group])[0] == [next(lengths) for _ in range(layout.group_size)]
        count = len(group.teacher_ids)
        assert weights[number, :teachers].tolist() == pytest.approx(
            [*group.teacher_weights] + [0.0] * (teachers - count)
        )
        read = [float(ids is not None and group.trains) for ids in group.student_ids]
        assert weights[number, teachers : teachers + students].tolist() == read
        pairs += sum(group.teacher_weights) * sum(read)
        copied = [float(weights[number, row] > 0 and group.trains) for row in layout.noisy_rows]
        assert weights[number, teachers + students :].tolist() == copied
    assert batch["num_pairs"] == pytest.approx(pairs, rel=1e-6)


SHORT = st.lists(st.integers(1, 2), min_size=1, max_size=2)


@given(data=st.data(), students=st.integers(1, 4), noisy=st.none() | st.integers(0, 2), seed=st.integers(0, 999))
@settings(max_examples=100, deadline=None)
def test_each_text_of_a_group_is_read_once(data: st.DataObject, students: int, noisy: int | None, seed: int) -> None:
    """Whole groups and single rows: scores that a reader makes of a row's place too are alike for alike texts."""
    groups = [
        SequenceGroup(
            (data.draw(SHORT),),
            [data.draw(st.none() | SHORT) for _ in range(students)],
        )
        for _ in range(data.draw(st.integers(1, 3)))
    ]
    layout = GroupLayout.of(groups, students, noisy)
    size = layout.group_size
    batch = build_group_batch(groups, students, layout, noise_seeds(len(groups), layout, 1))
    generator = torch.Generator().manual_seed(seed)
    read = [row.tolist() for row in batch["input_ids"].unbind()]
    of_place = torch.randn(len(read), generator=generator)
    scores = take_sources(batch, of_place).view(-1, size)
    distinct = DistinctRows.of(groups, layout)
    assert distinct.rows == [read[place] for place in distinct.places]
    by_rows = torch.randn(len(distinct.rows), generator=generator)[distinct.take].view(-1, size)
    for number, group in enumerate(groups):
        rows = [tuple(row) for row in group.rows(layout.num_teachers)]
        for found in (scores[number], by_rows[number]):
            of_text = dict(zip(rows, found.tolist(), strict=False))
            assert [of_text[row] for row in rows] == found[: layout.clean_size].tolist()
            assert len(set(found.tolist())) == len(set(rows)) + len(layout.noisy_rows)
        texts = read[number * size : (number + 1) * size]
        # Copies with noise are read by themselves, and nothing long is read twice.
        assert [tuple(row) for row in texts[layout.clean_size :]] == [rows[at] for at in layout.noisy_rows]
        assert sum(row != PLACEHOLDER for row in texts[: layout.clean_size]) == len(set(rows) - {tuple(PLACEHOLDER)})
    values = torch.randn(len(read), generator=generator, dtype=torch.float64)
    assert distinct.summed(values).sum().item() == pytest.approx(values.sum().item(), abs=1e-9)
    first = distinct.take == 0
    assert distinct.summed(values)[0].item() == pytest.approx(values[first].sum().item(), abs=1e-9)


def test_a_micro_batch_of_some_groups_takes_its_own_rows() -> None:
    groups = [SequenceGroup(([1, 2],), [[1, 3], [1, 3], [1, 2]]), SequenceGroup(([1, 4],), [[1, 4], None, None])]
    batch = build_group_batch(groups, 3)
    assert take_sources(batch, torch.arange(8)).tolist() == [0, 1, 1, 0, 4, 4, 6, 6]
    second = TensorDict({"row_source": batch["row_source"][4:]}, batch_size=4)
    assert take_sources(second, torch.arange(4)).tolist() == [0, 0, 2, 2]
    assert [row.tolist() for row in batch["input_ids"].unbind()][:4] == [[1, 2], [1, 3], [0], [0]]


def test_the_score_of_a_row_is_the_value_at_its_last_token() -> None:
    lengths = torch.randint(1, 9, (8,)).tolist()
    rows = [torch.randn(length) for length in lengths]
    scores = last_token_scores(torch.nested.as_nested_tensor(rows, layout=torch.jagged))
    assert torch.equal(scores, torch.stack([row[-1] for row in rows]))
    teacher, student, noisy = split_group_scores(scores, GroupLayout(1, 3))
    assert torch.equal(teacher.flatten(), scores[::4]) and student.shape == (2, 3) and noisy.shape == (2, 0)
    assert torch.equal(torch.cat([teacher, student], dim=1).flatten(), scores)


@given(st.data(), st.integers(1, 2), st.integers(1, 3), st.none() | st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_scores_of_turns_are_means_of_values(
    data: st.DataObject, teachers: int, students: int, noisy: int | None
) -> None:
    groups = []
    for number in range(data.draw(st.integers(1, 3))):
        rows = [data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5)) for _ in range(teachers + students)]
        ends = [sorted(data.draw(st.sets(st.integers(0, len(row) - 1), max_size=3))) for row in rows]
        # Rows that are one are scored alike.
        ends = [ends[rows.index(row)] for row in rows]
        shares = (1 / teachers,) * teachers
        groups.append(
            SequenceGroup(
                tuple(rows[:teachers]),
                rows[teachers:],
                teacher_weights=shares,
                ends=None if number == 2 else tuple(ends),
            )
        )
    layout = GroupLayout.of(groups, students, noisy)
    seeds = noise_seeds(len(groups), layout, 1)
    batch = build_group_batch(groups, students, layout, seeds)
    values = [torch.randn(len(ids), dtype=torch.float32) for ids in batch["input_ids"].unbind()]
    found = row_scores(torch.nested.as_nested_tensor(values, layout=torch.jagged), batch)
    if all(group.ends is None for group in groups):
        assert "score_weight" not in batch.keys()
    for number, group in enumerate(groups):
        first = number * layout.group_size
        places = group.rows_ends(layout.num_teachers)
        places += [places[position] for position in layout.noisy_rows]
        for row, (of_row, read) in enumerate(zip(places, layout.rows(group), strict=True)):
            if read == PLACEHOLDER and layout.sources(group)[row] != row:
                continue
            value = values[first + row]
            expected = value[of_row].mean() if of_row else value[-1]
            assert found[first + row].item() == pytest.approx(expected.item(), abs=1e-6)
    distinct = DistinctRows.of(groups, layout)
    every = score_weights_of(groups, layout)
    assert distinct.score_weights == (None if every is None else [every[place] for place in distinct.places])
