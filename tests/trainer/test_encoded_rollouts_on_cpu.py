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
"""Rollouts that come encoded, against the same ones that the trainer encodes; what is fetched, and how often."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from fake_run import FakeRun, random_answer
from omegaconf import DictConfig
from tiny_model import build_other_model

from gad_verl.data.answers import ENCODED, ENCODED_TEACHER
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.discriminator.groups import SequenceGroup
from gad_verl.rollout.encoding_agent import encoder_of
from gad_verl.trainer import replayed
from gad_verl.trainer.rollouts import Rollouts

PROMPTS, N = 8, 4


@pytest.fixture
def config(tiny_config: DictConfig) -> DictConfig:
    """Four steps: one for the discriminator alone, one of warmup, two adversarial; a validation at the end."""
    tiny_config.trainer.total_training_steps, tiny_config.trainer.total_epochs = 4, 10
    tiny_config.trainer.val_before_train = False
    tiny_config.trainer.test_freq, tiny_config.trainer.save_freq = 4, -1
    tiny_config.gad.discriminator_only_steps, tiny_config.gad.warmup_steps = 1, 2
    return tiny_config


def answer(index: int, session: int, step: int) -> str | None:
    """Some sessions fail, and some texts are too long for a response."""
    if (index + session + step) % 7 == 0:
        return None
    return random_answer(index, session, step) * (9 if (index + session) % 5 == 0 else 1)


def thinking(index: int, session: int, step: int) -> str | None:
    text = answer(index, session, step)
    return None if text is None else f"<think>{session}</think>\n\n{text}" if session % 2 else text


def told(groups: list[SequenceGroup]) -> list[Any]:
    return [(group.teacher_ids, group.student_ids, group.prompt_length, group.trains) for group in groups]


def seen(run: FakeRun) -> tuple[list[Any], dict[int, dict[str, float]], list[Any]]:
    """What the discriminator read, what was logged of GAD, and the rewards of the student's updates."""
    read = [told(groups) for groups in run.discriminator.named("update", "score")]
    metrics = {
        step: {name: value for name, value in found.items() if name.startswith(("gad/", "disc/", "val-"))}
        for step, found in run.metrics.items()
    }
    rewards = [[row["rm_scores"].tolist() for row in rows] for rows in run.policy_rows()]
    return read, metrics, rewards


@pytest.mark.parametrize("case", ["own tokenizer", "other tokenizer", "thoughts", "several teachers"])
def test_a_run_is_the_same_wherever_its_rollouts_are_encoded(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str
) -> None:
    if case == "other tokenizer":
        config.discriminator.model.path = str(build_other_model(tmp_path / "other"))
    if case == "thoughts":
        config.gad.thinking.mode = "hidden"
    if case == "several teachers":
        table = pd.read_parquet(config.data.train_files)
        texts = [[text, f"{text}, too"] if row % 2 else [text] for row, text in enumerate(table["teacher_response"])]
        config.data.train_files = str(tmp_path / "several.parquet")
        table.assign(teacher_response=texts).to_parquet(config.data.train_files)
    found = []
    for encodes in (False, True):
        config.trainer.default_local_dir = str(tmp_path / str(encodes) / "checkpoints")
        with monkeypatch.context() as patch:
            run = FakeRun(config, patch, thinking if case == "thoughts" else answer)
            run.rollouts.encodes = encodes
            found.append(seen(run.fit()))
        for name in (ENCODED, ENCODED_TEACHER):
            assert any(name in row for row in run.queue.cleared) == encodes
    assert found[0] == found[1]
    assert len(found[0][0]) >= 4 and len(found[0][2]) == 2


def test_nothing_is_fetched_twice_and_what_is_common_once(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[tuple[list[str], list[str]]] = []
    get = Rollouts._get

    def noted(partition_id: str, keys: list[str], names: list[str]) -> Any:
        fetched.append((list(keys), list(names)))
        return get(partition_id, keys, names)

    monkeypatch.setattr(Rollouts, "_get", staticmethod(noted))
    run = FakeRun(config, monkeypatch)
    run.rollouts.encodes = True
    run.fit()
    count = Counter((key, name) for keys, names in fetched for key in keys for name in names)
    assert set(count.values()) == {1}
    of_prompts = [keys for keys, names in fetched if "teacher_response" in names]
    assert of_prompts and all(len(keys) == len({key.rsplit("_", 2)[0] for key in keys}) for keys in of_prompts)
    # The rewards of a step without a policy gradient are read again, where verl asks for advantages.
    assert {name for _, names in fetched for name in names} >= {"responses", ENCODED}
    # verl may have padded its batch by copies of trajectories since.
    assert all("responses" not in names or len(set(keys)) == len(keys) for keys, names in fetched)


def test_the_trainer_encodes_no_text_that_came_encoded(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[tuple[SequenceBuilder, str]] = []
    response_for = SequenceBuilder.response_for

    def noted(self: SequenceBuilder, reader: SequenceBuilder | None, text: str, finished: bool = True) -> Any:
        encoded.append((self, text))
        return response_for(self, reader, text, finished)

    monkeypatch.setattr(SequenceBuilder, "response_for", noted)
    run = FakeRun(config, monkeypatch, lambda index, session, step: None if session == index % 3 == 0 else "yes")
    run.rollouts.encodes = True
    run.fit()
    of_the_loops = encoder_of(config, run.trainer.tokenizer).student
    texts = {text for builder, text in encoded if builder is not of_the_loops}
    # Those of prompts whose first session failed.
    assert texts and texts <= set(pd.read_parquet(config.data.train_files)["teacher_response"][::3])


def test_groups_are_packed_where_something_remembers_them(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[SequenceGroup] = []
    pack = replayed.pack_group
    monkeypatch.setattr(replayed, "pack_group", lambda group: packed.append(group) or pack(group))
    FakeRun(config, monkeypatch).fit()
    assert not packed
    config.gad.replay.capacity_steps = 1
    config.trainer.default_local_dir += "_replay"
    FakeRun(config, monkeypatch).fit()
    assert len(packed) == 4 * PROMPTS


def test_lengths_of_rewards_are_those_of_the_responses(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun(config, monkeypatch, answer=lambda *where: [random_answer(*where), random_answer(*where) * 2])
    run.fit()
    rows = [row for rows in run.policy_rows() for row in rows]
    assert rows and all(row["rm_scores"].shape == row["responses"].shape for row in rows)
    assert all(torch.count_nonzero(row["rm_scores"][:-1]) == 0 for row in rows)
