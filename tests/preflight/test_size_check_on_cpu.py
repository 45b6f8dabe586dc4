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
"""Sizes before a run: counts, parallel sizes against GPUs and heads, positions, vocabularies, agent loops, thoughts."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from tiny_model import CHAT_TEMPLATE, build_model
from transformers import AutoConfig, AutoTokenizer

from gad_verl import cli, preflight
from gad_verl.config import GadConfig
from gad_verl.data.thinking import settled_config
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.preflight.parallel_check import Heads, check_counts, check_parallel
from gad_verl.preflight.thinking_check import thinking_of_run

# Heads of queries, heads of keys.
SMOLLM2_135M, QWEN25_7B, LLAMA31_8B = Heads(9, 3), Heads(28, 4), Heads(32, 8)


def changed(config: DictConfig, **values: Any) -> DictConfig:
    """Set dotted keys (``__`` for the dot)."""
    for key, value in values.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    return config


def refused(check: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises((GadConfigError, GadDataError)) as error:
        check(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def trainer_config(compose_config: Callable[..., DictConfig]) -> DictConfig:
    """verl's defaults for eight GPUs: engines of two."""
    return compose_config("gad_trainer")


# ------------------------------ counts ------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "data.train_batch_size",
        "data.max_response_length",
        "actor_rollout_ref.actor.ppo_mini_batch_size",
        "actor_rollout_ref.rollout.n",
        "actor_rollout_ref.rollout.tensor_model_parallel_size",
        "trainer.n_gpus_per_node",
        "discriminator.ppo_max_token_len_per_gpu",
    ],
)
@pytest.mark.parametrize("value", [0, -1, 2.5, "many"])
def test_what_is_counted_is_there(tiny_config: DictConfig, key: str, value: Any) -> None:
    if value != 0:
        changed(tiny_config, algorithm__adv_estimator="reinforce_plus_plus")
    message = refused(preflight.run_preflight, changed(tiny_config, **{key.replace(".", "__"): value}))
    assert message.startswith(f"{key}={value}: a whole number of at least 1")


def test_a_run_without_a_step(tiny_config: DictConfig) -> None:
    for epochs in (0, None, "two"):
        assert "no step" in refused(preflight.run_preflight, changed(tiny_config, trainer__total_epochs=epochs))
    check_counts(changed(tiny_config, trainer__total_training_steps=3))


@pytest.mark.parametrize(
    "override",
    [
        "data.train_batch_size=0",
        "actor_rollout_ref.rollout.n=0",
        "trainer.n_gpus_per_node=0",
        "data.train_batch_size=-4",
    ],
)
def test_the_estimate_says_it_too(capsys: pytest.CaptureFixture[str], override: str) -> None:
    models = [f"{key}=Qwen/Qwen2.5-7B-Instruct" for key in ("actor_rollout_ref.model.path", "discriminator.model.path")]
    assert cli.main(["estimate", *models, override]) == 2
    assert capsys.readouterr().err == f"gad-verl: {override}: a whole number of at least 1 is needed\n"


# ------------------------------ engines of the rollout ------------------------------


def parallel(config: DictConfig, student: Heads | None, judge: Heads | None = None) -> None:
    check_parallel(config, GadConfig(), student, judge)


def test_verls_default_of_two_needs_an_even_number_of_heads(trainer_config: DictConfig) -> None:
    message = refused(parallel, trainer_config, SMOLLM2_135M)
    assert "tensor_model_parallel_size=2 (verl's default is 2)" in message and "9 attention heads" in message
    assert message.endswith("set it to 1")
    for heads in (QWEN25_7B, LLAMA31_8B, None):
        parallel(trainer_config, heads)
    # transformers' rollout has whole models.
    parallel(changed(trainer_config, actor_rollout_ref__rollout__name="hf"), SMOLLM2_135M)


@given(
    st.integers(1, 8), st.integers(1, 3), st.integers(1, 4), st.integers(1, 2), st.integers(1, 2), st.integers(1, 12)
)
def test_engines_fill_the_gpus_and_split_the_heads(
    gpus: int, nodes: int, tensor: int, pipeline: int, replicas: int, queries: int
) -> None:
    """What verl's and vLLM's own conditions say, which come after Ray."""
    rollout = {"name": "vllm", "tensor_model_parallel_size": tensor, "pipeline_model_parallel_size": pipeline}
    engine = {"strategy": "fsdp", "fsdp_config": {"ulysses_sequence_parallel_size": 1, "fsdp_size": -1}}
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {
                "rollout": rollout | {"data_parallel_size": replicas},
                "actor": engine,
                "ref": engine,
                "model": {},
            },
            "trainer": {"nnodes": nodes, "n_gpus_per_node": gpus},
            "discriminator": {"strategy": "megatron", "model": {}},
        }
    )
    size = tensor * pipeline * replicas
    works = (nodes * gpus) % size == 0 and size % min(gpus, size) == 0 and queries % tensor == 0
    if works:
        parallel(config, Heads(queries, queries))
    else:
        assert "actor_rollout_ref.rollout" in refused(parallel, config, Heads(queries, queries))


def test_heads_of_keys_are_split_or_copied_whole(trainer_config: DictConfig) -> None:
    config = changed(trainer_config, actor_rollout_ref__rollout__tensor_model_parallel_size=4)
    for keys in (1, 2, 4, 8):
        parallel(config, Heads(24, keys))
    assert "3 heads of keys" in refused(parallel, config, Heads(24, 3))


def test_the_estimate_knows_the_heads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shape = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 512, "max_position_embeddings": 8192}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    models = [f"{key}={tmp_path}" for key in ("actor_rollout_ref.model.path", "discriminator.model.path")]
    assert cli.main(["estimate", *models]) == 2
    assert "9 attention heads" in capsys.readouterr().err
    assert cli.main(["estimate", *models, "actor_rollout_ref.rollout.tensor_model_parallel_size=1"]) == 0


# ------------------------------ sequence parallelism ------------------------------


@pytest.mark.parametrize("section", ["actor_rollout_ref.actor.fsdp_config", "discriminator.fsdp"])
def test_ulysses_divides_gpus_and_heads(trainer_config: DictConfig, section: str) -> None:
    key = f"{section}.ulysses_sequence_parallel_size"
    for size, part in ((3, "does not divide the 8 GPUs"), (8, "28 attention heads and 4 heads of keys")):
        config = changed(trainer_config, **{key.replace(".", "__"): size})
        message = refused(parallel, config, QWEN25_7B, QWEN25_7B)
        assert f"{key}={size}" in message and part in message
    parallel(changed(trainer_config, **{key.replace(".", "__"): 4}), QWEN25_7B, QWEN25_7B)


def test_ulysses_by_its_old_name_and_without_packing(trainer_config: DictConfig) -> None:
    old = "actor_rollout_ref.actor.ulysses_sequence_parallel_size"
    config = changed(trainer_config, actor_rollout_ref__actor__ulysses_sequence_parallel_size=3)
    assert f"{old}=3" in refused(parallel, config, QWEN25_7B)
    config = changed(
        trainer_config,
        actor_rollout_ref__actor__ulysses_sequence_parallel_size=2,
        actor_rollout_ref__model__use_remove_padding=False,
    )
    assert "use_remove_padding=True" in refused(parallel, config, QWEN25_7B)


def test_shards_divide_the_pool(trainer_config: DictConfig) -> None:
    config = changed(trainer_config, discriminator__fsdp__fsdp_size=3)
    assert "discriminator.fsdp.fsdp_size=3 does not divide the 8" in refused(parallel, config, None)
    for size in (-1, 2, 8, 64):
        parallel(changed(trainer_config, discriminator__fsdp__fsdp_size=size), None)


@pytest.mark.parametrize("key", ["fsdp_size", "ulysses_sequence_parallel_size"])
def test_a_size_that_is_no_number_divides_nothing(trainer_config: DictConfig, key: str) -> None:
    config = changed(trainer_config, **{f"discriminator__fsdp__{key}": None})
    assert f"discriminator.fsdp.{key}=None does not divide" in refused(parallel, config, None)


# ------------------------------ models ------------------------------


@pytest.mark.parametrize("which", ["actor_rollout_ref.model", "discriminator.model"])
def test_a_tokenizer_larger_than_the_vocabulary(tiny_config: DictConfig, tmp_path: Path, which: str) -> None:
    model = build_model(tmp_path / "small", layers=1)
    shape = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(shape | {"vocab_size": 200, "pad_token_id": None}))
    values = {f"{which.replace('.', '__')}__path": str(model)}
    message = refused(preflight.run_preflight, changed(tiny_config, gad__discriminator_head="fresh", **values))
    assert message.startswith(f"{which}: its tokenizer has the token") and "200 embeddings" in message


def test_tokens_that_no_text_holds_are_said_alone(
    tiny_config: DictConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Gemma 3's tokenizer has a token for pictures that its smallest model has no embedding of."""
    model = build_model(tmp_path / "student")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)
    tokenizer.save_pretrained(model)
    assert len(tokenizer) > AutoConfig.from_pretrained(model).vocab_size
    config = changed(tiny_config, actor_rollout_ref__model__path=str(model))
    with caplog.at_level(logging.WARNING, "gad_verl"):
        preflight.run_preflight(config)
    assert "<image_soft_token>" in caplog.text
    # In the template it is read in every prompt.
    changed(config, actor_rollout_ref__model__custom_chat_template=CHAT_TEMPLATE + "<image_soft_token>")
    assert "'<image_soft_token>' beyond" in refused(preflight.run_preflight, config)


# ------------------------------ agent loops ------------------------------


def test_other_agent_loops_are_refused(tiny_config: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    config = changed(tiny_config, actor_rollout_ref__rollout__agent__default_agent_loop="tool_agent")
    message = refused(preflight.run_preflight, config)
    assert "default_agent_loop=tool_agent" in message and "whole transcript" in message
    with caplog.at_level(logging.WARNING, "gad_verl"):
        preflight.check_config(changed(config, gad__stage="seqkd"))
    assert "tool_agent" in caplog.text


def test_a_switch_that_verl_no_longer_reads_is_said(tiny_config: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gad_verl"):
        preflight.check_config(changed(tiny_config, actor_rollout_ref__rollout__multi_turn__enable=True))
    assert "multi_turn.enable=True has no effect" in caplog.text


@pytest.mark.parametrize("key", ["train_files", "val_files"])
def test_a_row_that_names_another_agent_loop(tiny_config: DictConfig, tmp_path: Path, key: str) -> None:
    rows = pd.read_parquet(tiny_config.data[key])
    rows["agent_name"] = "single_turn_agent"
    path = str(tmp_path / "rows.parquet")
    rows.loc[1, "agent_name"] = None
    rows.to_parquet(path)
    preflight.run_preflight(changed(tiny_config, **{f"data__{key}": path}))
    # Of JSON, a row need not have what another has.
    path = str(tmp_path / "rows.jsonl")
    Path(path).write_text("\n".join(row.dropna().to_json() for _, row in rows.iterrows()), encoding="utf-8")
    preflight.run_preflight(changed(tiny_config, **{f"data__{key}": path}))
    rows.loc[2, "agent_name"] = "tool_agent"
    path = str(tmp_path / "other.parquet")
    rows.to_parquet(path)
    message = refused(preflight.run_preflight, changed(tiny_config, **{f"data__{key}": path}))
    assert message.startswith(f"{path}, row 2, column 'agent_name' names 'tool_agent'")


@pytest.mark.parametrize("column", ["videos", "audios"])
def test_a_row_with_films_or_sound(tiny_config: DictConfig, tmp_path: Path, column: str) -> None:
    rows = pd.read_parquet(tiny_config.data.train_files)
    rows[column] = [[]] * len(rows)
    path = str(tmp_path / "rows.parquet")
    rows.to_parquet(path)
    preflight.run_preflight(changed(tiny_config, data__train_files=path))
    rows.at[3, column] = ["x.png"]
    path = str(tmp_path / "other.parquet")
    rows.to_parquet(path)
    message = refused(preflight.run_preflight, changed(tiny_config, data__train_files=path))
    assert message.startswith(f"{path}, row 3, column {column!r}: films and sound are not supported")


# ------------------------------ thoughts ------------------------------

SWITCH = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"


def warned(config: DictConfig, caplog: pytest.LogCaptureFixture, template: str, **values: Any) -> str:
    changed(config, actor_rollout_ref__model__custom_chat_template=template, **values)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "gad_verl"):
        preflight.run_preflight(config)
    return "\n".join(record.getMessage() for record in caplog.records if "think" in record.getMessage())


def test_a_student_that_would_think_is_said(tiny_config: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    said = warned(tiny_config, caplog, CHAT_TEMPLATE + SWITCH)
    assert "lets the student think" in said and "gad.thinking.mode=hidden" in said
    assert "off (data.apply_chat_template_kwargs.enable_thinking=False)" in said
    off = {"data__apply_chat_template_kwargs": {"enable_thinking": False}}
    assert warned(tiny_config, caplog, CHAT_TEMPLATE + SWITCH, **off) == ""


def test_a_template_that_opens_thoughts_is_said(tiny_config: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    said = warned(tiny_config, caplog, CHAT_TEMPLATE + "<think>\n")
    assert "opens the student's thoughts in the prompt" in said and "custom_chat_template" in said
    assert warned(tiny_config, caplog, CHAT_TEMPLATE + "<think>\n\n</think>\n\n") == ""
    assert warned(tiny_config, caplog, CHAT_TEMPLATE) == ""


def test_a_teacher_that_shows_its_thoughts_is_meant(
    tiny_config: DictConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = pd.read_parquet(tiny_config.data.train_files)
    rows["teacher_response"] = "<think>hm</think>\n\n" + rows["teacher_response"]
    rows.to_parquet(tmp_path / "thoughts.parquet")
    files = {"data__train_files": str(tmp_path / "thoughts.parquet")}
    assert warned(tiny_config, caplog, CHAT_TEMPLATE + SWITCH, **files) == ""


@pytest.mark.parametrize("mode", ["off", "hidden"])
def test_a_student_whose_thoughts_are_taken_care_of_is_no_warning(
    tiny_config: DictConfig, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    assert warned(tiny_config, caplog, CHAT_TEMPLATE + SWITCH, gad__thinking__mode=mode) == ""
    expected = {"enable_thinking": False} if mode == "off" else {}
    assert tiny_config.data.apply_chat_template_kwargs == expected


def test_hidden_thoughts_need_marks_and_a_teacher_without_any(
    tiny_config: DictConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = warned(tiny_config, caplog, CHAT_TEMPLATE, gad__thinking__mode="hidden")
    assert "no marks that are known" in said and "gad.thinking.open" in said
    own = {"gad__thinking__open": "((", "gad__thinking__close": "))"}
    assert warned(tiny_config, caplog, CHAT_TEMPLATE, gad__thinking__mode="hidden", **own) == ""
    rows = pd.read_parquet(tiny_config.data.train_files)
    rows.loc[3, "teacher_response"] = "((hm)) " + rows["teacher_response"][3]
    rows.to_parquet(tmp_path / "thoughts.parquet")
    files = {"data__train_files": str(tmp_path / "thoughts.parquet")}
    assert "--strip-thinking" in refused(preflight.run_preflight, changed(tiny_config, **files))
    # One text in any row of any file gives the teacher away.
    many = pd.concat([pd.read_parquet(tiny_config.data.train_files)] * 30, ignore_index=True)
    many.to_parquet(tmp_path / "first.parquet")
    many.loc[len(many) - 1, "teacher_response"] = "((hm)) a hat"
    many.to_parquet(tmp_path / "second.parquet")
    files = {"data__train_files": [str(tmp_path / name) for name in ("first.parquet", "second.parquet")]}
    assert "--strip-thinking" in refused(preflight.run_preflight, changed(tiny_config, **files))


def test_the_end_of_thoughts_needs_room_too(tiny_config: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    """At the budget the loop writes what ends them: without room for it there would never be an answer."""
    values = {"gad__thinking__mode": "hidden", "data__max_response_length": 64}
    changed(tiny_config, actor_rollout_ref__model__custom_chat_template=CHAT_TEMPLATE + SWITCH, **values)
    said = refused(preflight.run_preflight, changed(tiny_config, gad__thinking__budget=63))
    ending = int(re.search(r"budget=63 and the (\d+) tokens that end thoughts leave nothing", said)[1])
    assert ending > 0
    assert "leave nothing" in refused(preflight.run_preflight, changed(tiny_config, gad__thinking__budget=64 - ending))
    preflight.run_preflight(changed(tiny_config, gad__thinking__budget=63 - ending))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"gad__max_answer_length": 65}, "data.max_response_length=64"),
        ({"gad__thinking__budget": 64}, "gad.thinking.budget=64"),
    ],
)
def test_thoughts_and_answer_fit_into_a_response(tiny_config: DictConfig, values: dict[str, int], named: str) -> None:
    hidden = changed(tiny_config, gad__thinking__mode="hidden", data__max_response_length=64, **values)
    assert named in refused(preflight.check_config, hidden)


def test_a_budget_needs_an_agent_loop_and_gets_it(tiny_config: DictConfig) -> None:
    hidden = changed(tiny_config, gad__thinking__mode="hidden", gad__thinking__budget=20)
    assert preflight.check_config(hidden).thinking.budget == 20
    assert hidden.actor_rollout_ref.rollout.agent.default_agent_loop == "gad_thinking_agent"
    without = changed(hidden, gad__thinking__budget=None)
    assert "gad_thinking_agent" in refused(preflight.check_config, without)


def test_a_plan_says_what_thinking_does(tiny_config: DictConfig) -> None:
    def words(template: str, **values: Any) -> str:
        changed(tiny_config, actor_rollout_ref__model__custom_chat_template=template, **values)
        return thinking_of_run(tiny_config, settled_config(tiny_config))

    assert words(CHAT_TEMPLATE) == "none"
    assert "(enable_thinking)" in words(CHAT_TEMPLATE + SWITCH)
    assert "opens thoughts" in words(CHAT_TEMPLATE + "<think>")
    hidden = words(CHAT_TEMPLATE + "<think>", gad__thinking__mode="hidden", gad__max_answer_length=32)
    assert all(word in hidden for word in ("'<think>' .. '</think>'", "opened in the prompt", "32 tokens", "own"))
    assert "an empty block" in words(CHAT_TEMPLATE, gad__stage="seqkd")
    off = words(CHAT_TEMPLATE + SWITCH, gad__thinking__mode="off", gad__max_answer_length=None)
    assert off == "off: data.apply_chat_template_kwargs={'enable_thinking': False}"


# ------------------------------ what people bring and what is right as it is ------------------------------


def test_validation_data_are_needed_and_a_batch_is_filled(tiny_config: DictConfig, tmp_path: Path) -> None:
    assert "data.val_files names no file" in refused(preflight.run_preflight, changed(tiny_config, data__val_files=[]))


def test_plain_text_prompts_are_named_with_the_remedy(tiny_config: DictConfig, tmp_path: Path) -> None:
    path = tmp_path / "raw.parquet"
    pd.DataFrame({"question": ["1 + 1?"] * 16, "teacher_response": ["2"] * 16}).to_parquet(path)
    message = refused(
        preflight.run_preflight, changed(tiny_config, data__train_files=str(path), data__prompt_key="question")
    )
    assert f"{path}, row 0, column 'question'" in message


def test_prompts_over_the_limit_are_cut_and_no_error(tiny_config: DictConfig) -> None:
    assert preflight.run_preflight(changed(tiny_config, data__max_prompt_length=4)).rows == 48


def test_rows_of_a_million_characters(tiny_config: DictConfig, tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    chat = [{"role": "user", "content": "Go on."}]
    rows = [{"prompt": chat, "teacher_response": f"{number} " + "a" * 1_000_000} for number in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    small = {"data__train_batch_size": 2, "actor_rollout_ref__actor__ppo_mini_batch_size": 2}
    assert preflight.run_preflight(changed(tiny_config, data__train_files=str(path), **small)).rows == 8
