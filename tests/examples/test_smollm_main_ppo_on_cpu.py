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
"""Study 4 through main_ppo: what each run is told, what is trained and judged, tables."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import smollm_lab
import smollm_main_ppo as study
from omegaconf import DictConfig
from tiny_model import build_all

from gad_verl.config import load_gad_config
from gad_verl.core import Phase, StageSchedule
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> study.MainPpo:
    monkeypatch.setattr(smollm_lab, "TEST_PROMPTS", 20)
    folder = build_all(tmp_path / "built", train_rows=60)
    (tmp_path / "work").mkdir()
    return study.MainPpo(folder / "train.parquet", tmp_path / "work", folder / "model", warmup=4, steps=3)


def test_the_trainer_reads_the_tokens_of_the_run_in_one_file(lab: study.MainPpo) -> None:
    from transformers import AutoTokenizer

    builder = SequenceBuilder(AutoTokenizer.from_pretrained(lab.student), study.MAX_PROMPT, study.MAX_RESPONSE)
    rows = pd.read_parquet(lab.files()["train"]).to_dict("records")
    assert len(rows) == len(lab.numbered)
    for row, mine in zip(rows, lab.numbered.values(), strict=True):
        assert builder.prompt(list(row["prompt"])) == lab.builder.prompt(list(mine.messages))
        assert builder.response(row["teacher_response"]) == lab.builder.response(mine.teacher)


@pytest.mark.parametrize("arm", study.RUNS)
def test_overrides_make_the_settings_of_the_study(
    lab: study.MainPpo, arm: str, compose_config: Callable[..., DictConfig]
) -> None:
    lab.more = ["data.train_batch_size=16"]
    config = compose_config("gad_cpu", *lab.overrides(arm, 101))
    gad, total = load_gad_config(config), config.trainer.total_training_steps
    assert total == lab.warmup + lab.steps and config.data.seed == 101
    assert gad.warmup.actor_lr == 2e-5 and config.trainer.save_freq == lab.warmup
    # What stands behind -- wins.
    assert config.data.train_batch_size == 16
    if arm == study.SEQKD:
        assert gad.stage == "seqkd"
        return
    schedule = StageSchedule(gad.stage, total, gad.warmup_steps, gad.discriminator_only_steps)
    phases = [schedule.phase(step) for step in range(1, total + 1)]
    assert phases.count(Phase.ADVERSARIAL) == lab.steps and phases.count(Phase.DISCRIMINATOR_ONLY) == study.ALONE
    assert gad.adversarial.actor_lr == 1e-5 and config.discriminator.optim.lr == 3e-5
    trusted = arm == study.NEW
    assert config.algorithm.norm_adv_by_std_in_grpo != trusted
    assert gad.trust.held_out_fraction == (study.HELD_OUT if trusted else 0)
    assert (gad.trust.otherwise == "supervised") == trusted


def test_each_arm_is_trained_once_and_judged(
    lab: study.MainPpo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def train(folder: Path, settings: list[str], config_name: str) -> list[dict[str, float]]:
        assert config_name == "gad_cpu"
        trained.append(folder.name)
        copy_model(folder / "student")
        common = {"timing_s/step": 2.0, "gad/length_ratio": 1.0, "disc/accuracy": 0.5}
        return [common | ({study.FACTOR: 0.1 * step} if step > 4 else {}) for step in range(1, 8)]

    def copy_model(output: Path) -> None:
        if not output.is_dir():
            output.parent.mkdir(parents=True, exist_ok=True)
            output.symlink_to(lab.student)

    exported: list[tuple[str, int]] = []

    def export(folder: Path, step: int, output: Path) -> None:
        exported.append((folder.name, step))
        copy_model(output)

    monkeypatch.setattr(study, "train", train)
    monkeypatch.setattr(study, "export", export)
    rows = study.Rows(tmp_path / "rows.jsonl")
    assert not study.run(lab, rows, [100], budget_s=-1.0) and not rows.all()
    assert study.run(lab, rows, [100])
    assert study.run(lab, rows, [100], budget_s=-1.0), "nothing is left"
    # The warmup is the first part of GAD's run, which goes on from its checkpoints if it is asked again.
    assert trained == ["GAD-100", "GAD-100", "SeqKD-100", "gad-recommended-100"] and exported == [("GAD-100", 4)]
    by_arm = {row["arm"]: row for row in rows.all()}
    assert tuple(by_arm) == study.ARMS
    assert [by_arm[arm]["train_s"] for arm in study.ARMS[1:]] == [8.0, 14.0, 14.0, 14.0]
    assert by_arm[study.NEW]["factor"] == pytest.approx(0.6)
    texts = (lab.work / "samples-main_ppo-100.md").read_text(encoding="utf-8")
    assert texts.count("teacher: ") == 12 and "gad=recommended: " in texts
    assert json.loads(json.dumps(rows.all())) == rows.all()
    arms, differences = study.tables(rows.all())
    assert "| gad=recommended, main_ppo |" in arms and "Mean f after the warmup: 0.60" in arms
    assert "gad=recommended less SeqKD" in differences and "+0.000 [+0.000, +0.000]" in differences


def test_a_folder_of_other_settings_is_not_gone_on_with(lab: study.MainPpo, tmp_path: Path) -> None:
    """The runs there would be taken for those that are asked for."""

    def again(*more: str) -> study.MainPpo:
        data = tmp_path / "built" / "train.parquet"
        return study.MainPpo(data, lab.work, lab.student, lab.warmup, lab.steps, lab.config_name, more)

    again()
    with pytest.raises(GadConfigError, match=r"settings\.json is of a study with other settings: name another --work"):
        again("data.train_batch_size=64")


def test_command_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments: list[Any] = ["--data", tmp_path / "none.parquet", "--work", tmp_path / "w", "--student", tmp_path / "no"]
    assert study.main([str(argument) for argument in arguments]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert study.main([*map(str, arguments), "--warmup", "2"]) == 2
    assert "--warmup must be above 2" in capsys.readouterr().err
