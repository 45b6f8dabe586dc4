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
"""Study 4 on a tiny model: slices that are interrupted, the choice of rows, tables."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import smollm
import smollm_lab
import torch
from gad_command import load_models
from tiny_model import build_all

from gad_verl.errors import GadDataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_all(tmp_path_factory.mktemp("smollm"), train_rows=60)


@pytest.fixture
def study(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> smollm.Study:
    monkeypatch.setattr(smollm_lab, "TEST_PROMPTS", 20)
    monkeypatch.setattr(smollm, "LAYERS_OF_D", 1)
    return smollm.Study(folder / "train.parquet", tmp_path / "work", folder / "model", warmup=3, steps=3)


def train(study: smollm.Study, stage: str, folder: Path, deadlines: list[float]) -> smollm.Slice:
    """A phase in as many slices as there are deadlines, each from models that know nothing of the one before."""
    for deadline in deadlines:
        student, discriminator, _, _ = load_models(str(study.student), 1, 0)
        settings = study.settings(stage, 4, seed=3)
        gad = smollm.ResumableGad(
            student, discriminator, study.train, settings, study.builder.stop_ids, study.builder.student_response
        )
        part = smollm.Slice(gad, folder)
        done = part.run(deadline)
    assert done
    return part


def test_the_loss_of_each_text_and_of_all(study: smollm.Study) -> None:
    student, _, _, _ = load_models(str(study.student), 1, 0)
    rows = study.test[:5]
    together = smollm_lab.likelihoods(student, rows, study.builder, batch=2)
    alone = [smollm_lab.likelihoods(student, [row], study.builder).item() for row in rows]
    assert together.tolist() == pytest.approx(alone, rel=1e-4)
    for row, value in zip(rows, alone, strict=True):
        ids = study.builder.prompt(list(row.messages)), study.builder.response(row.teacher).token_ids
        whole = torch.tensor([ids[0] + ids[1]])
        with torch.no_grad():
            log_probs = student(whole).logits.log_softmax(-1)[0, :-1].gather(1, whole[0, 1:, None])
        assert -log_probs[-len(ids[1]) :].sum().item() == pytest.approx(value, rel=1e-4)


def test_differences_are_paired_by_prompt_and_seed() -> None:
    rows = [
        {"arm": arm, "seed": seed, "by_prompt": {"rouge_l": [0.1 * seed + shift, 0.5 + shift]}}
        for seed in (1, 2)
        for arm, shift in (("SeqKD", 0.0), ("GAD", 0.02 * seed))
    ]
    found = smollm_lab.difference(rows, "SeqKD", "GAD", "rouge_l")
    assert (found.value, found.low, found.high) == pytest.approx((0.03, 0.03, 0.03))
    assert smollm_lab.difference(rows[:1], "SeqKD", "GAD", "rouge_l") is None


@pytest.mark.parametrize("stage", ["warmup", "seqkd", "gad"])
def test_slices_make_the_run_that_was_not_interrupted(
    study: smollm.Study, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(study, stage, tmp_path / "whole", [math.inf])
    monkeypatch.setattr(smollm, "SAVE_EVERY", 1)
    now = [0.0]
    # The clock moves by one with every question, so that a deadline of 2 is two steps.
    monkeypatch.setattr(smollm.time, "monotonic", lambda: now.__setitem__(0, now[0] + 1) or now[0])
    sliced = train(study, stage, tmp_path / "sliced", [1.0, 3.0, math.inf])
    assert len(sliced.metrics) == len(whole.metrics) == 4
    for one, other in zip(whole.metrics, sliced.metrics, strict=True):
        for name in one:
            if not name.startswith("timing_s"):
                assert one[name] == other[name], name
    for name, value in whole.gad.student.state_dict().items():
        assert torch.equal(value, sliced.gad.student.state_dict()[name]), name


def test_a_study_runs_to_its_rows_and_goes_on_where_it_was_cut(study: smollm.Study, tmp_path: Path) -> None:
    rows = smollm.Rows(tmp_path / "rows.jsonl")
    # The time is over before the first step.
    assert not smollm.run(study, rows, [1], deadline=-math.inf)
    assert [row["arm"] for row in rows.all()] == ["base"]
    assert smollm.run(study, rows, [1], deadline=math.inf)
    assert [row["arm"] for row in rows.all()] == ["base", "warmup", "SeqKD", "GAD"]
    by_arm = {row["arm"]: row for row in rows.all()}
    assert len(by_arm["GAD"]["series"]["disc/accuracy"]) == 3 and by_arm["SeqKD"]["series"] == {}
    assert by_arm["GAD"]["train_s"] > by_arm["SeqKD"]["train_s"] > 0
    # SeqKD lowers what it trains: the loss on the teacher's texts.
    assert by_arm["warmup"]["loss"] > 0 and by_arm["SeqKD"]["loss"] < by_arm["base"]["loss"]
    texts = (study.work / "samples-1.md").read_text(encoding="utf-8")
    assert texts.count("teacher: ") == 12 and "GAD: " in texts
    assert json.loads(json.dumps(rows.all())) == rows.all()
    arms, differences = smollm.tables(rows.all())
    assert "| GAD |" in arms and "| base |" in arms and "GAD less SeqKD" in differences
    assert len(smollm.figure(rows.all()).axes) == 3
    # Another seed in the same folder draws other answers of the base.
    assert study.row(smollm.BASE, 2).keys() == study.row(smollm.BASE, 1).keys()
    assert {path.name for path in (study.work / "answers").iterdir()} >= {"base-1", "base-2"}
    asked = {tuple(study.builder.prompt(list(row.messages))) for row in study.test}
    assert not asked & {tuple(example.prompt_ids) for example in study.train}


def test_too_few_short_rows_are_an_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm_lab, "MAX_RESPONSE", 2)
    with pytest.raises(GadDataError, match="0 rows have a prompt of at most 80"):
        smollm.Study(folder / "train.parquet", tmp_path / "work", folder / "model", warmup=1, steps=1)


def test_command_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments: list[Any] = ["--data", tmp_path / "none.parquet", "--work", tmp_path / "w", "--student", tmp_path / "no"]
    assert smollm.main([str(argument) for argument in arguments]) == 2
    assert str(tmp_path) in capsys.readouterr().err
