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


def test_flags_replace_what_is_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    base = as_json(capsys, *SEVEN, "--rows", "19200", "--prompt-tokens", "100", "--response-tokens", "300")
    fast = as_json(
        capsys, *SEVEN, "--rows", "19200", "--prompt-tokens", "100", "--response-tokens", "300", "--mfu", "0.6"
    )
    assert fast["run"]["hours"][1] < base["run"]["hours"][1]
    assert fast["assumptions"]["mean tokens: prompt"] == "100"
    assert base["run"]["steps"] == {"discriminator_only": 10, "warmup": 65, "adversarial": 150}
    assert base["memory_gib"]["rollout"]["total"] == fast["memory_gib"]["rollout"]["total"]


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
    assert found["assumptions"]["lengths"].startswith("measured on 48 rows")
    # 48 rows in batches of 8, 3 epochs.
    assert sum(found["run"]["steps"].values()) == 18
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    assert found["models"]["student"]["parameters"] == sum(parameter.numel() for parameter in model.parameters())


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
    assert found["host_gib_per_node"] > 0
    assert "student, parameters and optimizer" in found["memory_gib"]["student update"]


def test_the_discriminator_may_have_gpus_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, *SEVEN, "gad.discriminator_n_gpus_per_node=4")
    assert found["gpu"]["count"] == 12
    assert found["memory_gib"]["discriminator update"]["own_pool"] is True
    assert not any("discriminator" in part for part in found["memory_gib"]["student update"])


def test_a_shape_that_is_given_by_flags(capsys: pytest.CaptureFixture[str]) -> None:
    shape = "hidden_size=2048,num_hidden_layers=36,num_attention_heads=16,num_key_value_heads=2"
    shape += ",intermediate_size=11008,vocab_size=151936,tie_word_embeddings=true"
    overrides = ("actor_rollout_ref.model.path=mine", "trainer.n_gpus_per_node=8")
    found = as_json(capsys, *overrides, "--student-shape", shape)
    assert found["models"]["student"]["parameters"] == 3085938688
    assert found["models"]["discriminator"]["shape"] == "--student-shape"


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
        ((*SEVEN, "--tflops", "100"), ("--gpu-memory-gb",)),
        ((*SEVEN, "--mfu", "fast"), ("--mfu fast",)),
        ((*SEVEN, "--mfu", "1.5"), ("between 0 and 1",)),
        ((*SEVEN, "--rows", "0"), ("--rows 0",)),
        ((*SEVEN, "--student-shape", "hidden_size"), ("--student-shape", "hidden_size")),
        ((*SEVEN, "actor_rollout_ref.rollout.tensor_model_parallel_size=16"), ("does not fit into the 8",)),
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
