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
"""The plan of a run: its stages are those of the schedule, its mistakes one line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.cli import main
from gad_verl.core.schedule import STAGES, StageSchedule
from gad_verl.tools.doctor.run_plan import stages


@given(
    stage=st.sampled_from(STAGES),
    total=st.integers(1, 40),
    warmup=st.integers(0, 40),
    alone=st.integers(0, 40),
    snapshot=st.integers(0, 20),
)
def test_stages_cover_every_step_once_with_its_phase(stage, total, warmup, alone, snapshot):
    try:
        schedule = StageSchedule(stage, total, warmup, alone, snapshot)
    except ValueError:
        return
    found = list(stages(schedule))
    steps = [(step, phase) for phase, first, last in found for step in range(first, last + 1)]
    assert steps == [(step, schedule.phase(step)) for step in range(1, total + 1)]
    # No phase is cut in two.
    assert all(before[0] is not after[0] for before, after in zip(found, found[1:], strict=False))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config-path", "recipes/gad/config"], "is relative"),
        (["--config-name", "gad_trianer"], "gad_trianer"),
        (["gad.stagge=auto"], "stagge"),
        (["trainer.v1.trainer_mode=sync"], "trainer.v1.trainer_mode=sync is stock verl"),
        (["actor_rollout_ref.actor.use_dynamic_bsz=False", "trainer.n_gpus_per_node=7"], "verl refuses"),
        (["actor_rollout_ref.actor.optim.lr_scheduler_type=linear"], "actor_rollout_ref.actor.optim: verl refuses"),
    ],
)
def test_a_mistake_is_one_line(arguments, expected, capsys):
    assert main(["doctor", "--plan", *arguments]) == 2
    said = capsys.readouterr()
    error = said.err.strip().splitlines()[-1]
    assert error.startswith("gad-verl: ") and expected in error and said.out == ""


def test_the_plan_is_what_the_arguments_say(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--config-name",
        "gad_cpu",
        f"actor_rollout_ref.model.path={tiny_folder / 'model'}",
        f"data.train_files={tiny_folder / 'train.parquet'}",
        f"data.val_files={tiny_folder / 'val.parquet'}",
        f"trainer.default_local_dir={tiny_folder / 'nowhere'}",
        "trainer.total_training_steps=9",
        "gad.warmup_steps=4",
        "gad.discriminator_only_steps=1",
        "gad.warmup.actor_lr=5e-6",
        "gad.adversarial.actor_lr=2e-6",
        "discriminator.optim.lr=1e-6",
    ]
    assert main(["doctor", "--plan", "--json", *arguments]) == 0
    lines = json.loads(capsys.readouterr().out)["plan"]
    found = dict(lines)
    phases = [(name, text) for name, text in lines if name.startswith("steps ")]
    assert phases == [("steps 1-1", "discriminator alone"), ("steps 2-4", "warmup"), ("steps 5-9", "adversarial")]
    assert found["family of the student"] == "qwen2: Qwen2ForCausalLM, attention sdpa"
    judge = "qwen2: Qwen2ForTokenClassification, a token classifier, attention sdpa"
    assert found["family of the discriminator"] == judge
    assert found["rows"].startswith("48, ") and found["goes on from"] == "the beginning"
    assert ["not as published", "gad.discriminator_only_steps=1"] in lines
    assert found["learning rates"] == "student warmup 5e-06, adversarial stage 2e-06; discriminator 1e-06"
    assert not (tiny_folder / "nowhere").exists()
    assert main(["doctor", "--plan", *arguments]) == 0
    text = capsys.readouterr().out
    assert all(value in text for value in found.values()) and "Nothing was started" in text
