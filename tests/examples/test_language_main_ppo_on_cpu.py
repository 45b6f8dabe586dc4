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
"""Study 2 through main_ppo: its models, its data and the configuration of every arm; the runs themselves are long."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import language_main_ppo as study
import pandas as pd
import pytest
from omegaconf import DictConfig
from oracle_language import END, STOP_IDS

from gad_verl.config import load_gad_config
from gad_verl.core import Phase, StageSchedule
from gad_verl.data.tokens import SequenceBuilder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    study.prepare(folder)
    return folder


def test_both_trainers_read_the_same_tokens(work: Path) -> None:
    corpus = study.prepare(work)
    builder = SequenceBuilder(study.build_tokenizer(), 16, 8, frozenset([END]))
    rows = pd.read_parquet(work / "train.parquet")
    assert len(rows) == len(corpus.train) == 1000
    for row, example in zip(rows.to_dict("records"), corpus.train, strict=True):
        assert builder.prompt(list(row["prompt"])) == example.prompt_ids
        assert builder.response(row["teacher_response"]).token_ids == example.teachers[0].token_ids


@pytest.mark.parametrize("arm", [study.SEQKD, study.GAD, study.TRUSTED])
def test_overrides_make_the_settings_of_the_study(
    work: Path, arm: str, compose_config: Callable[..., DictConfig]
) -> None:
    config = compose_config("gad_cpu", *study.overrides(work, arm))
    gad = load_gad_config(config)
    total = config.trainer.total_training_steps
    if arm == study.SEQKD:
        assert gad.stage == "seqkd" and gad.warmup.actor_lr == 3e-3 and config.data.train_batch_size == 64
        assert total == study.REGIME.seqkd_steps
        return
    schedule = StageSchedule(gad.stage, total, gad.warmup_steps, gad.discriminator_only_steps)
    phases = [schedule.phase(step) for step in range(1, total + 1)]
    assert phases.count(Phase.ADVERSARIAL) == study.REGIME.adversarial
    assert phases.count(Phase.DISCRIMINATOR_ONLY) == study.REGIME.warmup == total - study.REGIME.adversarial
    assert config.actor_rollout_ref.actor.optim.lr == study.REGIME.actor_lr and config.discriminator.optim.lr == 1e-3
    assert (gad.trust.held_out_fraction == 0.125) == (arm == study.TRUSTED)
    assert gad.trust.options() == study.TRUST if arm == study.TRUSTED else gad.trust.held_out_fraction == 0


def test_tables_from_rows() -> None:
    common = {"seed": 1, "valid": 0.5, "greedy": 0.4, "covered": 1.0, "length": 6.0, "wall_s": 90.0}
    rows = [
        {"trainer": study.MAIN_PPO, "arm": study.TRUSTED, **common, "disc_accuracy": [0.6], "gad_trust_factor": [0.0]},
        {"trainer": study.ONE_FILE, "arm": study.SEQKD, **common},
    ]
    (text,) = study.tables(rows)
    assert "| SeqKD, one file | 50.0 | 40.0 | 1.00 | 6.0 | – | – | 1.5 |" in text
    assert "| GAD, trust, main_ppo | 50.0 | 40.0 | 1.00 | 6.0 | 0.60 | 0.00 | 1.5 |" in text
    assert STOP_IDS == {END}


def test_a_run_that_was_cut_off_goes_on_and_every_step_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [(1, 7, 75), (6, 9, 75), (7, 12, 0)]

    def main_ppo(command: list[str], **_: object) -> subprocess.CompletedProcess:
        if "export" in command:
            (tmp_path / "student").mkdir()
            return subprocess.CompletedProcess(command, 0)
        assert "trainer.resume_mode=auto" in command
        first, last, code = parts.pop(0)
        # As verl's logger does: the file begins anew.
        lines = [json.dumps({"step": step, "data": {"from": first}}) for step in range(first, last + 1)]
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(last))
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", main_ppo)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"ended with 75; see .*log\.txt"):
            study.train(tmp_path, [])
    found = [1] * 5 + [6] + [7] * 6
    for _ in range(2):  # the second time from the files alone
        assert [row["from"] for row in study.train(tmp_path, [])] == found
