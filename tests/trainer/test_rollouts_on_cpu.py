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
"""From trajectories in completion order to groups of texts, supervised rows and metrics."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from verl.utils import tensordict_utils as tu

from gad_verl.core import Phase
from gad_verl.data.tokens import EncodedResponse, SequenceBuilder
from gad_verl.errors import GadDataError
from gad_verl.trainer.metrics import discriminator_metrics, phase_metrics, text_metrics
from gad_verl.trainer.rollouts import (
    EncodedGroup,
    RolloutGroup,
    encode_group,
    group_rollouts,
    parse_key,
    rollout_order,
)
from gad_verl.trainer.supervised import build_supervised_batch
from gad_verl.trainer.validation import ValidationRecord

MESSAGES = [{"role": "user", "content": "hello"}]


# ------------------------------ keys and order ------------------------------


@pytest.mark.parametrize(
    ("key", "expected"),
    [("a_0_1", ("a", 0, 1)), ("1f-2e_12_0", ("1f-2e", 12, 0)), ("with_under_score_3_4", ("with_under_score", 3, 4))],
)
def test_parse_key(key: str, expected: tuple[str, int, int]) -> None:
    assert parse_key(key) == expected


@pytest.mark.parametrize("key", ["a", "a_1", "a_b_c"])
def test_keys_of_another_form_raise(key: str) -> None:
    with pytest.raises(ValueError):
        parse_key(key)


# 12 sessions: numbers of two digits, which sort differently as text.
TRAJECTORIES = [
    (index, f"{uid}_{session}_{output}")
    for index, uid in ((10, "aa"), (2, "zz"), (3, "mm"))
    for session in range(12)
    for output in range(2)
]


@given(st.permutations(TRAJECTORIES))
@settings(max_examples=50, deadline=None)
def test_order_does_not_depend_on_arrival(arrived: list[tuple[int, str]]) -> None:
    keys, indices = [key for _, key in arrived], [index for index, _ in arrived]
    order = rollout_order(keys, indices)
    assert sorted(order) == list(range(len(keys)))
    found = [(indices[position], *parse_key(keys[position])[1:]) for position in order]
    assert found == [(index, session, output) for index in (2, 3, 10) for session in range(12) for output in range(2)]


def test_two_visits_of_a_row_stay_apart() -> None:
    keys, indices = ["b_0_0", "a_1_0", "b_1_0", "a_0_0"], [4, 4, 4, 4]
    assert [keys[position] for position in rollout_order(keys, indices)] == ["a_0_0", "a_1_0", "b_0_0", "b_1_0"]


# ------------------------------ groups ------------------------------


def grouped(
    trajectories: list[tuple[int, str]], teachers: dict[int, Any], n: int, visit: int = 0
) -> list[RolloutGroup]:
    """Groups of trajectories whose response is made of their own session and output."""
    keys = [key for _, key in trajectories]
    return group_rollouts(
        keys=keys,
        indices=[index for index, _ in trajectories],
        messages=[MESSAGES] * len(keys),
        teacher_values=[teachers[index] for index, _ in trajectories],
        prompt_ids=[[index, 1] for index, _ in trajectories],
        response_ids=[[*parse_key(key)[1:]] for key in keys],
        num_sessions=n,
        visit=visit,
    )


def test_failed_sessions_are_none() -> None:
    groups = grouped([(0, "a_1_0"), (1, "b_0_0"), (1, "b_2_0")], {0: "x", 1: "y"}, n=3)
    assert [group.index for group in groups] == [0, 1]
    assert [group.teacher_text for group in groups] == ["x", "y"]
    assert [group.rows for group in groups] == [[None, 0, None], [1, None, 2]]
    assert [group.response_ids for group in groups] == [[None, [1, 0], None], [[0, 0], None, [2, 0]]]
    assert [group.prompt_ids for group in groups] == [[0, 1], [1, 1]]
    assert all(group.messages == MESSAGES for group in groups)


@given(st.permutations([(0, f"a_{session}_{output}") for session in range(2) for output in (0, 1, 10)]))
@settings(max_examples=30, deadline=None)
def test_of_several_outputs_the_last_counts(arrived: list[tuple[int, str]]) -> None:
    (group,) = grouped(list(arrived), {0: "x"}, n=2)
    assert group.response_ids == [[0, 10], [1, 10]]
    assert [arrived[row][1] for row in group.rows] == ["a_0_10", "a_1_10"]


def test_several_teacher_texts_take_turns() -> None:
    teachers = {0: ["p", "q", "r"], 1: "only", 2: np.array(["s", "t"], dtype=object)}
    arrived = [(index, f"{'abc'[index]}_0_0") for index in range(3)]
    for visit in range(7):
        found = [group.teacher_text for group in grouped(arrived, teachers, n=1, visit=visit)]
        assert found == [["p", "q", "r"][visit % 3], "only", ["s", "t"][visit % 2]]


def test_a_row_without_teacher_text_is_named() -> None:
    with pytest.raises(GadDataError, match="row 7 of the training data"):
        grouped([(7, "a_0_0")], {7: ""}, n=1)


def test_encode_group(tokenizer: Any) -> None:
    builder = SequenceBuilder(tokenizer, 64, 16)
    same = tokenizer("same text", add_special_tokens=False)["input_ids"]
    cut = tokenizer("a text that is longer", add_special_tokens=False)["input_ids"][:16]
    group = RolloutGroup(
        index=0,
        messages=MESSAGES,
        teacher_text="same text",
        rows=[0, None, 1],
        response_ids=[[*same, tokenizer.eos_token_id], None, cut],
        prompt_ids=[1],
    )
    encoded = encode_group(group, builder, builder)
    assert encoded.students[0] == encoded.teacher and encoded.students[1] is None
    assert encoded.students[2] == EncodedResponse(cut, finished=False, cut=True)
    sequences = encoded.sequences()
    prompt = builder.prompt(MESSAGES)
    assert sequences.teacher_ids == sequences.student_ids[0] == [*prompt, *same, tokenizer.eos_token_id]
    assert sequences.student_ids[1:] == [None, [*prompt, *cut]]


def test_the_reader_encodes_both_sides(tokenizer: Any) -> None:
    student, reader = SequenceBuilder(tokenizer, 64, 16), SequenceBuilder(tokenizer, 5, 4)
    ids = [*tokenizer("abc", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    encoded = encode_group(RolloutGroup(0, MESSAGES, "abcdefgh", [0], [ids], [1]), student, reader)
    assert encoded.prompt_ids == student.prompt(MESSAGES)[-5:]
    assert encoded.teacher == reader.response("abcdefgh") and len(encoded.teacher.token_ids) == 4
    assert encoded.students == [reader.response("abc")]


# ------------------------------ supervised rows ------------------------------


@given(
    lengths=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=9),
    multiple=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_supervised_batch(lengths: list[tuple[int, int]], multiple: int) -> None:
    rng = random.Random(0)
    rows = [([rng.randint(1, 99) for _ in range(p)], [rng.randint(1, 99) for _ in range(r)]) for p, r in lengths]
    batch = build_supervised_batch(rows, multiple_of=multiple, num_mini_batches=3, pad_token_id=7)
    count = len(batch)
    assert count % multiple == 0 and 0 <= count - len(rows) < multiple
    ids, masks, positions = (list(batch[key].unbind()) for key in ("input_ids", "loss_mask", "position_ids"))
    for (prompt, response), row_ids, mask, position in zip(rows, ids, masks, positions, strict=False):
        assert row_ids.tolist() == prompt + response
        assert mask.tolist() == [0] * len(prompt) + [1] * len(response)
        assert position.tolist() == list(range(len(prompt) + len(response)))
    # Rows that fill up carry no loss.
    assert all(mask.sum() == 0 for mask in masks[len(rows) :])
    assert sum(int(mask.sum()) for mask in masks) == sum(response for _, response in lengths)
    # verl shifts the flattened mask by one: no row may begin with loss.
    assert all(mask[0] == 0 for mask in masks)
    assert tu.get_non_tensor_data(batch, "temperature", None) == 1.0
    assert tu.get_non_tensor_data(batch, "num_mini_batch", None) == 3
    assert tu.get_non_tensor_data(batch, "global_batch_size", None) == count
    assert tu.get_non_tensor_data(batch, "dataloader_kwargs", None)["shuffle"] is False


@pytest.mark.parametrize("rows", [[], [([], [1])], [([1], [])], [([1], [1]), ([1], [])]])
def test_supervised_batches_without_tokens_raise(rows: list[tuple[list[int], list[int]]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        build_supervised_batch(rows, 1, 1, 0)


# ------------------------------ metrics ------------------------------


def random_groups(rng: random.Random, count: int, n: int) -> list[EncodedGroup]:
    def response() -> EncodedResponse:
        finished = rng.random() < 0.5
        return EncodedResponse([1] * rng.randint(1, 9), finished=finished, cut=not finished)

    return [
        EncodedGroup([1, 2], response(), [None if rng.random() < 0.3 else response() for _ in range(n)])
        for _ in range(count)
    ]


@given(seed=st.integers(0, 10**6), count=st.integers(1, 5), n=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_text_metrics_equal_naive_loops(seed: int, count: int, n: int) -> None:
    rng = random.Random(seed)
    groups = random_groups(rng, count, n)
    scores = [[rng.uniform(-2, 2) for _ in range(n)] for _ in range(count)]
    students = [(s, scores[g][i]) for g, group in enumerate(groups) for i, s in enumerate(group.students) if s]
    found = text_metrics(groups, torch.tensor(scores, dtype=torch.float64))
    if not students:
        assert found == {}
        return
    lengths = [len(student.token_ids) for student, _ in students]
    teachers = [len(group.teacher.token_ids) for group in groups]
    values = [score for _, score in students]
    varies = len(set(lengths)) > 1 and len(set(values)) > 1
    expected = {
        "gad/prompts": float(count),
        "gad/student_length_mean": np.mean(lengths),
        "gad/teacher_length_mean": np.mean(teachers),
        "gad/length_ratio": np.mean(lengths) / np.mean(teachers),
        "gad/score_length_correlation": np.corrcoef(values, lengths)[0, 1] if varies else 0.0,
        "gad/student_finished_rate": np.mean([student.finished for student, _ in students]),
        "gad/teacher_finished_rate": np.mean([group.teacher.finished for group in groups]),
        "gad/student_cut_texts": float(sum(student.cut for student, _ in students)),
        "gad/teacher_cut_texts": float(sum(group.teacher.cut for group in groups)),
        "gad/failed_rollouts": float(count * n - len(students)),
    }
    # Diversity has tests of its own (tests/core/test_diversity_on_cpu.py).
    diversity = {"gad/distinct_2", "gad/self_bleu", "gad/repetition", "gad/teacher_repetition"}
    assert set(found) - set(expected) <= diversity and "gad/repetition" in found
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_no_metric_is_reduced_by_another_rule() -> None:
    from verl.utils.metric import reduce_metrics

    groups = [EncodedGroup([1], EncodedResponse([1], True, False), [EncodedResponse([1], True, False)] * 2)]
    teacher, student, weights = torch.ones(1), torch.tensor([[0.0, 2.0]]), torch.ones(1, 2)
    record = ValidationRecord()
    record.add_scores(teacher, student, weights)
    record.add_texts(RolloutGroup(0, MESSAGES, "a b", [0, 1], [[1], [1]], [1]), groups[0], ["a b", "c"])
    metrics = (
        discriminator_metrics(teacher, student, weights)
        | text_metrics(groups, student)
        | phase_metrics(Phase.WARMUP)
        | record.metrics()
    )
    assert len(metrics) > 20
    # verl reduces a name with "min" by the minimum and one with "max" by the maximum.
    reduced = reduce_metrics({name: [0.0, 2.0] for name in metrics})
    assert {name for name, value in reduced.items() if value != 1.0} == set()
    assert all(name.startswith(("disc/", "gad/", "val-gad/")) and "min" not in name for name in metrics)
    assert all(isinstance(value, float) for value in metrics.values())


@pytest.mark.parametrize("phase", list(Phase))
def test_phase_metrics(phase: Phase) -> None:
    assert phase_metrics(phase) == {"gad/stage": float(phase.value)}


def test_validation_record() -> None:
    record = ValidationRecord()
    assert record.metrics() == {}
    first = EncodedGroup([1], EncodedResponse([1] * 4, True, False), [EncodedResponse([1] * 2, True, False), None])
    record.add_texts(RolloutGroup(0, MESSAGES, "a b", [0, None], [[1], None], [1]), first, ["a b", None])
    second = EncodedGroup([1], EncodedResponse([1] * 2, True, False), [EncodedResponse([1] * 7, False, True)] * 2)
    record.add_texts(RolloutGroup(1, MESSAGES, "a b", [0, 1], [[1], [1]], [1]), second, ["x y", "a b"])
    metrics = record.metrics()
    assert metrics["val-gad/rouge_l"] == pytest.approx(2 / 3)
    assert metrics["val-gad/student_length_mean"] == pytest.approx(16 / 3)
    assert metrics["val-gad/teacher_length_mean"] == pytest.approx(8 / 3)
    assert metrics["val-gad/length_ratio"] == pytest.approx(2.0)
    assert metrics["val-gad/student_finished_rate"] == pytest.approx(1 / 3)
    assert "val-gad/accuracy" not in metrics
    # Batches of validation count by their pairs.
    record.add_scores(torch.tensor([1.0]), torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, 0.0]]))
    record.add_scores(torch.tensor([1.0]), torch.tensor([[2.0, 2.0]]), torch.ones(1, 2))
    assert record.metrics()["val-gad/accuracy"] == pytest.approx(1 / 3)
    assert record.metrics()["val-gad/margin_mean"] == pytest.approx(-1 / 3)
