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
"""A check beside the discriminator: sum, product, gate; a function over whole groups; D trained on what passes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from fake_run import FakeRun, random_answer, random_score
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from gad_verl.config import load_gad_config
from gad_verl.core.combining import combined_rewards, without_unknown
from gad_verl.discriminator.groups import SequenceGroup, build_group_batch
from gad_verl.errors import GadConfigError
from gad_verl.trainer.replayed import pack_group, unpack_group

G, N = 5, 4


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(G, N, generator=generator)
    task = (torch.rand(G, N, generator=generator) < 0.5).float()
    return scores, task, torch.randn(G, generator=generator)


@given(st.integers(0, 10_000), st.sampled_from(["product", "gate"]))
def test_an_answer_that_fails_is_never_above_one_that_passes(seed: int, mode: str) -> None:
    scores, task, teacher = drawn(seed)
    rewards = combined_rewards(scores, task, teacher, torch.ones(G, N), mode, 1.0, 0.5)
    for row in range(G):
        passes = task[row] >= 0.5
        if passes.any() and not passes.all():
            assert rewards[row][~passes].max() < rewards[row][passes].min()
        if not passes.any():
            assert rewards[row].max() == rewards[row].min()
        # Among those that pass the discriminator decides.
        order = scores[row][passes].argsort()
        assert torch.equal(rewards[row][passes].argsort(), order)


@given(st.integers(0, 10_000), st.floats(0.1, 5))
def test_sum_and_product_are_their_closed_forms(seed: int, weight: float) -> None:
    scores, task, teacher = drawn(seed)
    ones = torch.ones(G, N)
    found = combined_rewards(scores, task, teacher, ones, "sum", weight, 0.5)
    assert torch.allclose(found, scores + weight * task)
    found = combined_rewards(scores, task, teacher, ones, "product", weight, 0.5)
    assert torch.allclose(found, weight * task * torch.sigmoid(scores - teacher[:, None]))
    # The level of the scores is free.
    moved = combined_rewards(scores + 3, task, teacher + 3, ones, "product", weight, 0.5)
    assert torch.allclose(found, moved, atol=1e-5)


def test_a_step_of_which_nothing_passes_gives_no_direction() -> None:
    scores, _, teacher = drawn(0)
    rewards = combined_rewards(scores, torch.zeros(G, N), teacher, torch.ones(G, N), "gate", 1.0, 0.5)
    assert torch.equal(rewards, torch.zeros(G, N))


@pytest.mark.parametrize("mode", ["sum", "product", "gate"])
def test_scores_that_are_not_finite_spoil_their_own_reward_alone(mode: str) -> None:
    scores, task, teacher = drawn(1)
    task[0, 0], scores[0, 0] = 1.0, math.nan
    rewards = combined_rewards(scores, task, teacher, torch.ones(G, N), mode, 1.0, 0.5)
    assert torch.isnan(rewards[0, 0]) and int(torch.isnan(rewards).sum()) == 1


def test_an_unknown_reward_is_the_mean_of_its_group() -> None:
    task = torch.tensor([[1.0, math.nan, 0.0, 1.0], [math.nan] * 4])
    weights = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    found, unknown = without_unknown(task, weights)
    # What has no answer is in no mean.
    assert unknown == 5 and found[0].tolist() == [1.0, 0.5, 0.0, 1.0] and found[1].tolist() == [0.5] * 4
    nothing, unknown = without_unknown(torch.full((1, 2), math.nan), torch.ones(1, 2))
    assert nothing.tolist() == [[0.0, 0.0]] and unknown == 2


def test_what_failed_is_not_learned_when_it_is_replayed() -> None:
    group = SequenceGroup(([1, 2],), [[3], [4], None], student_trains=(True, False, True))
    assert group.valid_students() == [1.0, 1.0, 0.0] and group.pair_weights() == [1.0, 0.0, 0.0]
    again = unpack_group(pack_group(group), 3)
    assert again.student_ids == [[3], None, None] and again.pair_weights() == [1.0, 0.0, 0.0]


def test_what_failed_has_no_turns_when_it_is_replayed() -> None:
    ends = ([2, 4], [2, 3], [3, 4], [])
    trajectories = SequenceGroup(
        ([1, 2, 3, 4, 5],), [[1, 6, 7, 8], [1, 2, 7, 7, 9], None], 1, student_trains=(True, False, True), ends=ends
    )
    packed = pack_group(trajectories)
    for num_students in (2, 3, 4):
        again = unpack_group(packed, num_students)
        assert again.ends == ([2, 4], [2, 3], *[[]] * (num_students - 1))
        shares = build_group_batch([again], num_students)["score_weight"].unbind()
        assert [row.tolist() for row in shares[:2]] == [[0, 0, 0.5, 0, 0.5], [0, 0, 0.5, 0.5]]
        assert [row.tolist() for row in shares[2:]] == [[1.0]] * (num_students - 1)


# ------------------------------ in a run ------------------------------

STEPS, WARMUP = 4, 2


@pytest.fixture
def config(tiny_config: DictConfig, tmp_path: Path) -> DictConfig:
    tiny_config.trainer.total_training_steps, tiny_config.trainer.total_epochs = STEPS, 10
    tiny_config.trainer.val_before_train = False
    tiny_config.trainer.test_freq = tiny_config.trainer.save_freq = -1
    tiny_config.gad.discriminator_only_steps, tiny_config.gad.warmup_steps = 1, WARMUP
    rows = pd.read_parquet(tiny_config.data.train_files)
    path = tmp_path / "rows.parquet"
    rows.assign(reward_model=[{"ground_truth": "x", "style": "rule"}] * len(rows)).to_parquet(path)
    tiny_config.data.train_files = str(path)
    return tiny_config


@pytest.fixture
def start(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRun]:
    def started(values: dict[str, Any], answer: Any = random_answer) -> FakeRun:
        for key, value in values.items():
            OmegaConf.update(config, f"gad.{key}", value)
        return FakeRun(config, monkeypatch, answer, random_score, task_reward=lambda text: float("pass" in text)).fit()

    return started


def answer(index: int, session: int, step: int) -> str:
    return f"{random_answer(index, session, step)}{' pass' if (index + session) % 3 == 0 else ''}"


@pytest.mark.parametrize("mode", ["product", "gate"])
def test_a_run_by_one_key(start: Callable[..., FakeRun], mode: str) -> None:
    run = start({"reward.task_weight": 1.0, "reward.task_combination": mode}, answer)
    tokenizer = run.trainer.tokenizer
    for update in run.policy_rows():
        of_prompt: dict[int, dict[bool, list[float]]] = {}
        for row in update:
            passes = "pass" in tokenizer.decode(row["responses"], skip_special_tokens=True)
            sides = of_prompt.setdefault(int(row["index"]), {True: [], False: []})
            sides[passes].append(row["rm_scores"].sum().item())
        assert all(max(sides[False]) < min(sides[True]) for sides in of_prompt.values())
    assert 0 < run.metrics[STEPS]["gad/task_passing_rate"] < 1


def test_the_discriminator_learns_from_what_passes_alone(start: Callable[..., FakeRun]) -> None:
    run = start({"reward.task_weight": 1.0, "discriminator_updates.passing_only": True}, answer)
    tokenizer, seen = run.trainer.tokenizer, set()
    updates = run.discriminator.named("update")
    assert len(updates) == STEPS
    for group in (group for groups in updates for group in groups):
        for ids, weight in zip(group.student_ids, group.pair_weights(), strict=True):
            assert weight == float("pass" in tokenizer.decode(ids, skip_special_tokens=True))
            seen.add(weight)
        assert group.valid_students() == [1.0] * len(group.student_ids)
    assert seen == {0.0, 1.0}


GROUP_FUNCTION = '''
asked = []

def shortest(groups):
    """Rank of an answer by its length, from 0 for the longest to 1."""
    asked.append(groups)
    found = []
    for group in groups:
        known = [len(answer) for answer in group.answers if answer is not None]
        assert group.messages[-1]["role"] == "user" and group.teacher_texts and dict(group.extra_info) is not None
        found.append([
            None if answer is None or len(answer) % 5 == 0 else sum(len(answer) < one for one in known) / len(known)
            for answer in group.answers
        ])
    return found

def too_few(groups):
    return [[1.0] for _ in groups]
'''


def test_a_function_sees_all_answers_to_a_prompt(start: Callable[..., FakeRun], tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(GROUP_FUNCTION)
    where = f"{path}:shortest"
    values = {"reward.group_function": where, "reward.task_weight": 1.0, "reward.discriminator_weight": 0.0}
    run = start(values)
    tokenizer = run.trainer.tokenizer
    updates = run.policy_rows()
    assert len(updates) == STEPS - WARMUP
    for update in updates:
        of_prompt: dict[int, list[tuple[str, float]]] = {}
        for row in update:
            text = tokenizer.decode(row["responses"], skip_special_tokens=True)
            of_prompt.setdefault(int(row["index"]), []).append((text, row["rm_scores"].sum().item()))
        for answers in of_prompt.values():
            expected = {
                text: sum(len(text) < len(other) for other, _ in answers) / len(answers)
                for text, _ in answers
                if len(text) % 5
            }
            assert all(reward == pytest.approx(expected[text]) for text, reward in answers if text in expected)
            unknown = [reward for text, reward in answers if text not in expected]
            known = [expected[text] for text, _ in answers if text in expected]
            if known and unknown:
                assert unknown == pytest.approx([sum(known) / len(known)] * len(unknown))
    assert "gad/task_rewards_unknown" in run.metrics[STEPS]


def test_a_function_that_forgets_answers_is_named(start: Callable[..., FakeRun], tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(GROUP_FUNCTION)
    with pytest.raises(GadConfigError, match="own.py:too_few must return"):
        start({"reward.group_function": f"{path}:too_few", "reward.task_weight": 1.0})


@pytest.mark.parametrize(
    "returned",
    ["None", "[0.5 for group in groups]", "(1 for group in groups)", "[['good'] for group in groups]", "[{}]"],
)
def test_what_is_no_list_of_rewards_is_named(start: Callable[..., FakeRun], tmp_path: Path, returned: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(f"def rate(groups):\n    return {returned}\n")
    with pytest.raises(GadConfigError, match="own.py:rate must return.*got "):
        start({"reward.group_function": f"{path}:rate", "reward.task_weight": 1.0})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"reward.task_combination": "product"}, "task_weight=0"),
        ({"reward.group_function": "json:dumps"}, "task_weight=0"),
        ({"reward.task_combination": "gate", "reward.task_weight": 1.0, "reward.discriminator_weight": 2.0}, "at 1"),
        ({"reward.task_combination": "product", "reward.task_weight": 1.0, "reward.whitening": "group"}, "whitening"),
        ({"reward.task_combination": "mean"}, "sum, product, gate"),
        ({"discriminator_updates.passing_only": True}, "task_weight above 0"),
        ({"reward.group_function": "json:nothing", "reward.task_weight": 1.0}, "cannot be loaded"),
    ],
)
def test_settings_that_cannot_work_are_named(config: DictConfig, values: dict[str, Any], words: str) -> None:
    for key, value in values.items():
        OmegaConf.update(config, f"gad.{key}", value)
    with pytest.raises(GadConfigError, match=words):
        load_gad_config(config)
