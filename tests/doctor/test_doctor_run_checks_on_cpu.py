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
"""What the doctor says of tokenizers, disk, the one step and whole configurations."""

import copy
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import DictConfig

from gad_verl.cli import main
from gad_verl.errors import GadCompatError
from gad_verl.tools.doctor import one_step, storage
from gad_verl.tools.doctor.finding import ERROR, OK, WARNING
from gad_verl.tools.doctor.lengths import check_lengths
from gad_verl.tools.doctor.tokenizers import check_positions, check_tokenizer, check_tokenizers
from gad_verl.tools.estimate.run_estimate import checkpoint_size, estimate, reference_size
from gad_verl.tools.estimate.run_settings import read_settings


def levels(found: list[Any]) -> list[str]:
    return [entry.level for entry in found]


# ------------------------------ tokenizers ------------------------------


def with_template(tokenizer: Any, template: str | None) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def test_a_good_tokenizer(tokenizer: Any) -> None:
    (found,) = check_tokenizer("student", "m", tokenizer)
    assert found.level == OK and "<|im_end|>" in found.found


def test_templates_that_would_spoil_a_run(tokenizer: Any) -> None:
    turns = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<|im_end|>{% endfor %}"
    prompt = "{% if add_generation_prompt %}[assistant] {% endif %}"
    cases = {
        None: (ERROR, "no chat template"),
        turns: (WARNING, "no generation prompt"),
        turns.replace("<|im_end|>", "<|endoftext|>") + prompt: (WARNING, "'<|endoftext|>', the EOS is '<|im_end|>'"),
        turns.replace("{{ m['content'] }}", "?") + prompt: (ERROR, "leaves the user's text out"),
        "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}" + turns + prompt: (
            WARNING,
            "refuses an assistant's turn",
        ),
    }
    for template, (level, part) in cases.items():
        found = check_tokenizer("student", "m", with_template(tokenizer, template))
        assert any(entry.level == level and part in entry.found and entry.remedy for entry in found), template
    stops = check_tokenizer(
        "student",
        "m",
        with_template(tokenizer, turns.replace("<|im_end|>", "<|endoftext|>") + prompt),
        {"<|endoftext|>"},
    )
    assert levels(stops) == [OK, OK]
    assert "'<|endoftext|>', a teacher's text ends with '<|im_end|>'" in stops[0].found


def test_a_tokenizer_without_an_end(tokenizer: Any) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.eos_token = None
    (found,) = check_tokenizer("student", "m", changed)
    assert found.level == ERROR and "EOS" in found.found


def test_another_vocabulary_is_allowed_and_said(tiny_config: DictConfig, tmp_path: Path) -> None:
    from tiny_model import build_other_model

    assert "the student's" in check_tokenizers(tiny_config, True)[-1].found
    tiny_config.discriminator.model.path = str(build_other_model(tmp_path / "other"))
    found = check_tokenizers(tiny_config, True)
    assert set(levels(found)) == {OK} and "another vocabulary" in found[-1].found
    assert len(check_tokenizers(tiny_config, False)) == 1


def test_rows_longer_than_a_model_reads(tiny_config: DictConfig) -> None:
    assert levels(check_positions(tiny_config, True)) == [OK, OK]
    tiny_config.data.max_prompt_length = 2000
    tiny_config.actor_rollout_ref.rollout.name = "hf"
    assert levels(check_positions(tiny_config, False)) == [WARNING]
    tiny_config.actor_rollout_ref.rollout.name = "vllm"
    # The discriminator has rotary positions, and no server reads it.
    assert levels(check_positions(tiny_config, True)) == [ERROR, WARNING]


def test_lengths_are_those_of_the_prompts_as_the_run_renders_them(tiny_config: DictConfig) -> None:
    def longest() -> int:
        found = check_lengths(tiny_config, "teacher_response")[0].found
        return int(found.partition("longest ")[2].split()[0])

    tiny_config.actor_rollout_ref.model.custom_chat_template = "{{ messages[-1]['content'] }}{{ more }}"
    plain = longest()
    tiny_config.data.apply_chat_template_kwargs = {"more": "!" * 7}
    assert longest() == plain + 7
    # What a template refuses is said where the prompts are looked at, with the row.
    tiny_config.actor_rollout_ref.model.custom_chat_template = "{{ raise_exception('no') }}"
    assert check_lengths(tiny_config, "teacher_response") == []


# ------------------------------ room ------------------------------


def test_checkpoints_against_the_free_space(tiny_config: DictConfig, tmp_path: Path) -> None:
    tiny_config.trainer.save_freq = 5
    settings = read_settings(tiny_config)
    size, reference = checkpoint_size(settings), reference_size(settings)
    # Student and discriminator in float32 with Adam.
    assert size == 12 * (settings.student.parameters + settings.discriminator.parameters)
    assert reference == 4 * settings.student.parameters
    assert storage.planned_bytes(settings, 18) == (4 * size + reference, 4)
    folder = tmp_path / "not" / "yet" / "there"
    enough = 4 * size + reference
    for free, level in ((enough * 2, OK), (enough * 1.05, WARNING), (enough * 0.9, ERROR)):
        (found,) = storage.check_disk(settings, 18, folder, free)
        assert found.level == level
    assert storage.existing_parent(folder) == tmp_path
    tiny_config.gad.keep_checkpoints = 1
    # The new one is written before the old one goes.
    assert storage.planned_bytes(read_settings(tiny_config), 18)[1] == 2
    tiny_config.trainer.save_freq = -1
    assert levels(storage.check_disk(read_settings(tiny_config), 18, folder, 0.0)) == [OK]


def test_what_is_there_already_needs_no_room(tiny_config: DictConfig, tmp_path: Path) -> None:
    tiny_config.trainer.save_freq = 5
    settings = read_settings(tiny_config)
    wanted, _ = storage.planned_bytes(settings, 18)
    (tmp_path / "global_step_5").mkdir()
    (tmp_path / "global_step_5" / "weights").write_bytes(b"0" * 1000)
    assert storage.folder_bytes(tmp_path) == 1000
    assert storage.check_disk(settings, 18, tmp_path, wanted)[0].level == WARNING
    assert storage.check_disk(settings, 18, tmp_path, wanted - 900)[0].level == WARNING
    assert storage.check_disk(settings, 18, tmp_path, wanted - 1100)[0].level == ERROR


def test_memory_of_gpus_and_host(compose_config: Any) -> None:
    from gad_verl.tools.doctor.machine import Device

    config = compose_config(
        "gad_trainer",
        "actor_rollout_ref.model.path=Qwen/Qwen2.5-7B-Instruct",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
    )
    settings = read_settings(config)
    small = estimate(settings, storage.gpu_of(Device("small", 24 * 2**30)))
    found = storage.check_memory(small)
    assert set(levels(found)) == {WARNING} and all(entry.remedy for entry in found[:1])
    large = estimate(settings, storage.gpu_of(Device("large", 180 * 2**30)))
    assert levels(storage.check_memory(large)) == [OK]
    assert levels(storage.check_host(large, large.host * 2)) == [OK]
    assert levels(storage.check_host(large, large.host / 2)) == [ERROR]


# ------------------------------ one step ------------------------------


def test_the_one_step_is_small_and_saves_nothing(tiny_config: DictConfig, tmp_path: Path) -> None:
    tiny_config.trainer.n_gpus_per_node = 4
    chosen = dict(override.split("=", 1) for override in one_step.small_overrides(tiny_config, tmp_path))
    assert chosen["trainer.total_training_steps"] == "1" and chosen["trainer.save_freq"] == "-1"
    assert chosen["data.train_batch_size"] == chosen["actor_rollout_ref.actor.ppo_mini_batch_size"] == "4"
    assert chosen["gad.warmup_steps"] == "0" and chosen["trainer.logger"] == "[console]"
    assert str(tmp_path) in chosen["trainer.default_local_dir"]
    tiny_config.gad.stage = "warmup"
    tiny_config.gad.trust.held_out_fraction = 0.1
    chosen = dict(override.split("=", 1) for override in one_step.small_overrides(tiny_config, tmp_path))
    assert chosen["gad.discriminator_only_steps"] == "0" and "gad.warmup_steps" not in chosen
    assert chosen["gad.trust.held_out_fraction"] == "0.0" and "gad.supervised_weight" not in chosen
    # The check refuses an objective that follows evidence without any; a text still joins the update.
    tiny_config.gad.trust.otherwise = "supervised"
    chosen = dict(override.split("=", 1) for override in one_step.small_overrides(tiny_config, tmp_path))
    assert (chosen["gad.trust.otherwise"], chosen["gad.supervised_weight"]) == ("hold", "0.5")


@pytest.mark.parametrize("stage", ["auto", "warmup", "soda"])
def test_the_one_step_passes_the_check_before_a_run(compose_config: Any, tiny_folder: Path, stage: str) -> None:
    from gad_verl.preflight import check_config, check_data, check_schedule

    own = [
        f"actor_rollout_ref.model.path={tiny_folder / 'model'}",
        f"data.train_files={tiny_folder / 'train.parquet'}",
        f"data.val_files={tiny_folder / 'val.parquet'}",
        f"gad.stage={stage}",
        "gad=recommended",
        "gad.trust.held_out_fraction=0.5",
        "trainer.total_training_steps=500",
    ]
    config = compose_config("gad_cpu", *own)
    # As in the process: the step's settings stand behind the user's own and win.
    dry = compose_config("gad_cpu", *own, *one_step.small_overrides(config, Path("/nowhere")))
    assert dry.trainer.total_training_steps == (2 if stage == "soda" else 1) and dry.data.train_batch_size == 2
    gad_config = check_config(dry)
    check_schedule(dry, gad_config, check_data(dry, gad_config))


def test_the_command_of_the_one_step() -> None:
    line = one_step.command("gad_paper", "recipes", ["a=1"], ["a=2"])
    assert line[1:3] == ["-m", "verl.trainer.main_ppo"] and line[-2:] == ["a=1", "a=2"]
    assert Path(line[line.index("--config-path") + 1]).is_absolute()
    assert line[line.index("--config-name") + 1] == "gad_paper"


@pytest.mark.parametrize(
    ("script", "limit", "level", "part"),
    [
        ("print('step:1 - x:2')", 60, OK, "one step"),
        ("print('nothing')", 60, ERROR, "without a step"),
        ("print('first'); raise SystemExit('the reason')", 60, ERROR, "the reason"),
        ("import time; print('begun', flush=True); time.sleep(60)", 3, ERROR, "no step within 3 s"),
    ],
)
def test_what_came_of_the_one_step(tmp_path: Path, script: str, limit: float, level: str, part: str) -> None:
    done = one_step.run([sys.executable, "-c", script], tmp_path, limit)
    found = one_step.judge(done, limit)
    assert found.level == level and part in found.found
    assert (found.remedy == "") == (level == OK)


def test_known_errors_have_a_remedy_of_their_own() -> None:
    output = "Exception: The current node timed out during startup. This could"
    assert "busy" in one_step.judge(one_step.Outcome(1, 5.0, output), 60).remedy
    assert "busy" not in one_step.judge(one_step.Outcome(1, 5.0, "another"), 60).remedy


def test_the_tail_is_short() -> None:
    text = "\n".join(f"{number} " + "x" * 1000 for number in range(100))
    kept = one_step.tail(text).splitlines()
    assert len(kept) == 30 and kept[-1].startswith("99 ") and max(map(len, kept)) == 400


# ------------------------------ the command ------------------------------


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    code = main(["doctor", "--json", *arguments])
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    by_check: dict[str, list[dict[str, str]]] = {}
    for entry in document["findings"]:
        by_check.setdefault(entry["check"], []).append(entry)
    return code, by_check


def tiny(folder: Path) -> list[str]:
    return [
        "--config-name",
        "gad_cpu",
        f"actor_rollout_ref.model.path={folder / 'model'}",
        f"data.train_files={folder / 'train.parquet'}",
        f"data.val_files={folder / 'val.parquet'}",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
    ]


def test_without_a_configuration_the_environment_alone(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = doctor(capsys)
    assert found["internals of verl"][0]["level"] == OK and "GPUs" in found
    assert "data" not in found and "configuration" not in found


def test_a_healthy_run(capsys: pytest.CaptureFixture[str], tiny_folder: Path) -> None:
    code, found = doctor(capsys, *tiny(tiny_folder))
    assert code == 0
    assert found["data"][0]["found"].startswith("48 training rows")
    assert {"stages", "tokenizer of the student", "disk", "length of the prompts", "checkpoint to resume"} <= set(found)


def test_all_faults_of_a_run_at_once(capsys: pytest.CaptureFixture[str], tiny_folder: Path, tmp_path: Path) -> None:
    import pandas as pd

    rows = pd.read_parquet(tiny_folder / "train.parquet")
    rows.loc[3, "teacher_response"] = " "
    rows.to_parquet(tmp_path / "train.parquet")
    code, found = doctor(
        capsys,
        *tiny(tiny_folder),
        f"data.train_files={tmp_path / 'train.parquet'}",
        "actor_rollout_ref.rollout.n=1",
        "discriminator.model.path=/nowhere/at/all",
        "trainer.n_gpus_per_node=1000",
        "data.max_response_length=8",
        "data.max_prompt_length=2000",
        "trainer.device=cuda",
    )
    assert code == 1
    assert "rollout.n" in found["configuration"][0]["found"]
    assert "row 3" in found["data"][0]["found"] and found["data"][0]["level"] == ERROR
    # Rotary positions go on beyond 1024: the run warns, and so does the doctor.
    assert found["length of the student"][0]["level"] == WARNING
    assert found["tokenizer of the student"][0]["level"] == OK
    assert "/nowhere" in found["tokenizer of the discriminator"][0]["found"]
    room = found["disk and memory"][0]
    assert room["level"] == WARNING and "/nowhere" in room["found"]
    assert found["GPUs"][0]["level"] == ERROR


def test_a_configuration_that_does_not_compose_leaves_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = doctor(capsys, "--config-name", "gad_cpu", "no.such.key=1")
    assert code == 1 and "no.such.key" in found["configuration"][0]["found"]
    assert "internals of verl" in found


def test_what_the_installed_verl_lacks_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gad_verl import compat

    def lacks(**_: Any) -> None:
        raise GadCompatError("verl 0.9.1 lacks verl.trainer.gone")

    monkeypatch.setattr(compat, "check", lacks)
    code, found = doctor(capsys)
    assert code == 1 and found["internals of verl"][0]["level"] == ERROR
    assert "verl.trainer.gone" in found["internals of verl"][0]["found"]


@pytest.mark.parametrize(("lines", "expected"), [([], 0), (["verl.a.b is gone (x)", "verl.c changed (y)"], 1)])
def test_another_verl_is_held_against_the_list(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lines: list[str],
    expected: int,
) -> None:
    asked = []
    tree = ModuleType("gad_verl.compat.tree")
    tree.tree_findings = lambda path: asked.append(path) or lines
    monkeypatch.setitem(sys.modules, "gad_verl.compat.tree", tree)
    code, found = doctor(capsys, "--tree", str(tmp_path))
    assert code == expected and asked == [tmp_path]
    assert [entry["found"] for entry in found["verl"]] == (lines or [f"{tmp_path} has everything that is used of verl"])
    assert main(["doctor", "--tree", str(tmp_path), "trainer.nnodes=2"]) == 2
    assert "leave the configuration out" in capsys.readouterr().err


def test_strict_counts_warnings(capsys: pytest.CaptureFixture[str], tiny_folder: Path) -> None:
    # Every teacher's text is longer than this.
    code, found = doctor(capsys, "--strict", *tiny(tiny_folder), "data.max_response_length=2")
    bad = {entry["level"] for entries in found.values() for entry in entries} - {OK}
    assert bad == {WARNING} and found["length of the teacher's texts"][0]["level"] == WARNING
    assert code == 1


def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--one-step", "--timeout", "0"], ["--timeout", "5"], ["--cluster", "a:1", "--timeout", "-1"]):
        assert main(["doctor", *wrong]) == 2
        assert "--timeout" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--no-such-flag"])
    assert ended.value.code == 2


@pytest.mark.e2e
@pytest.mark.slow
def test_a_real_step(capsys: pytest.CaptureFixture[str], tiny_folder: Path) -> None:
    code, found = doctor(capsys, "--one-step", *tiny(tiny_folder), "data.max_response_length=16")
    assert found["one step"][0]["level"] == OK, found["one step"]
    assert code == 0 and not (tiny_folder / "checkpoints").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["check"], "doctor"),
        (["data", "preflight", "a.parquet", "--student", "b.jsonl"], "data leaks"),
        (["doctor", "--config-name", "gad_cpu", "--dry-run"], "doctor --one-step"),
        (["doctor", "--dry-run-timeout=60", "--one-step"], "doctor --timeout"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(capsys: pytest.CaptureFixture[str], old: list[str], new: str) -> None:
    assert main(old) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.endswith(f" is now gad-verl {new}\n") and said.out == ""


def test_families_are_named_with_the_form_of_the_discriminator_and_the_attention(
    tiny_config: DictConfig, tmp_path: Path
) -> None:
    from tiny_families import FAMILIES, family_config

    from gad_verl.errors import GadConfigError
    from gad_verl.tools.doctor.families import check_model_families

    def texts(family: str) -> list[str]:
        family_config(FAMILIES[family]).save_pretrained(tmp_path / family)
        tiny_config.discriminator.model.path = str(tmp_path / family)
        return [entry.found for entry in check_model_families(tiny_config, True)]

    student, judge = texts("granite")
    assert student == "qwen2: Qwen2ForCausalLM, attention sdpa"
    assert judge == "granite: GraniteForCausalLM with a scalar head in the place of its LM head, attention sdpa"
    assert texts("gpt_oss")[1] == "gpt_oss: GptOssForTokenClassification, a token classifier, attention eager"
    assert len(check_model_families(tiny_config, False)) == 1
    tiny_config.actor_rollout_ref.actor.strategy = tiny_config.discriminator.strategy = "megatron"
    student, judge = texts("qwen3_moe")
    assert student == "qwen2: Qwen2ForCausalLM, by Megatron's layers"
    assert judge.startswith("qwen3_moe: Qwen3MoeForCausalLM with a scalar head") and "Megatron" in judge
    tiny_config.actor_rollout_ref.actor.strategy = tiny_config.discriminator.strategy = "fsdp"
    with pytest.raises(GadConfigError, match="phimoe"):
        texts("phimoe")
