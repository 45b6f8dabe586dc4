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
"""Every bad input ends in one error before a model is loaded or Ray started."""

import contextlib
import copy
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from safetensors.torch import load_file, save_file

from gad_verl import preflight
from gad_verl.core.schedule import StageSchedule
from gad_verl.core.trust import held_out_above
from gad_verl.data.schema import chat_id
from gad_verl.data.thinking import AGENT_LOOP
from gad_verl.errors import GadCheckpointError, GadConfigError, GadDataError
from gad_verl.preflight import planned_run
from gad_verl.trainer import checkpoints
from gad_verl.trainer.whole import write_list

CHAT = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No check may start Ray or load the weights of a model."""
    import transformers

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the preflight must not do that")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", refuse)
    yield
    assert not ray.is_initialized()


def changed(config: DictConfig, **values: Any) -> DictConfig:
    """Set dotted keys (``__`` for the dot)."""
    for key, value in values.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    return config


def rejects(config: DictConfig, error: type[Exception], *parts: str) -> str:
    """The one error of the preflight, as Hydra's callback ends the run with it."""
    with pytest.raises(error) as raised:
        preflight.run_preflight(config)
    message = str(raised.value)
    assert all(part in message for part in parts), message
    said = io.StringIO()
    with contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
        preflight.PreflightCallback().on_job_start(config)
    assert ended.value.code == 2
    assert said.getvalue().endswith(f"gad_verl: {error.__name__}: {message}\n")
    return message


def rows(count: int = 16, **replaced: Any) -> list[dict[str, Any]]:
    return [{"prompt": CHAT, "teacher_response": f"text {number}", **replaced} for number in range(count)]


def data_file(folder: Path, content: list[dict[str, Any]], name: str = "train.parquet") -> str:
    path = folder / name
    if name.endswith(".parquet"):
        pd.DataFrame(content).to_parquet(path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in content), encoding="utf-8")
    return str(path)


def copied(tiny_folder: Path, folder: Path) -> Path:
    """The tiny model, to be changed."""
    return Path(shutil.copytree(tiny_folder / "model", folder))


# ------------------------------ good configurations ------------------------------


def test_a_good_configuration_passes(tiny_config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = copy.deepcopy(tiny_config)
    preflight.run_preflight(tiny_config)
    # A request that was for an earlier run goes before the signals may bring a new one.
    stop = Path(tiny_config.trainer.default_local_dir) / "stop"
    stop.parent.mkdir(parents=True, exist_ok=True)
    stop.touch()
    installed = []
    monkeypatch.setattr(planned_run.StopSignals, "install", lambda _: installed.append(stop.exists()))
    assert preflight.PreflightCallback().on_job_start(tiny_config) is None
    # In the place of verl's agent loop of one answer stands the one that encodes it.
    before.actor_rollout_ref.rollout.agent.default_agent_loop = AGENT_LOOP
    assert tiny_config == before and installed == [False]


@pytest.mark.parametrize("stage", ["auto", "warmup", "gad", "seqkd"])
def test_every_stage_passes(tiny_config: DictConfig, stage: str) -> None:
    preflight.run_preflight(changed(tiny_config, gad__stage=stage))


def test_soda_passes(tiny_config: DictConfig) -> None:
    config = changed(tiny_config, gad__stage="soda", gad__warmup_steps=1)
    config.gad.soda.snapshot_steps = 1
    preflight.run_preflight(config)
    config.gad.soda.snapshot_steps = 10**6
    with pytest.raises(GadConfigError, match="leaves no step for preferences"):
        preflight.run_preflight(config)


def test_several_files_are_counted_together(tiny_config: DictConfig, tmp_path: Path) -> None:
    files = [data_file(tmp_path, rows(5)), data_file(tmp_path, rows(6), "more.parquet")]
    config = changed(tiny_config, data__train_files=files)
    assert preflight.check_data(config, preflight.check_config(config)) == 11


def test_rows_that_share_a_prompt_are_no_more_held_out_prompts(tiny_config: DictConfig, tmp_path: Path) -> None:
    """Nor is the share of the hash that of the rows: what is there is counted, and the remedy will do."""
    chats = [[{"role": "user", "content": f"question {number}"}] for number in range(60)]
    many = [{"prompt": chat, "teacher_response": "text"} for chat in chats for _ in range(5)]
    first = sorted(held_out_above(chat_id(chat)) for chat in chats)
    config = changed(tiny_config, gad__trust__least_prompts=10, gad__trust__held_out_fraction=first[9])
    config.data.train_files = data_file(tmp_path, many)
    with pytest.raises(GadConfigError, match="of 300 training rows holds out 9 different prompts") as raised:
        preflight.check_data(config, preflight.check_config(config))
    remedy = float(re.search(r"raise the fraction to ([\d.]+),", str(raised.value))[1])
    assert first[14] < remedy <= first[14] + 0.01
    config.gad.trust.held_out_fraction = remedy
    assert preflight.check_data(config, preflight.check_config(config)) == 300
    # Verl draws a third of them; how many prompts of it are held out is known about.
    config.data.train_max_samples = 100
    with pytest.raises(GadConfigError, match="of 100 training rows"):
        preflight.check_data(config, preflight.check_config(config))


def test_one_question_about_many_images_is_many_prompts(tiny_config: DictConfig, tmp_path: Path) -> None:
    config = changed(tiny_config, gad__trust__least_prompts=10, gad__trust__held_out_fraction=0.5)
    for question, enough in (("Which colour?", False), ("<image>Which colour?", True)):
        asked = [{"prompt": [{"role": "user", "content": question}], "teacher_response": "red"} for _ in range(60)]
        config.data.train_files = data_file(tmp_path, asked, f"{enough}.parquet")
        with contextlib.nullcontext() if enough else pytest.raises(GadConfigError, match="holds out . different"):
            preflight.check_data(config, preflight.check_config(config))


def test_stock_modes_are_left_alone(tiny_config: DictConfig) -> None:
    config = changed(tiny_config, trainer__v1__trainer_mode="sync", gad__stage="nonsense", data__train_files="nowhere")
    assert preflight.PreflightCallback().on_job_start(config) is None
    stock = OmegaConf.create({"trainer": {"v1": {"trainer_mode": "separate_async"}}})
    assert preflight.PreflightCallback().on_job_start(stock) is None


def test_an_unexpected_error_ends_the_run_too(
    tiny_config: DictConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Hydra turns every exception of a callback but SystemExit into a warning: the run would go on unchecked.
    def broken(*_: Any) -> None:
        raise RuntimeError("something nobody thought of")

    monkeypatch.setattr(planned_run, "run_preflight", broken)
    with pytest.raises(SystemExit, match="1"):
        preflight.PreflightCallback().on_job_start(tiny_config)
    assert "RuntimeError: something nobody thought of" in capsys.readouterr().err


# ------------------------------ configuration ------------------------------


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "opo", "gpg"])
def test_one_response_with_a_group_estimator(tiny_config: DictConfig, estimator: str) -> None:
    config = changed(tiny_config, actor_rollout_ref__rollout__n=1, algorithm__adv_estimator=estimator)
    rejects(config, GadConfigError, "actor_rollout_ref.rollout.n=1", estimator, "at least 2")


def test_one_response_is_enough_elsewhere(tiny_config: DictConfig) -> None:
    changed(tiny_config, actor_rollout_ref__rollout__n=1)
    for stage in ("warmup", "seqkd"):
        preflight.run_preflight(changed(tiny_config, gad__stage=stage))
    preflight.run_preflight(changed(tiny_config, gad__stage="auto", algorithm__adv_estimator="reinforce_plus_plus"))


def test_unknown_stage(tiny_config: DictConfig) -> None:
    rejects(changed(tiny_config, gad__stage="nonsense"), GadConfigError, "gad.stage", "auto, seqkd, warmup, gad")


def test_unknown_key(tiny_config: DictConfig) -> None:
    rejects(changed(tiny_config, gad__nonsense=1), GadConfigError, "gad.nonsense")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"algorithm__filter_groups__enable": True}, "algorithm.filter_groups.enable"),
        ({"reward__reward_model__enable": True}, "reward.reward_model.enable"),
        ({"trainer__use_v1": False}, "trainer.use_v1"),
        ({"actor_rollout_ref__actor__checkpoint__async_save": True}, "actor_rollout_ref.actor.checkpoint.async_save"),
        ({"actor_rollout_ref__actor__strategy": "megatron"}, "actor_rollout_ref.actor.strategy"),
        ({"discriminator__strategy": "veomni"}, "discriminator.strategy"),
        ({"discriminator__use_dynamic_bsz": False}, "discriminator.ppo_micro_batch_size_per_gpu"),
        ({"discriminator__model__lora_adapter_path": "x"}, "discriminator.model.lora_rank"),
        ({"discriminator__model__lora__rank": 4}, "discriminator.model.lora_rank"),
        ({"discriminator__model__lora_rank": -1}, "discriminator.model.lora_rank"),
        ({"actor_rollout_ref__model__lora__rank": 8}, "actor_rollout_ref.model.lora_rank"),
        ({"actor_rollout_ref__model__lora_adapter_path": "x"}, "actor_rollout_ref.model.lora_rank"),
        ({"algorithm__adv_estimator": "gae", "critic__enable": False}, "critic.enable"),
        ({"algorithm__adv_estimator": "grpo", "critic__enable": True}, "critic.enable"),
        ({"algorithm__adv_estimator": "gad_process", "critic__enable": True}, "critic.enable"),
        ({"actor_rollout_ref__actor__ppo_mini_batch_size": 3}, "actor_rollout_ref.actor.ppo_mini_batch_size (3)"),
    ],
)
def test_settings_that_cannot_work(tiny_config: DictConfig, values: dict[str, Any], key: str) -> None:
    rejects(changed(tiny_config, **values), GadConfigError, key)


def test_lora_of_student_and_discriminator_passes(tiny_config: DictConfig) -> None:
    values = {"actor_rollout_ref__model__lora_rank": 8, "discriminator__model__lora_rank": 4}
    preflight.run_preflight(changed(copy.deepcopy(tiny_config), **values))
    preflight.run_preflight(changed(tiny_config, **values, algorithm__use_kl_in_reward=True, gad__stage="gad"))


def test_lora_checkpoints_of_the_discriminator_need_the_head(tiny_config: DictConfig) -> None:
    with open_dict(tiny_config):
        tiny_config.discriminator.checkpoint.save_lora_only = True
    preflight.run_preflight(copy.deepcopy(tiny_config))
    tiny_config.discriminator.model.lora_rank = 4
    rejects(tiny_config, GadConfigError, "discriminator.checkpoint.save_lora_only", "False")


def test_a_folder_without_an_adapter(tiny_config: DictConfig, tmp_path: Path) -> None:
    values = {"discriminator__model__lora_rank": 4, "discriminator__model__lora_adapter_path": str(tmp_path)}
    config = changed(tiny_config, **values)
    rejects(config, GadConfigError, "discriminator.model.lora_adapter_path", "adapter_config.json")
    (tmp_path / "adapter_config.json").write_text("{}")
    # The head comes with the adapter, not with the model.
    preflight.run_preflight(changed(config, gad__discriminator_head="load"))


def test_warmup_longer_than_the_run(tiny_config: DictConfig) -> None:
    # 48 rows, batches of 8: 6 steps an epoch.
    for values in ({"gad__warmup_steps": 18}, {"gad__warmup_epochs": 3.0}, {"trainer__total_training_steps": 6}):
        config = changed(copy.deepcopy(tiny_config), **values)
        rejects(config, GadConfigError, "gad.stage=auto", "gad.warmup_steps")
    for values in ({"gad__warmup_steps": 17}, {"gad__warmup_epochs": 2.9}, {"trainer__total_training_steps": 7}):
        preflight.run_preflight(changed(copy.deepcopy(tiny_config), **values))


def test_discriminator_only_steps_that_do_not_fit(tiny_config: DictConfig) -> None:
    config = changed(tiny_config, gad__discriminator_only_steps=7, gad__warmup_steps=6)
    rejects(config, GadConfigError, "gad.discriminator_only_steps (7)")
    # No warmup at all needs no other setting.
    preflight.run_preflight(changed(tiny_config, gad__warmup_steps=0))


# ------------------------------ data ------------------------------


def test_missing_teacher_column(tiny_config: DictConfig, tmp_path: Path) -> None:
    path = data_file(tmp_path, [{"prompt": CHAT, "answer": "a"}] * 16)
    rejects(changed(tiny_config, data__train_files=path), GadDataError, path, "'teacher_response'", "answer")
    preflight.run_preflight(changed(tiny_config, gad__teacher_key="answer", data__val_files=path))


def test_empty_teacher_text(tiny_config: DictConfig, tmp_path: Path) -> None:
    content = rows()
    content[11]["teacher_response"] = "  "
    path = data_file(tmp_path, content)
    rejects(changed(tiny_config, data__train_files=[path]), GadDataError, f"{path}, row 11", "teacher text is empty")


def test_wrong_prompt_column(tiny_config: DictConfig) -> None:
    rejects(changed(tiny_config, data__prompt_key="content"), GadDataError, "'content'", "prompt", "data.prompt_key")


def test_prompt_that_is_no_chat(tiny_config: DictConfig, tmp_path: Path) -> None:
    path = data_file(tmp_path, rows(prompt="hello"))
    rejects(changed(tiny_config, data__train_files=path), GadDataError, f"{path}, row 0", "list of chat messages")


def test_bad_validation_file(tiny_config: DictConfig, tmp_path: Path) -> None:
    path = data_file(tmp_path, rows(teacher_response=""), "val.jsonl")
    rejects(changed(tiny_config, data__val_files=path), GadDataError, f"{path}, row 0")


@pytest.mark.parametrize("key", ["data__train_files", "data__val_files"])
def test_missing_file(tiny_config: DictConfig, tmp_path: Path, key: str) -> None:
    path = str(tmp_path / "nowhere.parquet")
    rejects(changed(tiny_config, **{key: path}), GadDataError, path, "no such data file")


def test_too_few_rows_for_a_batch(tiny_config: DictConfig, tmp_path: Path) -> None:
    config = changed(tiny_config, data__train_files=data_file(tmp_path, rows(7)))
    rejects(config, GadDataError, "7 rows", "data.train_batch_size=8")


def test_too_few_samples_for_a_batch(tiny_config: DictConfig) -> None:
    # verl takes that many rows of the file.
    config = changed(tiny_config, data__train_max_samples=7)
    rejects(config, GadDataError, "data.train_max_samples")


def test_steps_are_counted_from_the_samples(tiny_config: DictConfig) -> None:
    # 2 steps an epoch, 6 in all: no step is left after 10 of warmup, though the file would give 18.
    config = changed(tiny_config, data__train_max_samples=16, gad__warmup_steps=10)
    rejects(config, GadConfigError, "gad.warmup_steps")


def test_teachers_of_the_mixture_are_looked_for(tiny_config: DictConfig, tmp_path: Path) -> None:
    path = data_file(tmp_path, [*rows(8, teacher="small"), *rows(8, teacher="large")])
    config = changed(tiny_config, data__train_files=path, gad__teachers__mode="weighted", gad__warmup_steps=2)
    config.gad.teachers.schedule = {"small": 1, "large": 1}
    preflight.run_preflight(config)
    # 2 steps an epoch, 3 epochs: step 6 is the last one.
    config.gad.teachers.schedule = {"small": 1, "large": [[0, 1], [7, 0]]}
    preflight.run_preflight(config)
    config.gad.teachers.schedule = {"small": 1, "large": [[0, 1], [6, 0]]}
    rejects(config, GadDataError, f"{path}, row 8", "at step 6", "gad.teachers.schedule")
    config.gad.teachers.schedule = {"small": 1, "large": 1, "huge": 1}
    rejects(config, GadConfigError, "'huge'", "'large', 'small'")
    config.gad.teachers.column = "who"
    rejects(config, GadDataError, "no column 'who'", "gad.teachers.column")


def test_the_column_of_a_curriculum_is_checked(tiny_config: DictConfig, tmp_path: Path) -> None:
    content = rows(level=1.5)
    content[9]["level"] = None
    config = changed(tiny_config, data__train_files=data_file(tmp_path, content), gad__curriculum__column="level")
    preflight.run_preflight(config)
    changed(config, gad__curriculum__mode="pool", gad__curriculum__difficulty="column")
    rejects(config, GadDataError, "row 9, column 'level'", "finite number")


# ------------------------------ tokenizers ------------------------------


@pytest.mark.parametrize(("field", "said"), [("eos_token", "no EOS"), ("chat_template", "no chat template")])
@pytest.mark.parametrize("key", ["actor_rollout_ref", "discriminator"])
def test_incomplete_tokenizers(
    tiny_config: DictConfig, tiny_folder: Path, tmp_path: Path, field: str, said: str, key: str
) -> None:
    folder = copied(tiny_folder, tmp_path / "model")
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    # Where the field is absent, transformers takes the default of the class.
    path.write_text(json.dumps(content | {field: None}), encoding="utf-8")
    if field == "chat_template":
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = changed(tiny_config, **{f"{key}__model__path": str(folder)})
    rejects(config, GadConfigError, f"{key}.model.path={folder}", said)


def test_a_template_of_the_configuration_counts(tiny_config: DictConfig, tiny_folder: Path, tmp_path: Path) -> None:
    folder = copied(tiny_folder, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    template = "{{ messages[0]['content'] }}"
    changed(tiny_config, actor_rollout_ref__model__path=str(folder), gad__stage="seqkd")
    changed(tiny_config, actor_rollout_ref__model__custom_chat_template=template)
    preflight.run_preflight(changed(tiny_config, discriminator__model__custom_chat_template=template))


@pytest.mark.parametrize("key", ["actor_rollout_ref", "discriminator"])
@pytest.mark.parametrize(("removed", "said"), [("weights", "has no weights"), ("a shard", "lacks model-2.safetensors")])
def test_a_model_without_its_weights(
    tiny_config: DictConfig, tiny_folder: Path, tmp_path: Path, key: str, removed: str, said: str
) -> None:
    folder = copied(tiny_folder, tmp_path / "model")
    if removed == "weights":
        (folder / "model.safetensors").unlink()
    else:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config = changed(tiny_config, **{f"{key}__model__path": str(folder)})
    rejects(config, GadConfigError, f"{key}.model.path", said)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"weight_map": 3}', b"\xff"])
def test_an_index_of_weights_that_is_damaged(
    tiny_config: DictConfig, tiny_folder: Path, tmp_path: Path, content: bytes
) -> None:
    folder = copied(tiny_folder, tmp_path / "model")
    (folder / "model.safetensors.index.json").write_bytes(content)
    config = changed(tiny_config, actor_rollout_ref__model__path=str(folder))
    rejects(config, GadConfigError, "actor_rollout_ref.model.path", "model.safetensors.index.json is damaged")


def test_no_tokenizer_at_all(tiny_config: DictConfig, tmp_path: Path) -> None:
    config = changed(tiny_config, actor_rollout_ref__model__path=str(tmp_path))
    rejects(config, GadConfigError, f"actor_rollout_ref.model.path={tmp_path}", "no tokenizer", "folder of a model?")


@pytest.mark.parametrize(("name", "why"), [("missing", "there is no such folder"), ("file.bin", "this is a file")])
def test_a_model_at_a_wrong_path(tiny_config: DictConfig, tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "file.bin").write_bytes(b"weights")
    config = changed(tiny_config, actor_rollout_ref__model__path=str(tmp_path / name))
    rejects(config, GadConfigError, f"actor_rollout_ref.model.path={tmp_path / name}", why)


# ------------------------------ discriminator ------------------------------


def discriminator_folder(tiny_folder: Path, folder: Path, head: tuple[int, int] | None, name: str = "score") -> Path:
    """A copy of the tiny model with a scalar head of the given shape."""
    shutil.copytree(tiny_folder / "model", folder)
    tensors = load_file(folder / "model.safetensors")
    if head is not None:
        tensors[f"{name}.weight"] = torch.zeros(head)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("name", ["score", "classifier"])
@pytest.mark.parametrize("head", [(1, 32), (2, 64), (64, 1)])
def test_head_of_another_shape(
    tiny_config: DictConfig, tiny_folder: Path, tmp_path: Path, head: tuple[int, int], name: str
) -> None:
    folder = discriminator_folder(tiny_folder, tmp_path / "disc", head, name)
    config = changed(tiny_config, discriminator__model__path=str(folder))
    rejects(config, GadCheckpointError, str(folder), f"{name}.weight", str(list(head)), "[1, 64]")
    # A head that is replaced may have any shape.
    preflight.run_preflight(changed(config, gad__discriminator_head="fresh"))


@pytest.mark.parametrize("name", ["score", "classifier"])
def test_head_that_fits(tiny_config: DictConfig, tiny_folder: Path, tmp_path: Path, name: str) -> None:
    folder = discriminator_folder(tiny_folder, tmp_path / "disc", (1, 64), name)
    config = changed(tiny_config, discriminator__model__path=str(folder))
    for choice in ("auto", "load", "fresh"):
        preflight.run_preflight(changed(config, gad__discriminator_head=choice))


def test_loading_a_head_that_is_not_there(tiny_config: DictConfig, tiny_folder: Path, tmp_path: Path) -> None:
    parts = ("no scalar head", "gad.discriminator_head=fresh")
    rejects(changed(copy.deepcopy(tiny_config), gad__discriminator_head="load"), GadCheckpointError, *parts)
    folder = discriminator_folder(tiny_folder, tmp_path / "disc", None)
    rejects(changed(tiny_config, discriminator__model__path=str(folder)), GadCheckpointError, str(folder), *parts)


def test_more_layers_than_there_are(tiny_config: DictConfig) -> None:
    rejects(changed(tiny_config, gad__discriminator_num_layers=3), GadConfigError, "gad.discriminator_num_layers=3")
    preflight.run_preflight(changed(tiny_config, gad__discriminator_num_layers=2))


# ------------------------------ resume ------------------------------

SHAPE = {"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 259}


def checkpoint(root: Path, step: int, leave_out: str | None = None, **state: Any) -> Path:
    """A checkpoint as the trainer leaves it, of empty files."""
    folder = root / f"global_step_{step}"
    values: dict[str, Any] = {
        "step": step,
        "stage": "warmup",
        "has_discriminator": True,
        "kl_reference": None,
        "discriminator_shape": SHAPE,
    }
    checkpoints.GadState(**(values | state)).write(folder)
    (folder / "actor").mkdir()
    (folder / "discriminator").mkdir()
    for name in ("data.pt", "gad_parts.pt"):
        (folder / name).write_text("", encoding="utf-8")
    checkpoints.write_tracker(root, step)
    write_list(folder)
    if leave_out is not None:
        path = folder / leave_out
        path.rmdir() if path.is_dir() else path.unlink()
    return folder


def test_shapes_of_the_tiny_model(tiny_folder: Path) -> None:
    from transformers import AutoConfig

    assert checkpoints.discriminator_shape(AutoConfig.from_pretrained(tiny_folder / "model"), None) == SHAPE


def test_resume_of_what_fits(tiny_config: DictConfig) -> None:
    root = Path(tiny_config.trainer.default_local_dir)
    checkpoint(root, 4)
    preflight.run_preflight(tiny_config)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"gad__warmup_steps": 3}, ["gad.warmup_steps=2", "now it is 3"]),
        ({"gad__warmup_steps": 9, "gad__discriminator_only_steps": 1}, ["in stage adversarial", "of stage warmup"]),
        ({"trainer__total_training_steps": 3, "gad__warmup_steps": 2}, ["lies behind the end", "of 3 steps"]),
    ],
)
def test_a_resume_that_would_go_back(tiny_config: DictConfig, changes: dict[str, Any], parts: list[str]) -> None:
    root, schedule = Path(tiny_config.trainer.default_local_dir), StageSchedule("auto", 18, 2, 1)
    folder = checkpoint(root, 4, stage="adversarial", schedule=schedule)
    changed(tiny_config, gad__warmup_steps=2, gad__discriminator_only_steps=1)
    preflight.run_preflight(tiny_config)
    rejects(changed(tiny_config, **changes), GadCheckpointError, str(folder), "trainer.resume_mode=disable", *parts)


@pytest.mark.parametrize(("steps", "said"), [(7, True), (6, False), (5, False), (None, False)])
def test_which_length_counts_is_said_before_the_run(
    tiny_config: DictConfig, caplog: pytest.LogCaptureFixture, steps: int | None, said: bool
) -> None:
    changed(tiny_config, data__train_batch_size=8, trainer__total_epochs=1, trainer__total_training_steps=steps)
    changed(tiny_config, gad__warmup_steps=2, gad__discriminator_only_steps=1)
    with caplog.at_level("WARNING", "gad_verl"):
        plan = preflight.run_preflight(tiny_config)
    assert plan.schedule.total_steps == (steps or 6)
    assert ("trainer.total_training_steps=7 is more than trainer.total_epochs=1 of 6 steps" in caplog.text) == said


@pytest.mark.parametrize("change", [{"hidden_size": 32}, {"num_hidden_layers": 1}, {"vocab_size": 1000}])
def test_resume_state_of_another_shape(tiny_config: DictConfig, change: dict[str, int]) -> None:
    root = Path(tiny_config.trainer.default_local_dir)
    folder = checkpoint(root, 4, discriminator_shape=SHAPE | change)
    for values in (
        {"trainer__resume_mode": "auto"},
        {"trainer__resume_mode": "resume_path", "trainer__resume_from_path": str(folder)},
    ):
        config = changed(tiny_config, **values)
        rejects(
            config, GadCheckpointError, str(folder), str(next(iter(change.values()))), "trainer.resume_mode=disable"
        )
    preflight.run_preflight(changed(tiny_config, trainer__resume_mode="disable"))


def test_resume_with_fewer_layers(tiny_config: DictConfig) -> None:
    root = Path(tiny_config.trainer.default_local_dir)
    checkpoint(root, 4, discriminator_shape=SHAPE | {"num_hidden_layers": 1})
    preflight.run_preflight(changed(tiny_config, gad__discriminator_num_layers=1))
    rejects(changed(tiny_config, gad__discriminator_num_layers=2), GadCheckpointError, "gad.discriminator_num_layers")


@pytest.mark.parametrize(("part", "own_ranks"), [("actor", 0), ("discriminator", 0), ("discriminator", 2)])
def test_a_checkpoint_of_another_number_of_ranks(tiny_config: DictConfig, part: str, own_ranks: int) -> None:
    tiny_config.gad.discriminator_n_gpus_per_node = own_ranks
    root = Path(tiny_config.trainer.default_local_dir)
    shards = checkpoint(root, 4) / part / "fsdp_config.json"
    ranks = max(1, own_ranks)
    shards.write_text(json.dumps({"FSDP_version": 2, "world_size": ranks}))
    preflight.run_preflight(tiny_config)
    shards.write_text(json.dumps({"FSDP_version": 2, "world_size": ranks + 1}))
    key = "gad.discriminator_n_gpus_per_node" if own_ranks else "trainer.n_gpus_per_node"
    rejects(tiny_config, GadCheckpointError, part, f"written by {ranks + 1} ranks", f"{key} is {ranks} now")
    # A start from the beginning reads none of it.
    tiny_config.trainer.resume_mode = "disable"
    preflight.run_preflight(tiny_config)


@pytest.mark.parametrize("missing", ["actor", "discriminator", "data.pt", "gad_state.json", "gad_parts.pt"])
@pytest.mark.parametrize("stage", ["auto", "seqkd"])
def test_incomplete_resume_path(tiny_config: DictConfig, tmp_path: Path, missing: str, stage: str) -> None:
    folder = checkpoint(tmp_path / "other", 4, leave_out=missing)
    changed(tiny_config, trainer__resume_mode="resume_path", trainer__resume_from_path=str(folder), gad__stage=stage)
    rejects(tiny_config, GadCheckpointError, str(folder), missing)


def test_incomplete_resume_path_with_a_model_of_the_hub(tiny_config: DictConfig, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "other", 4, leave_out="actor")
    changed(tiny_config, trainer__resume_mode="resume_path", trainer__resume_from_path=str(folder))
    tiny_config.discriminator.model.path = "some/model"
    with pytest.raises(GadCheckpointError, match="actor"):
        preflight.check_discriminator(tiny_config, preflight.check_config(tiny_config))


def test_resume_path_that_is_not_there(tiny_config: DictConfig, tmp_path: Path) -> None:
    path = tmp_path / "global_step_9"
    changed(tiny_config, trainer__resume_mode="resume_path", trainer__resume_from_path=str(path))
    rejects(tiny_config, GadCheckpointError, str(path))


def test_resume_path_as_a_shell_completes_it(tiny_config: DictConfig, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "other", 4)
    changed(tiny_config, trainer__resume_mode="resume_path", trainer__resume_from_path=f"{folder}/")
    preflight.run_preflight(tiny_config)
    # verl takes what stands behind "global_step_" for a number.
    assert tiny_config.trainer.resume_from_path == str(folder)


@pytest.mark.parametrize("name", ["best", "global_step_", "global_step_4_old"])
def test_resume_path_without_a_step_in_its_name(tiny_config: DictConfig, tmp_path: Path, name: str) -> None:
    folder = checkpoint(tmp_path / "other", 4).rename(tmp_path / name)
    changed(tiny_config, trainer__resume_mode="resume_path", trainer__resume_from_path=str(folder))
    rejects(tiny_config, GadCheckpointError, str(folder), "global_step_N")


def test_tracked_checkpoint_that_is_incomplete(tiny_config: DictConfig) -> None:
    root = Path(tiny_config.trainer.default_local_dir)
    folder = checkpoint(root, 4, leave_out="discriminator")
    rejects(tiny_config, GadCheckpointError, str(folder), "discriminator", "trainer.resume_mode=disable")
    # An older one that is whole serves.
    checkpoint(root, 2)
    checkpoints.write_tracker(root, 4)
    preflight.run_preflight(tiny_config)


# ------------------------------ the real command ------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.train_files=train.parquet", "data.val_files=train.parquet"],
            "gad_verl: GadDataError: train.parquet has no column 'teacher_response'; it has prompt, answer",
        ),
        # Twelve seconds of imports for what test_unknown_key shows in this process.
        pytest.param(["+gad.nonsense=1"], "gad_verl: GadConfigError: gad.nonsense", marks=pytest.mark.slow),
    ],
)
def test_command_ends_with_one_error(tiny_folder: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    """``python -m verl.trainer.main_ppo`` from another folder."""
    data_file(tmp_path, [{"prompt": CHAT, "answer": "a"}] * 16)
    model = f"actor_rollout_ref.model.path={tiny_folder / 'model'}"
    result = subprocess.run(
        [sys.executable, "-m", "verl.trainer.main_ppo", "--config-name", "gad_cpu", model, *overrides],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 2 and message in result.stderr
    assert "Started a local Ray instance" not in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
