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
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fake_queue import FakeTransferQueue
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from gad_verl.core import Phase
from gad_verl.core.teacher_mix import TeacherMix, WeightedText
from gad_verl.data.tokens import EncodedResponse, SequenceBuilder
from gad_verl.discriminator.worker_group import DiscriminatorOutput
from gad_verl.errors import GadDataError
from gad_verl.trainer.encoding import EncodedGroup, Encoding
from gad_verl.trainer.metrics import (
    discriminator_metrics,
    drop_policy_metrics,
    phase_metrics,
    seqkd_metrics,
    text_metrics,
)
from gad_verl.trainer.rollouts import RolloutGroup, Rollouts, Session, StepRollouts, parse_key, rollout_order
from gad_verl.trainer.supervised import SupervisedRow, build_supervised_batch, in_equal_hands
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


def read(
    trajectories: list[tuple[int, str]], teachers: dict[int, Any], n: int, visit: int = 0, extra: Any = None
) -> StepRollouts:
    """Groups of trajectories whose response is made of their own session and output."""
    keys = [key for _, key in trajectories]
    queue = FakeTransferQueue()
    fields = [
        {
            "index": index,
            "raw_prompt": MESSAGES,
            "teacher_response": teachers[index],
            "extra_info": extra or {},
            "prompts": torch.tensor([index, 1]),
            "responses": torch.tensor([*parse_key(key)[1:]]),
        }
        for index, key in trajectories
    ]
    for key, one in zip(keys, fields, strict=True):
        queue.fields.setdefault("train", {})[key] = one
    batch = KVBatchMeta(keys=keys, tags=[{"of": key} for key in keys], partition_id="train")
    with pytest.MonkeyPatch.context() as monkeypatch:
        queue.install(monkeypatch)
        found = Rollouts("teacher_response", "teacher", TeacherMix()).read(batch, n, step=1, visit=visit)
    # The batch is sorted, its tags with it.
    assert batch.keys == found.keys == [tag["of"] for tag in batch.tags] and sorted(keys) == sorted(found.keys)
    return found


def responses(group: RolloutGroup) -> list[list[int] | None]:
    return [None if session is None else session.response_ids for session in group.sessions]


def test_failed_sessions_are_none() -> None:
    found = read([(1, "b_2_0"), (0, "a_1_0"), (1, "b_0_0")], {0: "x", 1: "y"}, n=3)
    assert found.keys == ["a_1_0", "b_0_0", "b_2_0"]
    assert [group.index for group in found.groups] == [0, 1]
    assert [group.teacher_text for group in found.groups] == ["x", "y"]
    rows = [[None if session is None else session.row for session in group.sessions] for group in found.groups]
    assert rows == [[None, 0, None], [1, None, 2]]
    assert [responses(group) for group in found.groups] == [[None, [1, 0], None], [[0, 0], None, [2, 0]]]
    assert [group.prompt_ids for group in found.groups] == [[0, 1], [1, 1]]
    assert all(group.messages == MESSAGES for group in found.groups)


@given(st.permutations([(0, f"a_{session}_{output}") for session in range(2) for output in (0, 1, 10)]))
@settings(max_examples=30, deadline=None)
def test_of_several_outputs_the_last_counts(arrived: list[tuple[int, str]]) -> None:
    found = read(list(arrived), {0: "x"}, n=2)
    (group,) = found.groups
    assert responses(group) == [[0, 10], [1, 10]]
    assert [found.keys[session.row] for session in group.sessions] == ["a_0_10", "a_1_10"]


def test_several_teacher_texts_take_turns() -> None:
    teachers = {0: ["p", "q", "r"], 1: "only", 2: np.array(["s", "t"], dtype=object)}
    arrived = [(index, f"{'abc'[index]}_0_0") for index in range(3)]
    for visit in range(7):
        groups = read(arrived, teachers, n=1, visit=visit).groups
        assert [group.teacher_text for group in groups] == [["p", "q", "r"][visit % 3], "only", ["s", "t"][visit % 2]]
        assert [[one.text for one in group.teachers] for group in groups] == [[group.teacher_text] for group in groups]


def test_what_was_cut_when_it_was_written_is_not_finished() -> None:
    extra = {"finish_reason": ["stop", "length"], "stopped_by_length": [False, True]}
    for visit in range(3):
        (group,) = read([(0, "a_0_0")], {0: ["whole", "half"]}, 1, visit, extra).groups
        assert group.teacher_finished == group.teachers[0].finished == (group.teacher_text == "whole")


def test_a_row_without_teacher_text_is_named() -> None:
    with pytest.raises(GadDataError, match="row 7 of the training data"):
        read([(7, "a_0_0")], {7: ""}, n=1)


def group_of(teacher: str, *responses: list[int] | None) -> RolloutGroup:
    sessions = tuple(None if ids is None else Session(row, ids, ids or None) for row, ids in enumerate(responses))
    return RolloutGroup(0, MESSAGES, [1], (WeightedText(teacher, 1.0),), teacher, sessions)


def test_both_sides_are_encoded_alike(tokenizer: Any) -> None:
    builder = SequenceBuilder(tokenizer, 64, 16)
    same = tokenizer("same text", add_special_tokens=False)["input_ids"]
    cut = tokenizer("a text that is longer", add_special_tokens=False)["input_ids"][:16]
    group = group_of("same text", [*same, tokenizer.eos_token_id], None, cut, [])
    (encoded,) = Encoding(builder, builder).encode([group])
    assert encoded.students[0] == encoded.teacher
    # Neither a session that failed nor one without an answer is read.
    assert encoded.students[1] is None and encoded.students[3] is None
    assert encoded.students[2] == EncodedResponse(cut, finished=False, cut=True)
    sequences = encoded.sequences()
    prompt = builder.prompt(MESSAGES)
    assert sequences.teacher_ids == ([*prompt, *same, tokenizer.eos_token_id],)
    assert sequences.student_ids == [sequences.teacher_ids[0], None, [*prompt, *cut], None]
    assert sequences.prompt_length == len(prompt) and sequences.trains and not encoded.sequences(trains=False).trains


def test_a_text_that_was_cut_has_no_end_on_either_side(tokenizer: Any) -> None:
    builder, other = SequenceBuilder(tokenizer, 64, 16), SequenceBuilder(tokenizer, 64, 16)
    half = tokenizer("half an ans", add_special_tokens=False)["input_ids"]
    group = replace(
        group_of("half an ans", half), teachers=(WeightedText("half an ans", 1.0, None, False),), teacher_finished=False
    )
    for reader in (builder, other):
        encoding = Encoding(builder, reader)
        (encoded,) = encoding.encode([group])
        assert encoded.teacher == EncodedResponse(half, finished=False, cut=True) == encoded.students[0]
        lost = [(MESSAGES, WeightedText("half an ans", 1.0, None, False)), (MESSAGES, WeightedText("all", 1.0))]
        rows = encoding.supervised_rows(StepRollouts("train", [], [group], lost), [encoded])
        assert [row.response_ids for row in rows] == [half, half, builder.response("all").token_ids]


def test_a_text_of_which_a_limit_leaves_nothing_is_a_row_without_loss(tokenizer: Any) -> None:
    builder = SequenceBuilder(tokenizer, 64, 2)
    row = Encoding(builder, builder).supervised_row(MESSAGES, "😀 and more", True)
    assert row.prompt_ids == builder.prompt(MESSAGES) and row.mask == [0]


def test_the_reader_encodes_both_sides(tokenizer: Any) -> None:
    student, reader = SequenceBuilder(tokenizer, 64, 16), SequenceBuilder(tokenizer, 5, 4)
    ids = [*tokenizer("abc", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    encoding, group = Encoding(student, reader), group_of("abcdefgh", ids)
    (encoded,) = encoding.encode([group])
    assert encoded.prompt_ids == student.prompt(MESSAGES)[-5:]
    # The student could have finished the text, so it counts as finished although the reader sees no end of it.
    assert encoded.teacher == replace(reader.response("abcdefgh"), finished=True) and encoded.teacher.cut
    assert len(encoded.teacher.token_ids) == 4
    assert encoded.students == (reader.response("abc"),)
    # The student's own rows are of its own tokenizer.
    (row,) = encoding.supervised_rows(StepRollouts("train", [], [group]), [encoded])
    assert row == SupervisedRow(student.prompt(MESSAGES), student.response("abcdefgh").token_ids)


# ------------------------------ supervised rows ------------------------------


@given(
    lengths=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=9),
    multiple=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_supervised_batch(lengths: list[tuple[int, int]], multiple: int) -> None:
    rng = random.Random(0)
    rows = [
        SupervisedRow(
            [rng.randint(1, 99) for _ in range(p)],
            [rng.randint(1, 99) for _ in range(r)],
            [rng.randint(0, 1) for _ in range(r)] if rng.random() < 0.5 else None,
        )
        for p, r in lengths
    ]
    batch = build_supervised_batch(rows, multiple_of=multiple, num_mini_batches=3, pad_token_id=7)
    count = len(batch)
    assert count % multiple == 0 and 0 <= count - len(rows) < multiple
    ids, masks, positions = (list(batch[key].unbind()) for key in ("input_ids", "loss_mask", "position_ids"))
    for row, row_ids, mask, position in zip(rows, ids, masks, positions, strict=False):
        assert row_ids.tolist() == row.prompt_ids + row.response_ids
        assert mask.tolist() == [0] * len(row.prompt_ids) + (row.loss_mask or [1] * len(row.response_ids))
        assert position.tolist() == list(range(len(row_ids)))
    # Rows that fill up carry no loss.
    assert all(mask.sum() == 0 for mask in masks[len(rows) :])
    assert sum(int(mask.sum()) for mask in masks) == sum(sum(row.mask) for row in rows)
    # verl shifts the flattened mask by one: no row may begin with loss.
    assert all(mask[0] == 0 for mask in masks)
    assert tu.get_non_tensor_data(batch, "temperature", None) == 1.0
    assert tu.get_non_tensor_data(batch, "num_mini_batch", None) == 3
    assert tu.get_non_tensor_data(batch, "global_batch_size", None) == count
    assert tu.get_non_tensor_data(batch, "dataloader_kwargs", None)["shuffle"] is False


@pytest.mark.parametrize("seed", range(20))
def test_no_mini_batch_is_filled_up_alone(seed: int) -> None:
    """As verl deals rows out: to ranks in one piece each, and a rank's to mini-batches likewise."""
    rng = random.Random(seed)
    ranks, mini_batches, micro = rng.randint(1, 4), rng.randint(1, 4), rng.choice([1, 2, 8])
    count = rng.randint(mini_batches, 40)
    places = in_equal_hands(count, ranks * mini_batches, micro)
    assert [place for place in places if place is not None] == list(range(count))
    size, rest = divmod(len(places), ranks * mini_batches)
    assert rest == 0 and size % micro == 0
    hands = [places[begin : begin + size] for begin in range(0, len(places), size)]
    for mini_batch in range(mini_batches):
        assert any(place is not None for hand in hands[mini_batch::mini_batches] for place in hand)
    held = [sum(place is not None for place in hand) for hand in hands]
    assert max(held) - min(held) <= 1
    # No hand is larger than it has to be, and where none has to be filled up nothing is moved.
    assert size - max(held) < micro
    assert in_equal_hands(ranks * mini_batches * micro, ranks * mini_batches, micro) == list(
        range(ranks * mini_batches * micro)
    )


def test_supervised_batches_without_tokens_raise() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        build_supervised_batch([], 1, 1, 0)
    for prompt, response in (([], [1]), ([1], [])):
        with pytest.raises(ValueError, match="at least one token"):
            SupervisedRow(prompt, response)
    with pytest.raises(ValueError, match="2 entries of a loss mask for 1 tokens"):
        SupervisedRow([1], [1], [1, 0])


# ------------------------------ metrics ------------------------------


def encoded_group(teacher: EncodedResponse, *students: EncodedResponse | None) -> EncodedGroup:
    return EncodedGroup([1, 2], (teacher,), (1.0,), students)


def random_groups(rng: random.Random, count: int, n: int) -> list[EncodedGroup]:
    def response() -> EncodedResponse:
        finished = rng.random() < 0.5
        return EncodedResponse([1] * rng.randint(1, 9), finished=finished, cut=not finished)

    return [
        encoded_group(response(), *[None if rng.random() < 0.3 else response() for _ in range(n)]) for _ in range(count)
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


def test_no_metric_is_reduced_by_another_rule(tokenizer: Any) -> None:
    from verl.utils.metric import reduce_metrics

    one = EncodedResponse([1], True, False)
    groups = [encoded_group(one, one, one)]
    teacher, student, weights = torch.ones(1), torch.tensor([[0.0, 2.0]]), torch.ones(1, 2)
    record = ValidationRecord()
    record.add_scores(DiscriminatorOutput(teacher, student, weights, {}))
    builder = SequenceBuilder(tokenizer, 64, 16)
    record.add_texts([group_of("a b", [1], [1])], groups, Encoding(builder, builder))
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


def test_validation_record(tokenizer: Any) -> None:
    builder = SequenceBuilder(tokenizer, 64, 16)
    encoding = Encoding(builder, builder)

    def ids(text: str) -> list[int]:
        return builder.response(text).token_ids

    record = ValidationRecord()
    assert record.metrics() == {}
    first = encoded_group(EncodedResponse([1] * 4, True, False), EncodedResponse([1] * 2, True, False), None)
    record.add_texts([group_of("a b", ids("a b"), None)], [first], encoding)
    long = EncodedResponse([1] * 7, False, True)
    second = encoded_group(EncodedResponse([1] * 2, True, False), long, long)
    record.add_texts([group_of("a b", ids("x y"), ids("a b"))], [second], encoding)
    metrics = record.metrics()
    assert metrics["val-gad/rouge_l"] == pytest.approx(2 / 3)
    assert metrics["val-gad/student_length_mean"] == pytest.approx(16 / 3)
    assert metrics["val-gad/teacher_length_mean"] == pytest.approx(8 / 3)
    assert metrics["val-gad/length_ratio"] == pytest.approx(2.0)
    assert metrics["val-gad/student_finished_rate"] == pytest.approx(1 / 3)
    assert "val-gad/accuracy" not in metrics
    # Batches of validation count by their pairs.
    one = torch.tensor([1.0])
    record.add_scores(DiscriminatorOutput(one, torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, 0.0]]), {}))
    record.add_scores(DiscriminatorOutput(one, torch.tensor([[2.0, 2.0]]), torch.ones(1, 2), {}))
    assert record.metrics()["val-gad/accuracy"] == pytest.approx(1 / 3)
    assert record.metrics()["val-gad/margin_mean"] == pytest.approx(-1 / 3)


def test_metrics_of_a_step_without_rollouts() -> None:
    found = seqkd_metrics({"step": 2.0, "update_actor": 1.0}, step=3, epoch=1)
    assert found["training/global_step"] == 3 and found["training/epoch"] == 1
    assert found["timing_s/step"] == found["perf/time_per_step"] == 2.0 and found["timing_s/update_actor"] == 1.0
    metrics = {"critic/advantages/mean": 0.0, "critic/returns/max": 0.0, "critic/score/mean": 1.0, "gad/prompts": 2.0}
    drop_policy_metrics(metrics)
    assert metrics == {"critic/score/mean": 1.0, "gad/prompts": 2.0}
