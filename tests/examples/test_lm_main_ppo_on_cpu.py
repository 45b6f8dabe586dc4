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
"""A seed of the real language model through main_ppo: models, data, configuration; the runs themselves are long."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lm_main_ppo as study
import pandas as pd
import pytest
import torch
from lm_lab import Lab, Sizes
from lm_language import Choice
from lm_model import pack, scores
from lm_training import start, warm_opponent
from objective_language import GAD, NEW, TUNED
from omegaconf import DictConfig
from tiny_model import build_model

from gad_verl.config import TrustConfig, load_gad_config
from gad_verl.core import Phase, StageSchedule
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.discriminator.model import load_discriminator, prepare_config
from gad_verl.trainer.trust import StudentTrust

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Sizes(
    train=32,
    validation=8,
    test=8,
    start=2,
    every=1,
    passes=1,
    batch=8,
    n=2,
    steps=4,
    equal_time=4,
    checkpoints=1,
    limit=24,
)
CHOICE = Choice(seqkd=1e-4, seqkd_equal_time=3e-5, gad=1e-5, soda=3e-5)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("lm_main_ppo")
    start.cache_clear()
    made = study.ChatLab(build_model(folder / "model", layers=1), folder / "work", TINY)
    # In a folder in which lm_language.py has left nothing.
    for arm in study.ARMS:
        study.prepare(made, arm)
    return made


def test_main_ppo_begins_where_the_other_arms_do(lab: Lab) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    begun, begin = start(lab, study.FIRST_SEED), study.folder_of(lab, "begin")
    student = AutoModelForCausalLM.from_pretrained(begin / "student")
    for weight, master in zip(student.parameters(), begun.masters, strict=True):
        assert weight.dtype == torch.float32 and torch.equal(weight, master)
    corpus = begun.corpus
    builder = SequenceBuilder(AutoTokenizer.from_pretrained(begin / "student"), 256, TINY.limit)
    rows = pd.read_parquet(begin / "train.parquet")
    for number, row in enumerate(rows.to_dict("records")):
        assert builder.prompt(list(row["prompt"])) == corpus.prompts[number]
        assert builder.response(row["teacher_response"]).token_ids == corpus.teachers[number]
    assert len(rows) == TINY.train
    for name, trusted in (("trusted", True), ("plain", False)):
        config = AutoConfig.from_pretrained(begin / name)
        prepare_config(config, None)
        # Another seed of the head: it has to come from the folder.
        loaded = load_discriminator(begin / name, config, torch.float32, fresh_head=False, seed=99).eval()
        warm = warm_opponent(lab, trusted, study.FIRST_SEED)[0].learner
        for weight, master in zip(loaded.parameters(), warm.masters(), strict=True):
            assert torch.equal(weight, master)
        packed = pack(corpus.prompts[:2], [[corpus.teachers[0]], [corpus.teachers[1]]], lab.end)
        # bfloat16 against float32.
        torch.testing.assert_close(scores(loaded, packed), scores(warm.module, packed), atol=0.05, rtol=0.05)


def test_what_the_trainer_holds_out_has_not_trained_the_discriminator(lab: Lab) -> None:
    """By the prompt's text alone other prompts would be held out, and D asked what it has learned by heart."""
    trust = StudentTrust(TrustConfig(held_out_fraction=study.HELD_OUT), cast(Any, None))
    rows = pd.read_parquet(study.folder_of(lab, "begin") / "train.parquet")
    groups = [SimpleNamespace(messages=list(prompt)) for prompt in rows["prompt"]]
    held_out = trust.held_out(cast(Any, groups))
    assert held_out == start(lab, study.FIRST_SEED).corpus.held_out.tolist() and any(held_out)


@pytest.mark.parametrize("arm", study.ARMS)
def test_overrides_make_the_settings_of_the_study(
    lab: Lab, arm: str, compose_config: Callable[..., DictConfig]
) -> None:
    config = compose_config("gad_cpu", *study.overrides(lab, arm, CHOICE))
    gad, total = load_gad_config(config), config.trainer.total_training_steps
    alone = study.ALONE if arm == NEW else 0
    assert total == TINY.steps + alone and gad.keep_checkpoints == 1
    assert config.trainer.save_freq == study.SAVE_STEPS
    if arm == TUNED:
        assert gad.stage == "seqkd" and gad.warmup.actor_lr == CHOICE.seqkd
        return
    schedule = StageSchedule(gad.stage, total, gad.warmup_steps, gad.discriminator_only_steps)
    phases = [schedule.phase(step) for step in range(1, total + 1)]
    assert phases[:alone] == [Phase.DISCRIMINATOR_ONLY] * alone
    assert set(phases[alone:]) == {Phase.ADVERSARIAL}
    assert config.actor_rollout_ref.actor.optim.lr == CHOICE.gad and gad.discriminator_head == "load"
    assert config.discriminator.model.path.endswith("trusted" if arm == NEW else "plain")
    assert config.algorithm.norm_adv_by_std_in_grpo == (arm == GAD)
    if arm == NEW:
        assert gad.trust.options() == study.TRUST and gad.trust.held_out_fraction == study.HELD_OUT
        assert gad.trust.otherwise == "supervised" and gad.warmup.actor_lr == CHOICE.seqkd
    else:
        assert gad.trust.held_out_fraction == 0


def test_the_command_says_what_it_lacks_and_the_table_takes_any_part(tmp_path: Path, monkeypatch, capsys) -> None:
    def fetched(folder: Path) -> Path:
        raise AssertionError("a student is made before the rows are looked at")

    monkeypatch.setattr(study, "ensure_student", fetched)
    monkeypatch.setattr(study, "CHOICE_ROWS", tmp_path / "none.jsonl")
    assert study.main(["--work", str(tmp_path), "--rows", str(tmp_path / "rows.jsonl")]) == 2
    assert "run lm_language.py first" in capsys.readouterr().err
    figures = {column.key: 0.5 for column in study.COLUMNS}
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    row = {"arm": NEW, "seed": study.FIRST_SEED, **figures, "train_s": 600.0}
    row["by_prompt"] = {column.key: [0.25, 0.5] for column in study.DIFFERENCES}
    text, differences = study.tables([row])
    assert "| new objective, main_ppo | 50.0 | 50.0 | 0.50 | 0.50 | 0.50 | 0.500 | 10 |" in text
    assert "| valid, points | – | – | – |" in differences
    gad = row | {"arm": GAD, "by_prompt": {column.key: [0.5, 0.75] for column in study.DIFFERENCES}}
    assert "| valid, points | – | – | +25.0 [+25.0, +25.0] |" in study.tables([row, gad])[1]
