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
"""The student's reward by the options of gad.reward, and shares of the score on the student's tokens."""

import pytest
import torch
from tiny_model import build_other_tokenizer, build_tokenizer

from gad_verl.config import RewardConfig
from gad_verl.data.alignment import carry_values, token_ends, unit_ends
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.trainer.rewards import Answers, RewardPipeline
from gad_verl.trainer.rollouts import RolloutGroup, encode_group
from gad_verl.trainer.token_rewards import mix_into, response_shares

MESSAGES = [{"role": "user", "content": "a dog"}]


def answers(**changes: object) -> Answers:
    values = {
        "lengths": torch.tensor([[2, 4, 8], [3, 3, 6]]),
        "finished": torch.tensor([[True, False, True], [True, True, True]]),
        "texts": [["fine", " ", "bad\ufffd"], ["ok", None, "as an AI"]],
        "teacher_lengths": torch.tensor([4, 3]),
    }
    return Answers(**{**values, **changes})


def rewards_of(config: RewardConfig, weights: torch.Tensor | None = None, **changes: object) -> tuple:
    torch.manual_seed(0)
    teacher, student = torch.randn(2), torch.randn(2, 3)
    weights = torch.ones(2, 3) if weights is None else weights
    rewards, metrics = RewardPipeline(config).rewards(teacher, student, weights, answers(**changes))
    return student, teacher, rewards, metrics


def test_without_options_the_reward_is_the_score_itself() -> None:
    student, _, rewards, metrics = rewards_of(RewardConfig())
    assert rewards is not None and torch.equal(rewards, student) and metrics == {}


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
    _, _, rewards, metrics = rewards_of(config, task_rewards=task)
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
    pipeline = RewardPipeline(config)
    student = torch.randn(2, 3)
    student[0, 1] = torch.nan
    rewards, metrics = pipeline.rewards(torch.zeros(2), student, torch.ones(2, 3), answers())
    assert bool(torch.isnan(rewards[0, 1])) and int(torch.isfinite(rewards).sum()) == 5
    assert all(value == value for value in metrics.values())


# ------------------------------ shares ------------------------------


TEXT = "the dog runs. a cat, one bird\nsleeps"


@pytest.fixture(scope="module")
def builders() -> tuple[SequenceBuilder, SequenceBuilder]:
    return SequenceBuilder(build_tokenizer(), 64, 64), SequenceBuilder(build_other_tokenizer(), 64, 64)


def test_ends_of_tokens_cover_the_text(builders: tuple[SequenceBuilder, SequenceBuilder]) -> None:
    for builder in builders:
        ids = builder.response(TEXT).token_ids
        ends = token_ends(builder.tokenizer, ids, TEXT, extra=1)
        assert len(ends) == len(ids) and ends == sorted(ends) and ends[-1] == ends[-2] == len(TEXT)
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
def test_shares_lie_on_the_sampled_tokens_and_sum_to_the_score(
    builders: tuple[SequenceBuilder, SequenceBuilder], same: bool
) -> None:
    student = builders[0]
    reader = student if same else builders[1]
    sampled = student.response(TEXT).token_ids
    cut = student.response("red " * 40).token_ids
    group = RolloutGroup(0, MESSAGES, "teacher", [0, None, 1], [sampled, None, cut], student.prompt(MESSAGES))
    encoded = encode_group(group, student, reader)
    prompt = len(encoded.prompt_ids)
    values = [
        torch.randn(prompt + (1 if response is None else len(response.token_ids))) for response in encoded.students
    ]
    found = response_shares(group, encoded, values, student, reader, "sentence")
    assert found[1] is None
    for entry, ids, row in ((found[0], sampled, values[0]), (found[2], cut, values[2])):
        assert len(entry.shares) == len(ids)
        assert entry.shares.sum().item() == pytest.approx((row[-1] - row[prompt - 1]).item(), abs=1e-5)
    assert len(found[0].ends) == 2
    if not same:
        # A word of the reader is several tokens of the student: only the last of them has its share.
        assert (found[0].shares == 0).float().mean() > 0.5
    token_level = [torch.zeros(len(sampled)), torch.zeros(len(cut))]
    token_level[0][-1], token_level[1][-1] = 3.0, 4.0
    config = RewardConfig(sequence_weight=0.5, phrase_weight=1.0, token_weight=0.25)
    metrics = mix_into(token_level, torch.tensor([3.0, 4.0]), [group], [found], config)
    assert metrics == {"gad/token_credit_missing": 0.0}
    expected = 1.5 + 1.25 * found[0].shares.sum().item()
    assert token_level[0].sum().item() == pytest.approx(expected, abs=1e-5)


def test_a_response_spelled_by_other_tokens_has_all_its_shares_at_the_end(
    builders: tuple[SequenceBuilder, SequenceBuilder],
) -> None:
    """Its total must be on the scale of the other responses of its group."""
    student = builders[1]
    # "dog" in bytes: the tokenizer itself would write it as one token.
    sampled = [student.tokenizer.convert_tokens_to_ids(char) for char in "dog"] + [student.eos_token_id]
    assert list(student.response("dog").token_ids) != sampled
    group = RolloutGroup(0, MESSAGES, "teacher", [0], [sampled], student.prompt(MESSAGES))
    encoded = encode_group(group, student, student)
    values = [torch.randn(len(encoded.prompt_ids) + len(encoded.students[0].token_ids))]
    found = response_shares(group, encoded, values, student, student, "phrase")
    assert not found[0].aligned
    token_level = [torch.tensor([0.0, 0.0, 0.0, 7.0])]
    config = RewardConfig(sequence_weight=0.5, phrase_weight=1.0, token_weight=0.25)
    metrics = mix_into(token_level, torch.tensor([7.0]), [group], [found], config)
    assert metrics == {"gad/token_credit_missing": 1.0} and token_level[0][:-1].tolist() == [0, 0, 0]
    score = (values[0][-1] - values[0][len(encoded.prompt_ids) - 1]).item()
    assert token_level[0][-1].item() == pytest.approx(3.5 + 1.25 * score, abs=1e-5)


def test_a_response_of_which_nothing_is_left_has_shares_of_nothing(
    builders: tuple[SequenceBuilder, SequenceBuilder],
) -> None:
    """Replacement characters alone, not ended: the discriminator reads an empty response."""
    student, reader = builders
    sampled = student.response("\ufffd" * 21).token_ids[:-1]
    group = RolloutGroup(0, MESSAGES, "teacher", [0], [sampled], student.prompt(MESSAGES))
    encoded = encode_group(group, student, reader)
    assert encoded.students[0].token_ids == []
    values = [torch.randn(len(encoded.prompt_ids))]
    (entry,) = response_shares(group, encoded, values, student, reader, "sentence")
    assert not entry.aligned and entry.shares.tolist() == [0.0] * len(sampled)
