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
"""How often the discriminator learns and from what, with workers that only write down what they were asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gad_verl.config import (
    DiscriminatorLossConfig,
    DiscriminatorUpdatesConfig,
    GadConfig,
    ReplayConfig,
    RewardConfig,
)
from gad_verl.core import Phase
from gad_verl.discriminator.groups import SequenceGroup
from gad_verl.discriminator.worker_group import DiscriminatorOutput, PendingUpdate, UpdateOptions
from gad_verl.errors import GadCheckpointError
from gad_verl.trainer.checkpoints import PARTS_FILE, load_parts, save_parts
from gad_verl.trainer.discriminator_step import DiscriminatorTraining
from gad_verl.trainer.replayed import pack_group, unpack_group

N = 3


class FakeGroup:
    """Scores a row by its length; writes down its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[SequenceGroup], UpdateOptions]] = []

    def _output(self, groups: list[SequenceGroup]) -> DiscriminatorOutput:
        students = [[0.0 if ids is None else float(len(ids)) for ids in group.student_ids] for group in groups]
        return DiscriminatorOutput(
            torch.tensor([float(len(group.teacher_ids[0])) for group in groups]),
            torch.tensor(students),
            torch.tensor([group.valid_students() for group in groups]),
            {"loss": float(len(self.calls)), "busy_s": 1.0, "skipped_steps": 0.0, "grad_norm": 2.0},
        )

    def update(self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions) -> DiscriminatorOutput:
        self.calls.append(("update", groups, options))
        return self._output(groups)

    def begin_update(self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions) -> PendingUpdate:
        self.calls.append(("begin_update", groups, options))
        output = self._output(groups)
        return PendingUpdate(lambda: (output, lambda: {"busy_s": 1.0}))

    def begin_score(self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions) -> PendingUpdate:
        self.calls.append(("score", groups, options))
        output = self._output(groups)
        return PendingUpdate(lambda: (output, lambda: {"busy_s": 0.0}))


def groups_of(step: int, count: int = 4, teacher_wins: bool = True) -> list[SequenceGroup]:
    teacher, student = (9, 2) if teacher_wins else (2, 9)
    return [
        SequenceGroup(([step] * teacher,), [[step, number] * (student // 2) for _ in range(N)], prompt_length=1)
        for number in range(count)
    ]


def run(
    training: DiscriminatorTraining,
    steps: range,
    phase: Phase = Phase.ADVERSARIAL,
    asked: int | None = None,
    **kwargs: Any,
) -> list[dict[str, float]]:
    reports = []
    for step in steps:
        one = training.begin(step, phase, groups_of(step, **kwargs), N, asked)
        assert len(one.scores().teacher_scores) == 4
        reports.append(one.finish())
    return reports


def test_without_options_there_is_one_update_on_the_fresh_groups() -> None:
    workers = FakeGroup()
    reports = run(DiscriminatorTraining(workers, GadConfig()), range(1, 4))
    assert [name for name, _, _ in workers.calls] == ["update"] * 3
    for number, (_, groups, options) in enumerate(workers.calls):
        assert groups == groups_of(number + 1) and options == UpdateOptions()
    assert all(report["updates"] == 1 and "replayed_groups" not in report for report in reports)


def test_a_pool_of_its_own_is_not_waited_for() -> None:
    workers = FakeGroup()
    training = DiscriminatorTraining(workers, GadConfig(discriminator_n_gpus_per_node=1))
    assert training.in_background
    training.begin(1, Phase.WARMUP, groups_of(1), N)
    alone = GadConfig(discriminator_n_gpus_per_node=1, discriminator_overlap=False)
    assert not DiscriminatorTraining(workers, alone).in_background
    assert workers.calls[0][0] == "begin_update"


def test_frozen_only_in_the_adversarial_stage() -> None:
    workers = FakeGroup()
    training = DiscriminatorTraining(workers, GadConfig(discriminator_updates=DiscriminatorUpdatesConfig(frozen=True)))
    run(training, range(1, 3), Phase.WARMUP)
    reports = run(training, range(3, 5))
    assert [name for name, _, _ in workers.calls] == ["update", "update", "score", "score"]
    assert [report["updates"] for report in reports] == [0, 0]


@pytest.mark.parametrize("phase", list(Phase))
def test_without_a_pair_the_optimizer_does_not_move_it(phase: Phase) -> None:
    """All held out, all failed, or none passed the check: a gradient of 0 leaves moments and weight decay."""
    fresh = groups_of(1)
    cases = [
        [replace(group, trains=False) for group in fresh],
        [replace(group, student_ids=[None] * N) for group in fresh],
        [replace(group, student_trains=(False,) * N) for group in fresh],
    ]
    config = GadConfig(
        discriminator_only_updates=2, discriminator_updates=DiscriminatorUpdatesConfig(updates_per_step=2)
    )
    for groups in cases:
        workers = FakeGroup()
        step = DiscriminatorTraining(workers, config).begin(1, phase, groups, N)
        step.scores()
        assert step.finish()["updates"] == 0
        assert [name for name, _, _ in workers.calls] == ["score"]
        # One pair is enough.
        step = DiscriminatorTraining(workers, config).begin(1, phase, [*groups[1:], fresh[0]], N)
        assert step.finish()["updates"] > 0 and workers.calls[1][0] == "update"


def test_every_second_step_with_three_updates() -> None:
    workers = FakeGroup()
    updates = DiscriminatorUpdatesConfig(every_steps=2, updates_per_step=3)
    reports = run(DiscriminatorTraining(workers, GadConfig(discriminator_updates=updates)), range(1, 5))
    assert [name for name, _, _ in workers.calls] == ["update"] * 3 + ["score"] + ["update"] * 3 + ["score"]
    # The loss is that of the first update; the seconds are those of all.
    assert reports[0]["loss"] == 1.0 and reports[0]["busy_s"] == 3.0
    assert [report["updates"] for report in reports] == [3, 0, 3, 0]


def test_left_alone_while_it_is_too_good() -> None:
    workers = FakeGroup()
    training = DiscriminatorTraining(
        workers, GadConfig(discriminator_updates=DiscriminatorUpdatesConfig(accuracy_below=0.9))
    )
    run(training, range(1, 3))
    run(training, range(3, 4), teacher_wins=False)
    run(training, range(4, 5))
    assert [name for name, _, _ in workers.calls] == ["update", "score", "score", "update"]


def test_the_guardians_wish_replaces_the_configuration() -> None:
    workers = FakeGroup()
    training = DiscriminatorTraining(workers, GadConfig())
    run(training, range(1, 2), asked=2)
    run(training, range(2, 4))
    assert [name for name, _, _ in workers.calls] == ["update"] * 4


def test_past_groups_join_and_have_their_own_accuracy() -> None:
    workers = FakeGroup()
    training = DiscriminatorTraining(workers, GadConfig(replay=ReplayConfig(capacity_steps=2, fraction=0.5)))
    first = run(training, range(1, 3), teacher_wins=False)
    (last,) = run(training, range(3, 4))
    assert "replayed_groups" not in first[0] and first[1]["replayed_groups"] == 4 and last["replayed_groups"] == 4
    assert last["replay_accuracy"] == 0.0
    batch = workers.calls[-1][1]
    assert batch[:4] == groups_of(3) and len(batch) == 8
    assert all(group in groups_of(1, teacher_wins=False) + groups_of(2, teacher_wins=False) for group in batch[4:])


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75])
def test_past_groups_take_the_place_of_fresh_ones(fraction: float) -> None:
    workers = FakeGroup()
    replay = ReplayConfig(capacity_steps=3, fraction=fraction, mode="replace")
    training = DiscriminatorTraining(workers, GadConfig(replay=replay))
    reports = run(training, range(1, 6))
    for number, (_, groups, _) in enumerate(workers.calls):
        fresh, past = groups[:4], groups[4:]
        assert [group.teacher_ids for group in fresh] == [group.teacher_ids for group in groups_of(number + 1)]
        # As many train as without past ones, and every fresh one is scored.
        assert sum(group.trains for group in groups) == 4 and all(group.trains for group in past)
        assert len(past) == (0 if number == 0 else round(4 * fraction))
        assert all(group.valid_students() == [1.0] * N for group in fresh)
    assert "replay_share" not in reports[0]
    assert all(report["replay_share"] == pytest.approx(fraction) for report in reports[1:])
    # What was replaced is remembered all the same.
    assert all(len(items) == 4 for _, items in training.state_dict()["replay"]["steps"])


def test_the_share_at_the_start_is_what_the_memory_holds() -> None:
    workers = FakeGroup()
    replay = ReplayConfig(capacity_steps=3, fraction=0.75)
    reports = run(DiscriminatorTraining(workers, GadConfig(replay=replay)), range(1, 5))
    # 12 past groups are asked for; 4, 8 and 12 are there.
    assert [report["replay_share"] for report in reports[1:]] == pytest.approx([0.5, 8 / 12, 0.75])


def test_accuracy_and_margin_by_age_of_the_pair() -> None:
    workers = FakeGroup()
    training = DiscriminatorTraining(
        workers, GadConfig(replay=ReplayConfig(capacity_steps=9, fraction=0.9, order="newest"))
    )
    # The teacher loses the pairs of the first three steps.
    run(training, range(1, 4), teacher_wins=False)
    reports = run(training, range(4, 8))
    for step, report in zip(range(4, 8), reports, strict=True):
        accuracies = {
            band: report.get(f"replay_accuracy_age_{band}") for band in ("1", "2_4", "5_16") if step > 4 or band == "1"
        }
        assert accuracies["1"] == (0.0 if step == 4 else 1.0)
        if step == 7:
            # Ages 2 to 4 are steps 5, 4, 3; ages 5 and 6 are steps 2 and 1.
            assert accuracies["2_4"] == pytest.approx(2 / 3) and accuracies["5_16"] == 0.0
        for band, accuracy in accuracies.items():
            if accuracy in (0.0, 1.0):
                assert (report[f"replay_margin_age_{band}"] > 0) == bool(accuracy)


def test_what_does_not_train_is_not_remembered() -> None:
    training = DiscriminatorTraining(FakeGroup(), GadConfig(replay=ReplayConfig(capacity_steps=2)))
    held_out = SequenceGroup(([1, 2],), [[3]] * N, trains=False)
    training.begin(1, Phase.WARMUP, [held_out], N).finish()
    assert len(training.state_dict()["replay"]["steps"][0][1]) == 0


def test_the_penalty_comes_at_each_second_update_with_another_seed() -> None:
    workers = FakeGroup()
    loss = DiscriminatorLossConfig(gradient_penalty=1.0, gradient_penalty_every=2, gradient_penalty_students=2)
    run(DiscriminatorTraining(workers, GadConfig(discriminator_loss=loss)), range(1, 6))
    seeds = [options.noise_seed for _, _, options in workers.calls]
    assert seeds == [0, None, 2, None, 4] and workers.calls[0][2].noisy_students == 2


def test_values_are_asked_for_where_tokens_are_rewarded() -> None:
    workers = FakeGroup()
    training = DiscriminatorTraining(workers, GadConfig(reward=RewardConfig(token_weight=1.0)))
    run(training, range(1, 2), Phase.WARMUP)
    run(training, range(2, 3))
    assert [options.return_values for _, _, options in workers.calls] == [False, True]


def test_a_group_survives_packing() -> None:
    group = SequenceGroup(([1, 2, 3], [7, 8]), [[4], None, [5, 6]], 1, (0.25, 0.75))
    packed = pack_group(group)
    assert unpack_group(packed, 3) == group
    assert unpack_group(packed, 2).student_ids == [[4], None]
    assert unpack_group(packed, 4).student_ids == [[4], None, [5, 6], None]


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_resumed_run_asks_what_the_whole_one_asks(tmp_path: Path, cut: int) -> None:
    config = GadConfig(
        replay=ReplayConfig(capacity_steps=2),
        discriminator_updates=DiscriminatorUpdatesConfig(every_steps=2, updates_per_step=2, accuracy_below=0.95),
        discriminator_loss=DiscriminatorLossConfig(gradient_penalty=1.0, gradient_penalty_every=3),
        reward=RewardConfig(length_correction="regression", whitening="running"),
    )
    whole, first, second = FakeGroup(), FakeGroup(), FakeGroup()
    run(DiscriminatorTraining(whole, config), range(1, 7), teacher_wins=False)
    before = DiscriminatorTraining(first, config)
    run(before, range(1, cut + 1), teacher_wins=False)
    save_parts(tmp_path, {"discriminator": before})
    after = DiscriminatorTraining(second, config)
    load_parts(tmp_path, {"discriminator": after})
    run(after, range(cut + 1, 7), teacher_wins=False)
    assert first.calls + second.calls == whole.calls
    assert [path.name for path in tmp_path.iterdir()] == [PARTS_FILE]


@pytest.mark.parametrize("content", [b"no archive", None])
def test_a_damaged_or_missing_state_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / PARTS_FILE).write_bytes(content)
    with pytest.raises(GadCheckpointError, match=PARTS_FILE):
        load_parts(tmp_path, {"discriminator": DiscriminatorTraining(FakeGroup(), GadConfig())})
