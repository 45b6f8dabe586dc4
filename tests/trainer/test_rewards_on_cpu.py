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
"""The student's reward by the options of gad.reward, and credit of the score on the student's tokens."""

import math

import pytest
import torch
from tiny_model import build_other_tokenizer, build_tokenizer

from gad_verl.config import RewardConfig
from gad_verl.core.advantages import group_process_advantages
from gad_verl.core.teacher_mix import WeightedText
from gad_verl.data.alignment import carry_values, token_ends, unit_ends
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.trainer.encoding import Encoding
from gad_verl.trainer.reward_options import Answers, reward_options
from gad_verl.trainer.rewards import trajectory_rewards, without_direction, without_level
from gad_verl.trainer.rollouts import RolloutGroup, Session, StepRollouts
from gad_verl.trainer.token_credit import mix_credit, response_credit

MESSAGES = [{"role": "user", "content": "a dog"}]


TEXTS = [["fine", " ", "bad\ufffd"], ["ok", None, "as an AI"]]


def no_task_rewards() -> torch.Tensor:
    raise AssertionError("nobody may ask for verl's reward")


def answers(**changes: object) -> Answers:
    values = {
        "teacher_scores": torch.zeros(2),
        "weights": torch.ones(2, 3),
        "valid": torch.ones(2, 3),
        "lengths": torch.tensor([[2, 4, 8], [3, 3, 6]]),
        "finished": torch.tensor([[True, False, True], [True, True, True]]),
        "texts": lambda: TEXTS,
        "teacher_lengths": torch.tensor([4, 3]),
        "length_penalty": 0.0,
        "task_rewards": no_task_rewards,
    }
    return Answers(**{**values, **changes})


def applied(config: RewardConfig, scores: torch.Tensor, known: Answers) -> tuple[torch.Tensor, dict[str, float]]:
    rewards, metrics = scores, {}
    for option in reward_options(config, True).values():
        rewards, more = option.apply(rewards, known)
        metrics |= more
    return rewards, metrics


def rewards_of(config: RewardConfig, **changes: object) -> tuple:
    torch.manual_seed(0)
    teacher, student = torch.randn(2), torch.randn(2, 3)
    rewards, metrics = applied(config, student, answers(teacher_scores=teacher, **changes))
    return student, teacher, rewards, metrics


def test_without_options_the_reward_is_the_score_itself() -> None:
    student, _, rewards, metrics = rewards_of(RewardConfig())
    assert rewards is not None and torch.equal(rewards, student) and metrics == {}


def test_nothing_asked_for_is_no_option() -> None:
    assert reward_options(RewardConfig(), guardian_penalizes=False) == {}


def test_each_option_does_what_it_says() -> None:
    student, teacher, rewards, metrics = rewards_of(RewardConfig(score_clip=0.1))
    assert (rewards - teacher.unsqueeze(1)).abs().max() <= 0.1 + 1e-6 and metrics["gad/reward_clipped_fraction"] > 0
    student, _, rewards, _ = rewards_of(RewardConfig(length_correction="per_token", length_coefficient=0.5))
    assert torch.allclose(student - rewards, 0.5 * answers().lengths)
    student, _, rewards, _ = rewards_of(RewardConfig(unfinished_penalty=2.0))
    assert torch.allclose(student - rewards, torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]))
    malformed = RewardConfig(malformed_penalty=1.0, malformed_pattern="(?i)as an ai")
    student, _, rewards, metrics = rewards_of(malformed)
    assert torch.allclose(student - rewards, torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]))
    assert metrics["gad/malformed_rate"] == pytest.approx(0.5)
    student, _, rewards, _ = rewards_of(RewardConfig(discriminator_weight=3.0))
    assert torch.allclose(rewards, 3 * student)


def test_task_rewards_are_mixed_in_after_whitening() -> None:
    task = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    config = RewardConfig(whitening="group", discriminator_weight=0.5, task_weight=2.0)
    _, _, rewards, metrics = rewards_of(config, task_rewards=lambda: task)
    part = (rewards - 2 * task) / 0.5
    assert part.mean(dim=1).abs().max() < 1e-5
    assert torch.allclose(part.std(dim=1, unbiased=False), torch.ones(2), atol=1e-3)
    assert metrics["gad/task_reward_mean"] == pytest.approx(0.5)


def test_the_guardians_penalty_is_in_units_of_the_spread() -> None:
    student, _, rewards, _ = rewards_of(RewardConfig(), length_penalty=0.2)
    spread = student.std(dim=1, unbiased=False, keepdim=True)
    expected = 0.2 * spread * answers().lengths / answers().teacher_lengths.unsqueeze(1)
    assert torch.allclose(student - rewards, expected, atol=1e-6)


def test_scores_that_are_not_finite_spoil_nothing_else() -> None:
    config = RewardConfig(length_correction="regression", whitening="running", score_clip=5.0)
    student = torch.randn(2, 3)
    student[0, 1] = torch.nan
    rewards, metrics = applied(config, student, answers(valid=torch.isfinite(student).float()))
    assert bool(torch.isnan(rewards[0, 1])) and int(torch.isfinite(rewards).sum()) == 5
    assert all(value == value for value in metrics.values())


def test_a_teachers_score_that_is_not_finite_spoils_its_group_alone() -> None:
    config = RewardConfig(length_correction="regression", whitening="running", score_clip=5.0)
    rewards, metrics = applied(config, torch.randn(2, 3), answers(teacher_scores=torch.tensor([torch.nan, 0.0])))
    assert bool(torch.isnan(rewards[0]).all()) and bool(torch.isfinite(rewards[1]).all())
    assert all(value == value for value in metrics.values())


def test_a_discriminator_without_a_say_spoils_no_reward() -> None:
    task = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 1.0]])
    scores = torch.tensor([[torch.nan, torch.inf, 1.0], [-torch.inf, 2.0, torch.nan]])
    config = RewardConfig(discriminator_weight=0.0, task_weight=2.0)
    rewards, _ = applied(config, scores, answers(valid=torch.isfinite(scores).float(), task_rewards=lambda: task))
    assert torch.equal(rewards, 2 * task)


def test_options_that_learn_from_step_to_step() -> None:
    torch.manual_seed(1)
    options = reward_options(RewardConfig(length_correction="regression", whitening="running"), False)
    for _ in range(6):
        lengths = torch.randint(1, 60, (16, 4))
        ones = torch.ones(16, 4)
        known = answers(valid=ones, weights=ones, lengths=lengths, teacher_scores=torch.zeros(16))
        rewards = 5.0 + 0.5 * lengths + 3.0 * torch.randn(16, 4)
        metrics = {}
        for option in options.values():
            rewards, more = option.apply(rewards, known)
            metrics |= more
    assert metrics["gad/reward_length_slope"] == pytest.approx(0.5, abs=0.1)
    # What length explains within a group is gone, and so is the level.
    within = [values.float() - values.float().mean(dim=1, keepdim=True) for values in (rewards, lengths)]
    assert abs(torch.corrcoef(torch.stack([values.flatten() for values in within]))[0, 1]) < 0.3
    assert abs(rewards.mean()) < 1.0 and 0.5 < rewards.std() < 2.0


def test_what_options_learn_is_saved_by_their_names() -> None:
    config = RewardConfig(length_correction="regression", whitening="running")
    first, second = reward_options(config, True), reward_options(config, True)
    for _ in range(3):
        for option in first.values():
            option.apply(torch.randn(2, 3), answers())
    for name, option in second.items():
        option.load_state_dict(first[name].state_dict())
    scores = torch.randn(2, 3)
    for one, other in zip(first.values(), second.values(), strict=True):
        assert torch.equal(one.apply(scores, answers())[0], other.apply(scores, answers())[0])


# ------------------------------ trajectories ------------------------------


def rollouts_of(keys: list[str], rows: list[list[int | None]], unanswered: tuple[int, ...] = ()) -> StepRollouts:
    groups = []
    for of_group in rows:
        sessions = [None if row is None else Session(row, [1], None if row in unanswered else [1]) for row in of_group]
        groups.append(RolloutGroup(0, [], [], (WeightedText("", 1.0),), "", tuple(sessions)))
    return StepRollouts("train", keys, groups)


def test_each_session_gets_its_score_and_all_its_outputs_the_same() -> None:
    # The first session of "a" has two outputs, of which the last is scored; session 0 of "b" failed.
    rollouts = rollouts_of(["a_0_0", "a_0_1", "a_1_0", "b_1_0"], [[1, 2], [None, 3]])
    scores = torch.randn(2, 2)
    rewards, nonfinite = trajectory_rewards(rollouts, scores, torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    expected = [scores[0, 0], scores[0, 0], scores[0, 1], scores[1, 1]]
    assert rewards.tolist() == pytest.approx([score.item() for score in expected])
    assert nonfinite == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_becomes_the_mean_of_its_group_and_is_counted(bad: float) -> None:
    rollouts = rollouts_of(["a_0_0", "a_1_0", "a_2_0", "b_0_0", "b_1_0"], [[0, 1, 2], [3, 4, None]])
    scores = torch.tensor([[1.0, bad, 4.0], [bad, bad, bad]])
    weights = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    rewards, nonfinite = trajectory_rewards(rollouts, scores, weights)
    # The failed session is no response: its placeholder does not count. A whole group without a score takes the mean.
    assert rewards.tolist() == pytest.approx([1.0, 2.5, 4.0, 2.5, 2.5])
    assert nonfinite == 3


def test_the_placeholder_of_a_failed_rollout_is_no_part_of_that_mean() -> None:
    rollouts = rollouts_of(["a_0_0", "a_1_0", "a_2_0"], [[0, 1, 2, None]])
    scores = torch.tensor([[math.nan, 1.0, 1.0, 50.0]])
    rewards, nonfinite = trajectory_rewards(rollouts, scores, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    assert rewards.tolist() == [1.0, 1.0, 1.0] and nonfinite == 1


def test_a_trajectory_without_an_answer_gets_the_worst_of_its_group() -> None:
    """It is in no pair, and its placeholder's score is worth nothing; but the student's batch has a row of it."""
    rollouts = rollouts_of(["a_0_0", "a_1_0", "a_2_0"], [[0, 1, 2]], unanswered=(1,))
    assert [session is not None for session in rollouts.groups[0].answers] == [True, False, True]
    weights = torch.tensor([[1.0, 0.0, 1.0]])
    scores = torch.tensor([[1.0, 99.0, 4.0]])
    rewards, nonfinite = trajectory_rewards(rollouts, scores, weights)
    assert rewards.tolist() == pytest.approx([1.0, 1.0, 4.0]) and nonfinite == 0
    rewards, _ = trajectory_rewards(rollouts, scores, weights, unclosed_penalty=2.0)
    assert rewards.tolist() == pytest.approx([1.0, 1.0 - 2 * 1.5, 4.0])


def test_where_nobody_has_an_answer_nobody_has_a_reward() -> None:
    rollouts = rollouts_of(["a_0_0", "a_1_0"], [[0, 1]], unanswered=(0, 1))
    rewards, nonfinite = trajectory_rewards(rollouts, torch.tensor([[math.nan, 3.0]]), torch.zeros(1, 2))
    assert rewards.tolist() == [0.0, 0.0] and nonfinite == 0


@pytest.mark.parametrize("level", [-5.0, 0.0, 5.0])
def test_the_level_of_the_scores_is_no_advantage_where_siblings_have_failed(level: float) -> None:
    """The one that came has nobody to be compared with; verl's GRPO would take its score for its advantage."""
    rollouts = rollouts_of(["a_0_0", "a_1_0", "b_1_0", "b_1_1", "c_0_0"], [[0, 1], [None, 3], [4, None]])
    scores, weights = torch.randn(3, 2) + level, torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    of_rows, _ = trajectory_rewards(rollouts, scores, weights)
    rewards = without_direction(of_rows, rollouts)
    assert rewards.tolist() == pytest.approx([*scores[0].tolist(), 0.0, 0.0, 0.0])
    everybody_alone = rollouts_of(["a_0_0", "b_0_0"], [[0], [1]])
    assert without_direction(torch.randn(2), everybody_alone).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_the_level_of_the_scores_does_not_count_by_rewarded_tokens(seed: int) -> None:
    """Shares of a score on tokens beside the score itself: another level of all scores changes no advantage."""
    torch.manual_seed(seed)
    rollouts = rollouts_of(["a_0_0", "a_0_1", "a_1_0", "b_0_0", "b_1_0"], [[1, 2], [3, 4]])
    scores, lengths = torch.randn(5), [3, 5, 9, 4, 8]
    scores[0] = scores[1]  # outputs of one session have its reward
    shares, mask = torch.zeros(5, 9), torch.zeros(5, 9)
    for row, length in enumerate(lengths):
        shares[row, :length], mask[row, :length] = torch.rand(length), 1.0
    found = []
    for level in (0.0, 7.0):
        rewards = without_level(scores + level, rollouts)
        assert rewards[0] == rewards[1] and rewards[[1, 2]].mean().abs() < 1e-5 and rewards[[3, 4]].mean().abs() < 1e-5
        tokens = shares.clone()
        tokens[range(5), [length - 1 for length in lengths]] += rewards
        found.append(group_process_advantages(tokens, mask, list("aaabb"), divide_by_std=False))
    assert torch.allclose(*found, atol=1e-5)


def test_no_finite_score_at_all_ends_the_run_with_a_remedy() -> None:
    with pytest.raises(FloatingPointError, match="discriminator.optim.lr"):
        trajectory_rewards(rollouts_of(["a_0_0"], [[0]]), torch.full((1, 1), math.nan), torch.ones(1, 1))


# ------------------------------ credit ------------------------------


def group_of(student: SequenceBuilder, *responses: list[int] | None) -> RolloutGroup:
    rows = iter(range(len(responses)))
    sessions = tuple(None if ids is None else Session(next(rows), ids, ids) for ids in responses)
    teachers = (WeightedText("teacher", 1.0),)
    return RolloutGroup(0, MESSAGES, student.prompt(MESSAGES), teachers, "teacher", sessions)


TEXT = "the dog runs. a cat, one bird\nsleeps"


@pytest.fixture(scope="module")
def builders() -> tuple[SequenceBuilder, SequenceBuilder]:
    return SequenceBuilder(build_tokenizer(), 64, 64), SequenceBuilder(build_other_tokenizer(), 64, 64)


def test_ends_of_tokens_cover_the_text(builders: tuple[SequenceBuilder, SequenceBuilder]) -> None:
    for builder in builders:
        ids = builder.response(TEXT).token_ids
        ends = token_ends(builder.tokenizer, ids, TEXT, extra=1)
        assert len(ends) == len(ids) and ends == sorted(ends) and ends[-1] == ends[-2] + 1 == len(TEXT) + 1
        assert token_ends(builder.tokenizer, [*ids[:2], 0, *ids[2:]], TEXT, extra=1) is None


def test_values_are_carried_to_the_token_that_ends_there() -> None:
    values = torch.tensor([1.0, 2.0, 5.0])
    carried = carry_values(values, [3, 7, 9], [1, 3, 5, 7, 8, 9], start=-1.0)
    assert carried.tolist() == [-1, 1, 1, 2, 2, 5]
    assert carry_values(values, [3, 7, 9], [2], start=0.0).tolist() == [5]


@pytest.mark.parametrize(("unit", "count"), [("sentence", 2), ("phrase", 3)])
def test_units_end_at_their_marks(builders: tuple[SequenceBuilder, SequenceBuilder], unit: str, count: int) -> None:
    for builder in builders:
        ids = builder.response(TEXT).token_ids
        ends = token_ends(builder.tokenizer, ids, TEXT, extra=1)
        found = unit_ends(TEXT, ends, unit)
        assert len(found) == count and found == sorted(found)
        # The first unit is "the dog runs."
        assert TEXT[: ends[found[0]]].rstrip() == "the dog runs."
    assert unit_ends("3.5 is no end", list(range(1, 14)), "sentence") == []


@pytest.mark.parametrize("same", [True, False])
def test_credit_lies_on_the_sampled_tokens_and_sum_to_the_score(
    builders: tuple[SequenceBuilder, SequenceBuilder], same: bool
) -> None:
    student = builders[0]
    reader = student if same else builders[1]
    sampled = student.response(TEXT).token_ids
    cut = student.response("red " * 40).token_ids
    group = group_of(student, sampled, None, cut)
    encoding = Encoding(student, reader)
    (encoded,) = encoding.encode([group])
    prompt = len(encoded.prompt_ids)
    values = [
        torch.randn(prompt + (1 if response is None else len(response.token_ids))) for response in encoded.students
    ]
    found = response_credit(group, encoded, values, encoding, "sentence")
    assert found[1] is None
    for entry, ids, row in ((found[0], sampled, values[0]), (found[2], cut, values[2])):
        assert len(entry.of_tokens) == len(ids)
        assert entry.of_tokens.sum().item() == pytest.approx((row[-1] - row[prompt - 1]).item(), abs=1e-5)
    assert len(found[0].ends) == 2
    if not same:
        # A word of the reader is several tokens of the student: only the last of them has its credit.
        assert (found[0].of_tokens == 0).float().mean() > 0.5
    token_level = [torch.zeros(len(sampled)), torch.zeros(len(cut))]
    token_level[0][-1], token_level[1][-1] = 3.0, 4.0
    config = RewardConfig(sequence_weight=0.5, phrase_weight=1.0, token_weight=0.25)
    metrics = mix_credit(token_level, torch.tensor([3.0, 4.0]), [group], [found], config)
    assert metrics == {"gad/token_credit_missing": 0.0}
    expected = 1.5 + 1.25 * found[0].of_tokens.sum().item()
    assert token_level[0].sum().item() == pytest.approx(expected, abs=1e-5)


def test_a_response_spelled_by_other_tokens_has_all_its_credit_at_the_end(
    builders: tuple[SequenceBuilder, SequenceBuilder],
) -> None:
    """Its total must be on the scale of the other responses of its group."""
    student = builders[1]
    # "dog" in bytes: the tokenizer itself would write it as one token.
    sampled = [student.tokenizer.convert_tokens_to_ids(char) for char in "dog"] + [student.eos_token_id]
    assert list(student.response("dog").token_ids) != sampled
    group = group_of(student, sampled)
    encoding = Encoding(student, student)
    (encoded,) = encoding.encode([group])
    values = [torch.randn(len(encoded.prompt_ids) + len(encoded.students[0].token_ids))]
    found = response_credit(group, encoded, values, encoding, "phrase")
    assert not found[0].aligned
    token_level = [torch.tensor([0.0, 0.0, 0.0, 7.0])]
    config = RewardConfig(sequence_weight=0.5, phrase_weight=1.0, token_weight=0.25)
    metrics = mix_credit(token_level, torch.tensor([7.0]), [group], [found], config)
    assert metrics == {"gad/token_credit_missing": 1.0} and token_level[0][:-1].tolist() == [0, 0, 0]
    score = (values[0][-1] - values[0][len(encoded.prompt_ids) - 1]).item()
    assert token_level[0][-1].item() == pytest.approx(3.5 + 1.25 * score, abs=1e-5)


def test_a_response_of_which_nothing_is_left_has_credit_for_nothing(
    builders: tuple[SequenceBuilder, SequenceBuilder],
) -> None:
    """Replacement characters alone, not ended: the discriminator reads an empty response."""
    student, reader = builders
    sampled = student.response("\ufffd" * 21).token_ids[:-1]
    group = group_of(student, sampled)
    encoding = Encoding(student, reader)
    (encoded,) = encoding.encode([group])
    assert encoded.students[0].token_ids == []
    values = [torch.randn(len(encoded.prompt_ids))]
    (entry,) = response_credit(group, encoded, values, encoding, "sentence")
    assert not entry.aligned and entry.of_tokens.tolist() == [0.0] * len(sampled)
