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
    TrustConfig,
)
from gad_verl.core import Phase
from gad_verl.discriminator.groups import SequenceGroup
from gad_verl.discriminator.worker_group import DiscriminatorOutput, PendingUpdate, UpdateOptions
from gad_verl.errors import GadCheckpointError
from gad_verl.trainer.adversary import Adversary, pack_group, unpack_group
from gad_verl.trainer.toolbox import TOOLS_FILE, Toolbox

N = 3


class FakeGroup:
    """Scores a row by its length; writes down its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[SequenceGroup], UpdateOptions]] = []

    def _output(self, groups: list[SequenceGroup]) -> DiscriminatorOutput:
        students = [[0.0 if ids is None else float(len(ids)) for ids in group.student_ids] for group in groups]
        return DiscriminatorOutput(
            torch.tensor([float(len(group.teacher_ids)) for group in groups]),
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
        SequenceGroup([step] * teacher, [[step, number] * (student // 2) for _ in range(N)], prompt_length=1)
        for number in range(count)
    ]


def run(adversary: Adversary, steps: range, phase: Phase = Phase.ADVERSARIAL, **kwargs: Any) -> list[dict[str, float]]:
    reports = []
    for step in steps:
        one = adversary.begin(step, phase, groups_of(step, **kwargs), N, in_background=False)
        assert len(one.scores().teacher_scores) == 4
        reports.append(one.finish())
    return reports


def test_without_options_there_is_one_update_on_the_fresh_groups() -> None:
    workers = FakeGroup()
    reports = run(Adversary(workers, GadConfig()), range(1, 4))
    assert [name for name, _, _ in workers.calls] == ["update"] * 3
    for number, (_, groups, options) in enumerate(workers.calls):
        assert groups == groups_of(number + 1) and options == UpdateOptions()
    assert all(report["updates"] == 1 and "replayed_groups" not in report for report in reports)


def test_a_pool_of_its_own_is_not_waited_for() -> None:
    workers = FakeGroup()
    Adversary(workers, GadConfig()).begin(1, Phase.WARMUP, groups_of(1), N, in_background=True)
    assert workers.calls[0][0] == "begin_update"


def test_frozen_only_in_the_adversarial_stage() -> None:
    workers = FakeGroup()
    adversary = Adversary(workers, GadConfig(discriminator_updates=DiscriminatorUpdatesConfig(frozen=True)))
    run(adversary, range(1, 3), Phase.WARMUP)
    reports = run(adversary, range(3, 5))
    assert [name for name, _, _ in workers.calls] == ["update", "update", "score", "score"]
    assert [report["updates"] for report in reports] == [0, 0]


def test_every_second_step_with_three_updates() -> None:
    workers = FakeGroup()
    updates = DiscriminatorUpdatesConfig(every_steps=2, updates_per_step=3)
    reports = run(Adversary(workers, GadConfig(discriminator_updates=updates)), range(1, 5))
    assert [name for name, _, _ in workers.calls] == ["update"] * 3 + ["score"] + ["update"] * 3 + ["score"]
    # The loss is that of the first update; the seconds are those of all.
    assert reports[0]["loss"] == 1.0 and reports[0]["busy_s"] == 3.0
    assert [report["updates"] for report in reports] == [3, 0, 3, 0]


def test_left_alone_while_it_is_too_good() -> None:
    workers = FakeGroup()
    adversary = Adversary(workers, GadConfig(discriminator_updates=DiscriminatorUpdatesConfig(accuracy_below=0.9)))
    run(adversary, range(1, 3))
    run(adversary, range(3, 4), teacher_wins=False)
    run(adversary, range(4, 5))
    assert [name for name, _, _ in workers.calls] == ["update", "score", "score", "update"]


def test_the_guardians_knobs_replace_the_configuration() -> None:
    workers = FakeGroup()
    adversary = Adversary(workers, GadConfig())
    adversary.updates_per_step = 2
    run(adversary, range(1, 2))
    adversary.every_steps = 4
    run(adversary, range(2, 4))
    assert [name for name, _, _ in workers.calls] == ["update", "update", "score", "score"]


def test_past_groups_join_and_have_their_own_accuracy() -> None:
    workers = FakeGroup()
    adversary = Adversary(workers, GadConfig(replay=ReplayConfig(capacity_steps=2, fraction=0.5)))
    first = run(adversary, range(1, 3), teacher_wins=False)
    (last,) = run(adversary, range(3, 4))
    assert "replayed_groups" not in first[0] and first[1]["replayed_groups"] == 4 and last["replayed_groups"] == 4
    assert last["replay_accuracy"] == 0.0
    batch = workers.calls[-1][1]
    assert batch[:4] == groups_of(3) and len(batch) == 8
    assert all(group in groups_of(1, teacher_wins=False) + groups_of(2, teacher_wins=False) for group in batch[4:])


def test_what_does_not_train_is_not_remembered() -> None:
    adversary = Adversary(FakeGroup(), GadConfig(replay=ReplayConfig(capacity_steps=2)))
    held_out = SequenceGroup([1, 2], [[3]] * N, trains=False)
    adversary.begin(1, Phase.WARMUP, [held_out], N, in_background=False).finish()
    assert len(adversary.state_dict()["replay"]["steps"][0][1]) == 0


def test_the_penalty_comes_at_each_second_update_with_another_seed() -> None:
    workers = FakeGroup()
    loss = DiscriminatorLossConfig(gradient_penalty=1.0, gradient_penalty_every=2, gradient_penalty_students=2)
    run(Adversary(workers, GadConfig(discriminator_loss=loss)), range(1, 6))
    seeds = [options.noise_seed for _, _, options in workers.calls]
    assert seeds == [0, None, 2, None, 4] and workers.calls[0][2].moved_students == 2


def test_values_are_asked_for_where_tokens_are_rewarded() -> None:
    workers = FakeGroup()
    adversary = Adversary(workers, GadConfig(reward=RewardConfig(token_weight=1.0)))
    run(adversary, range(1, 2), Phase.WARMUP)
    run(adversary, range(2, 3))
    assert [options.return_values for _, _, options in workers.calls] == [False, True]


def test_a_group_survives_packing() -> None:
    group = SequenceGroup([1, 2, 3], [[4], None, [5, 6]], 1.0, 1, ([7, 8],), (0.25, 0.75))
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
    run(Adversary(whole, config), range(1, 7), teacher_wins=False)
    before, box = Adversary(first, config), Toolbox(config)
    run(before, range(1, cut + 1), teacher_wins=False)
    box.applied_factors = {"actor": 0.5, "discriminator": 1.0}
    box.save(tmp_path, before)
    after, other_box = Adversary(second, config), Toolbox(config)
    other_box.load(tmp_path, after)
    run(after, range(cut + 1, 7), teacher_wins=False)
    assert first.calls + second.calls == whole.calls
    assert other_box.applied_factors == box.applied_factors
    assert [path.name for path in tmp_path.iterdir()] == [TOOLS_FILE]


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / TOOLS_FILE).write_bytes(b"no archive")
    with pytest.raises(GadCheckpointError, match=TOOLS_FILE):
        Toolbox(GadConfig()).load(tmp_path, None)


def test_prompts_are_held_out_by_their_text_and_the_factor_follows_the_accuracy_on_them() -> None:
    from gad_verl.trainer.rollouts import RolloutGroup

    def rollout(number: int) -> RolloutGroup:
        messages = [{"role": "user", "content": f"question {number}"}]
        return RolloutGroup(number, messages, "text", [0] * N, [[1]] * N, [1])

    groups = [rollout(number) for number in range(200)]
    box = Toolbox(GadConfig(trust=TrustConfig(held_out_fraction=0.25, confidence=0.0, full_accuracy=0.75)))
    chosen = box.held_out(groups)
    assert 25 < sum(chosen) < 75 and chosen == Toolbox(box._config).held_out(groups)
    assert Toolbox(GadConfig()).held_out(groups) == [False] * 200

    def output(right: float) -> DiscriminatorOutput:
        """Right on all training prompts, and on this share of the held-out ones."""
        teacher, held = torch.ones(200), 0
        for number, out in enumerate(chosen):
            if out:
                teacher[number] = 1.0 if held < right * sum(chosen) else -1.0
                held += 1
        return DiscriminatorOutput(teacher, torch.zeros(200, N), torch.ones(200, N), {})

    assert box.observe_trust(1, Phase.WARMUP, groups, output(0.5))["gad/trust_factor"] < 0.1
    assert box.trust_factor is None
    for step in range(2, 8):
        metrics = box.observe_trust(step, Phase.ADVERSARIAL, groups, output(0.625))
    assert metrics["gad/trust_factor"] == box.trust_factor == pytest.approx(0.5, abs=0.1)
    assert metrics["gad/trust_accuracy"] == pytest.approx(0.625, abs=0.03)
    assert Toolbox(GadConfig()).observe_trust(1, Phase.ADVERSARIAL, groups, output(0.5)) == {}
