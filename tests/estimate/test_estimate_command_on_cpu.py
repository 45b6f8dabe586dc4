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
"""``gad-verl estimate`` on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from gad_verl.cli import main

SEVEN = (
    "actor_rollout_ref.model.path=Qwen/Qwen2.5-7B-Instruct",
    "trainer.n_gpus_per_node=8",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
)


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert main(["estimate", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    return json.loads(run(capsys, "--json", *arguments)[0])


def phases(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {phase["name"]: phase for phase in found["memory"]}


def test_text_shows_memory_time_and_what_is_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, *SEVEN, "--rows", "192014")
    for part in (
        "8 x h100-80g",
        "7.62 billion",
        "student update",
        "Whole run",
        "1500 adversarial",
        "Assumptions",
        "MFU",
    ):
        assert part in out


def test_texts_that_join_an_update_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    lengths = ("--rows", "19200", "--prompt-tokens", "100", "--response-tokens", "300")

    def update(stage: str, *overrides: str) -> dict[str, float]:
        return as_json(capsys, *SEVEN, *overrides, *lengths)["seconds"][stage]["student update"]

    plain, anchored = (update("adversarial", "gad=paper", *more) for more in ((), ("gad.supervised_weight=0.1",)))
    # n + 1 rows a prompt.
    assert anchored["high"] == pytest.approx(plain["high"] * 9 / 8, rel=0.1)
    evidence = update("adversarial")
    # The default lies between a step of SeqKD and one of both.
    assert evidence["high"] == pytest.approx(anchored["high"])
    assert evidence["low"] == pytest.approx(update("warmup")["low"])


def test_soda_has_three_kinds_of_steps(capsys: pytest.CaptureFixture[str]) -> None:
    lengths = ("--rows", "19200", "--prompt-tokens", "100", "--response-tokens", "300")
    found = as_json(capsys, *SEVEN, "gad.stage=soda", *lengths)["seconds"]
    assert set(found) == {"snapshot", "seqkd", "preference"}
    rollouts = {name for name, stages in found.items() if "rollout" in stages}
    updates = {name for name, stages in found.items() if "student update" in stages}
    assert rollouts == {"snapshot"} and updates == {"seqkd", "preference"}
    assert not any("discriminator update" in stages for stages in found.values())
    # Two rows a prompt instead of one.
    texts, pairs = (found[name]["student update"]["low"] for name in ("seqkd", "preference"))
    assert pairs > 1.5 * texts


def test_past_pairs_that_replace_cost_less_than_added_ones(capsys: pytest.CaptureFixture[str]) -> None:
    lengths = ("--rows", "19200", "--prompt-tokens", "100", "--response-tokens", "300")

    def update(*overrides: str) -> float:
        found = as_json(capsys, *SEVEN, *overrides, *lengths)["seconds"]
        return found["adversarial"]["discriminator update"]["low"]

    plain, added = update(), update("gad.replay.capacity_steps=16")
    replaced = update("gad.replay.capacity_steps=16", "gad.replay.mode=replace")
    assert (replaced - plain) == pytest.approx((added - plain) / 2, rel=1e-6) and replaced > plain


def test_flags_replace_what_is_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    base = as_json(capsys, *SEVEN, "--rows", "19200", "--prompt-tokens", "100", "--response-tokens", "300")
    fast = as_json(
        capsys, *SEVEN, "--rows", "19200", "--prompt-tokens", "100", "--response-tokens", "300", "--mfu", "0.6"
    )
    assert fast["run"]["hours"]["high"] < base["run"]["hours"]["high"]
    assert fast["lengths"]["prompt"] == {"low": 100, "high": 100}
    assert fast["lengths"]["teacher"] == fast["lengths"]["response"] == {"low": 300, "high": 300}
    assert fast["assumptions"]["mfu"] == {"low": 0.6, "high": 0.6}
    assert base["run"]["steps"] == {"discriminator_only": 10, "warmup": 65, "adversarial": 150}
    assert base["memory"] == fast["memory"]


def test_strict_fails_where_something_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, *SEVEN, "--gpu", "rtx4090", "--strict", code=1)
    assert "does not fit" in out and "What helps" in out and "24 GiB" in out
    assert "its length is not known" in out


def test_a_model_in_a_folder_and_its_data_are_measured(capsys: pytest.CaptureFixture[str], tiny_folder: Path) -> None:
    found = as_json(
        capsys,
        "--config-name",
        "gad_cpu",
        f"actor_rollout_ref.model.path={tiny_folder / 'model'}",
        f"data.train_files={tiny_folder / 'train.parquet'}",
        f"data.val_files={tiny_folder / 'val.parquet'}",
    )
    assert found["lengths"]["source"].startswith("measured on 48 rows")
    # 48 rows in batches of 8, 3 epochs.
    assert sum(found["run"]["steps"].values()) == 18
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    assert found["models"]["student"]["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_a_measured_teacher_is_kept_where_responses_are_given(
    capsys: pytest.CaptureFixture[str], tiny_folder: Path
) -> None:
    run_arguments = (
        "--config-name",
        "gad_cpu",
        f"actor_rollout_ref.model.path={tiny_folder / 'model'}",
        f"data.train_files={tiny_folder / 'train.parquet'}",
        f"data.val_files={tiny_folder / 'val.parquet'}",
    )
    measured = as_json(capsys, *run_arguments)["lengths"]
    for flags in (("--response-tokens", "1"), ("--prompt-tokens", "2", "--response-tokens", "1")):
        given = as_json(capsys, *flags, *run_arguments)["lengths"]
        assert given["teacher"] == measured["teacher"] and given["response"] == {"low": 1, "high": 1}
        assert "the rest measured" in given["source"]
    assumed = as_json(capsys, *SEVEN, "--response-tokens", "300")["lengths"]
    assert assumed["teacher"] == {"low": 300, "high": 300}
    assert "the teacher's texts are taken to be as long as the responses" in assumed["source"]


def test_what_the_length_of_a_run_needs_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    steps = ("trainer.total_training_steps=5",)
    # The warmup is as long as so many passes over the rows.
    out, _ = run(capsys, *SEVEN, *steps)
    assert "give --rows: a part of the run" in out and "or trainer.total_training_steps" not in out
    out, _ = run(capsys, *SEVEN, "gad.stage=gad")
    assert "give --rows, or trainer.total_training_steps" in out
    out, _ = run(capsys, *SEVEN, "gad.stage=gad", *steps)
    assert "its length is not known" not in out


def test_the_text_shows_the_assumptions_that_were_used(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, *SEVEN)
    assert "update 2 to 3, scoring 2 to 4" in out
    out, _ = run(capsys, *SEVEN, "+actor_rollout_ref.model.override_config.attn_implementation=sdpa")
    assert "update 4 to 5, scoring 2 to 4" in out
    experts = "actor_rollout_ref.model.path=Qwen/Qwen3-30B-A3B"
    out, _ = run(capsys, *SEVEN[1:], experts, "discriminator.model.path=Qwen/Qwen3-4B")
    assert "(MFU), experts  0.10 to 0.30" in out and "(MFU)           0.25 to 0.45" in out


def test_megatron_and_experts(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(
        capsys,
        "--config-name",
        "gad_megatron_trainer",
        "actor_rollout_ref.model.path=Qwen/Qwen3-30B-A3B",
        "trainer.n_gpus_per_node=8",
        "trainer.nnodes=4",
        "actor_rollout_ref.actor.megatron.expert_model_parallel_size=8",
        "actor_rollout_ref.actor.megatron.param_offload=True",
    )
    assert found["models"]["student"]["active"] < 0.12 * found["models"]["student"]["parameters"]
    assert found["host"] > 0
    assert "student, parameters and optimizer" in phases(found)["student update"]["parts"]


def test_the_discriminator_may_have_gpus_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, *SEVEN, "gad.discriminator_n_gpus_per_node=4")
    assert found["gpus"] == 12
    assert phases(found)["discriminator update"]["own_pool"] is True
    assert not any("discriminator" in part for part in phases(found)["student update"]["parts"])


def test_another_gpu_is_three_figures(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, *SEVEN, "--gpu", "288,2500,8000")
    assert found["gpu"] == {"name": "custom", "memory": 288e9, "flops": 2.5e15, "bandwidth": 8e12}


def test_a_number_of_rows_is_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["estimate", *SEVEN, "--rows", "0"])
    assert "--rows: 0 is below 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ("actor_rollout_ref.model.path=nobody/nothing",),
            ("actor_rollout_ref.model.path=nobody/nothing", "config.json"),
        ),
        (("--config-name", "no_such_configuration"), ("--config-name no_such_configuration",)),
        (("no.such.key=1",), ("no.such.key",)),
        ((*SEVEN, "--gpu", "abacus"), ("--gpu abacus", "h100-80g")),
        ((*SEVEN, "--gpu", "80,-1,3350"), ("--gpu 80,-1,3350", "TFLOPS")),
        ((*SEVEN, "--gpu", "80,nan,3350"), ("--gpu 80,nan,3350", "TFLOPS")),
        ((*SEVEN, "--gpu", "inf,989,3350"), ("--gpu inf,989,3350", "TFLOPS")),
        ((*SEVEN, "--mfu", "fast"), ("--mfu fast",)),
        ((*SEVEN, "--mfu", "nan"), ("--mfu nan",)),
        ((*SEVEN, "--prompt-tokens", "nan"), ("--prompt-tokens nan",)),
        ((*SEVEN, "--teacher-tokens", "100,inf"), ("--teacher-tokens 100,inf",)),
        ((*SEVEN, "--prompt-tokens", "9000"), ("--prompt-tokens 9000", "data.max_prompt_length=2048")),
        ((*SEVEN, "--response-tokens", "9,5000"), ("--response-tokens 9,5000", "data.max_response_length=1536")),
        ((*SEVEN, "--teacher-tokens", "5000"), ("--teacher-tokens 5000", "data.max_response_length=1536")),
        ((*SEVEN, "--mfu", "1.5"), ("between 0 and 1",)),
        ((*SEVEN, "actor_rollout_ref.rollout.tensor_model_parallel_size=16"), ("does not divide the 8",)),
        ((*SEVEN, "--config-path", "/nowhere"), ("/nowhere",)),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_a_mistake_is_one_line_that_names_it(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    out, err = run(capsys, *arguments, code=2)
    assert out == "" and err.startswith("gad-verl: ") and err.count("\n") == 1
    assert all(part in err for part in parts), err
