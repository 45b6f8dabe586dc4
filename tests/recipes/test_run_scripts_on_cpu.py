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
"""Every run script starts what it says: composed against the paper's table, and dry-run on tiny files."""

import functools
import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from fake_commands import FakeCommands
from megatron_cpu import megatron_folder
from omegaconf import DictConfig
from paper_settings import PAPER_FSDP, PAPER_MEGATRON, SEQKD, TOOLS, differences
from safetensors.torch import save_file
from tiny_families import FAMILIES, family_config
from tiny_model import build_all, build_tokenizer
from tiny_vlm import build_colours

from gad_verl.cli import main
from gad_verl.config import GadConfig, load_gad_config
from gad_verl.preflight import check_config
from gad_verl.preflight.batch_check import check_batches, check_longest_row
from gad_verl.preflight.composing import compose_config
from gad_verl.tools.doctor.cluster import Need, need_of

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "gad"
CONFIG_DIR = RECIPE / "config"
MEGATRON = "run_qwen3_30b_a3b_megatron.sh"
GPT_OSS = "run_gpt_oss_20b_fsdp.sh"
IMAGES = "run_qwen2_5_vl_7b_fsdp.sh"
ASYNC = "run_qwen2_5_7b_fsdp_async.sh"
FINAL = "<|start|>assistant<|channel|>final<|message|>"
THINKING_OFF = {"data.apply_chat_template_kwargs.enable_thinking": False}
PADDED = {f"{model}.use_remove_padding": False for model in ("actor_rollout_ref.model", "discriminator.model")}
EAGER = {
    f"{model}.override_config.attn_implementation": "eager"
    for model in ("actor_rollout_ref.model", "discriminator.model")
}
# Script: what differs from the paper's table, the number of GPUs, the model on the hub.
SCRIPTS = {
    "run_qwen2_5_3b_fsdp.sh": ({}, (1, 8), "Qwen/Qwen2.5-3B-Instruct"),
    "run_qwen2_5_7b_fsdp.sh": ({}, (1, 8), "Qwen/Qwen2.5-7B-Instruct"),
    ASYNC: ({"trainer.v1.trainer_mode": "gad_separate_async"}, (1, 8), "Qwen/Qwen2.5-7B-Instruct"),
    "run_qwen2_5_14b_fsdp.sh": ({}, (2, 8), "Qwen/Qwen2.5-14B-Instruct"),
    "run_llama3_2_3b_fsdp.sh": ({}, (1, 8), "meta-llama/Llama-3.2-3B-Instruct"),
    "run_llama3_1_8b_fsdp.sh": ({}, (1, 8), "meta-llama/Llama-3.1-8B-Instruct"),
    MEGATRON: ({}, (4, 8), "Qwen/Qwen3-30B-A3B-Instruct-2507"),
    "run_qwen3_4b_fsdp.sh": (THINKING_OFF, (1, 8), "Qwen/Qwen3-4B"),
    "run_qwen3_8b_fsdp.sh": (THINKING_OFF, (1, 8), "Qwen/Qwen3-8B"),
    "run_qwen3_5_9b_fsdp.sh": (THINKING_OFF | PADDED, (1, 8), "Qwen/Qwen3.5-9B"),
    "run_gemma3_4b_fsdp.sh": ({}, (1, 8), "google/gemma-3-4b-it"),
    IMAGES: ({}, (1, 8), "Qwen/Qwen2.5-VL-7B-Instruct"),
    GPT_OSS: (PADDED | EAGER, (2, 8), "/home/user/models/gpt-oss-20b-bf16"),
}
# Scripts whose student is no Qwen2.5 in the dry runs: the family as tiny_families.py builds it.
FAMILY_OF = {
    "run_qwen3_4b_fsdp.sh": "qwen3",
    "run_qwen3_8b_fsdp.sh": "qwen3",
    "run_qwen3_5_9b_fsdp.sh": "qwen3_5",
    "run_gemma3_4b_fsdp.sh": "gemma3",
    GPT_OSS: "gpt_oss",
}
METHODS = {
    "paper": {},
    "recommended": {"PRESET": "recommended"},
    "seqkd": {"METHOD": "seqkd"},
}
# One script of each engine: what does not depend on the student is tested with them.
ENGINES = ("run_qwen2_5_7b_fsdp.sh", MEGATRON)
DRY_RUNS = [(script, "paper") for script in SCRIPTS]
DRY_RUNS += [(IMAGES, "recommended"), (ENGINES[0], "recommended"), (ENGINES[0], "seqkd"), (MEGATRON, "recommended")]


def paper_of(script: str) -> dict:
    return PAPER_MEGATRON if script == MEGATRON else PAPER_FSDP


@functools.cache
def _compose(name: str, overrides: tuple[str, ...]) -> DictConfig:
    return compose_config(name, overrides, str(CONFIG_DIR))


@dataclass
class Launch:
    """What a script would have started."""

    entry: list[str]
    name: str
    overrides: list[str]

    @property
    def arguments(self) -> list[str]:
        return ["--config-path", str(CONFIG_DIR), "--config-name", self.name, *self.overrides]

    @property
    def config(self) -> DictConfig:
        """The composed configuration; nobody changes what is returned."""
        return _compose(self.name, tuple(self.overrides))


@pytest.fixture
def launch(tmp_path):
    """Runs a script with a ``python3`` that writes down its arguments."""
    fakes = FakeCommands(tmp_path)
    fakes.add("python3")

    def run(script: str, arguments: list[str] = (), **variables: str) -> Launch:
        command = ["bash", str(RECIPE / script), *arguments]
        before = len(fakes.calls())
        subprocess.run(
            command, env=fakes.environment(variables), cwd=tmp_path, check=True, timeout=20, capture_output=True
        )
        (call,) = fakes.calls()[before:]
        dash_m, *entry = call["arguments"]
        first = entry.index("--config-path")
        (path, folder, name, config_name, *overrides), entry = entry[first:], entry[:first]
        assert dash_m == "-m"
        assert (path, folder, name) == ("--config-path", str(CONFIG_DIR), "--config-name")
        return Launch(entry, config_name, overrides)

    return run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A tiny model, a mixture of experts without weights, and data with the columns of the published set."""
    from transformers import Qwen3MoeConfig

    folder = build_all(tmp_path_factory.mktemp("tiny"))
    tokenizer = build_tokenizer()
    # Heads, vocabulary and experts divide by the layout of the script; a dry run reads no weights.
    Qwen3MoeConfig(
        vocab_size=260,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_experts=8,
        architectures=["Qwen3MoeForCausalLM"],
    ).save_pretrained(folder / "experts")
    tokenizer.save_pretrained(folder / "experts")
    # The check wants weights to be there; nothing of them is read.
    save_file({"none": torch.zeros(1)}, folder / "experts" / "model.safetensors")
    for name in set(FAMILY_OF.values()):
        family_config(FAMILIES[name]).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        save_file({"none": torch.zeros(1)}, folder / name / "model.safetensors")
    build_colours(folder / "images")
    for name, columns in (("", []), ("images", ["images"])):
        for part in ("train", "val"):
            path = folder / name / f"{part}.parquet"
            rows = pd.read_parquet(path).rename(columns={"prompt": "content"})
            rows[["content", "teacher_response", *columns]].to_parquet(path)
    return folder


@pytest.fixture
def megatron_on_path(monkeypatch):
    """Megatron's packages can be found, and are not imported."""
    folder = megatron_folder()
    assert folder is not None, "Megatron's packages are missing: run make install"
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    monkeypatch.delitem(sys.modules, "megatron", raising=False)
    yield
    sys.modules.pop("megatron", None)


def tiny_variables(tiny: Path, script: str, tmp_path: Path) -> dict[str, str]:
    """Sizes of the tiny files, as a user would set them."""
    data = tiny / "images" if script == IMAGES else tiny
    model = {MEGATRON: "experts", IMAGES: "images/model"}.get(script, FAMILY_OF.get(script, "model"))
    return {
        "MODEL_PATH": str(tiny / model),
        "TRAIN_FILE": str(data / "train.parquet"),
        "TEST_FILE": str(data / "val.parquet"),
        "CHECKPOINT_DIR": str(tmp_path / "checkpoints"),
        "TRAIN_BATCH_SIZE": "8",
    }


# Of the 48 rows of the tiny data the recommended preset wants 16 held out, by the hash of their prompts.
TINY_ARGUMENTS = [
    "gad.discriminator_only_steps=2",
    "actor_rollout_ref.rollout.name=hf",
]
TINY_TRUST = ["gad.trust.held_out_fraction=0.6"]
# nccl wants what is here on no CPU.
ENGINE = "actor_rollout_ref.rollout.checkpoint_engine"
TINY_WEIGHTS = [f"{ENGINE}.backend=gad_gloo", f"{ENGINE}.custom_backend_module=gad_verl.rollout.gloo_engine"]


# ------------------------------ the presets ------------------------------


@pytest.mark.parametrize(("name", "paper"), [("gad_paper", PAPER_FSDP), ("gad_paper_megatron", PAPER_MEGATRON)])
def test_preset_has_every_setting_of_the_paper(name, paper):
    config = _compose(name, ())
    assert differences(config, paper) == {}
    found, plain = load_gad_config(config), GadConfig()
    for section in TOOLS:
        assert getattr(found, section) == getattr(plain, section), section
    assert plain.replay.capacity_steps == 0 and not plain.trust.enabled and plain.reload_data == "never"


def test_preset_passes_the_check_of_the_configuration(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # vLLM need not be installed here
    gad_config = check_config(_compose("gad_paper", ()))
    # Rows of the published data set.
    assert gad_config.resolve_warmup_steps(192_014 // 256) == 750


def test_gradient_clip_reaches_the_engines(tiny):
    from verl.utils.config import omega_conf_to_dataclass

    from gad_verl.discriminator.group_config import build_worker_config

    config = _compose("gad_paper", (f"actor_rollout_ref.model.path={tiny / 'model'}",))
    worker_config, options = build_worker_config(config, load_gad_config(config), total_steps=10)
    # verl's FSDP engine clips by optimizer_config.clip_grad.
    assert worker_config.optimizer_config.clip_grad == 0.2
    assert worker_config.optimizer_config.lr == 1e-6
    assert options.fresh_head
    assert omega_conf_to_dataclass(config.actor_rollout_ref.actor).optim.clip_grad == 0.2


# ------------------------------ what the scripts start ------------------------------


def test_there_is_a_script_for_every_student():
    assert sorted(path.name for path in RECIPE.glob("run_*.sh")) == sorted(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_starts_the_settings_of_the_paper(script, launch):
    changes, gpus, model = SCRIPTS[script]
    started = launch(script)
    assert started.entry == ["verl.trainer.main_ppo"]
    config = started.config
    # Written out, and the paper's: null would take the student's rate, which is the same.
    assert differences(config, paper_of(script) | {"gad.warmup.actor_lr": 1e-6} | changes) == {}
    found, plain = load_gad_config(config), GadConfig()
    for section in TOOLS:
        assert getattr(found, section) == getattr(plain, section), section
    assert config.actor_rollout_ref.model.path == config.discriminator.model.path == model
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node) == gpus
    assert config.data.prompt_key == "content"
    assert config.gad.teacher_key == config.data.teacher_key == "teacher_response"
    assert config.data.train_files == "/home/user/data/lmsys_gpt5_chat/train.parquet"
    assert config.trainer.resume_mode == "auto"


@pytest.mark.parametrize("folder", ["/a b/c", "/Müller/run=1", "/it's/(1)", "/a,b/{c}", "/x/[1]~#&;!", "/a\\b"])
def test_folders_may_have_any_name(folder, launch):
    """Hydra has a grammar for values, in which most of these are no text."""
    names = ("TRAIN_FILE", "TEST_FILE", "MODEL_PATH", "CHECKPOINT_DIR", "GAD_STOP_FILE")
    config = launch(ENGINES[0], **dict.fromkeys(names, folder), PROMPT_KEY="the prompt", EXPERIMENT_NAME="lr=1").config
    found = (config.data.train_files, config.data.val_files, config.actor_rollout_ref.model.path)
    found += (config.discriminator.model.path, config.trainer.default_local_dir, config.gad.stop_file)
    variables = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert {*found, variables.VERL_FILE_LOGGER_ROOT} == {folder}
    assert variables.TENSORBOARD_DIR == f"{folder}/tensorboard"
    assert (config.data.prompt_key, config.trainer.experiment_name) == ("the prompt", "lr=1")


@pytest.mark.parametrize(
    ("given", "files"),
    [("[a.parquet,b.parquet]", ["a.parquet", "b.parquet"]), ("'/a=b'", "/a=b"), ('"/a=b"', "/a=b")],
)
def test_what_is_written_as_hydra_wants_it_stays(given, files, launch):
    assert launch(ENGINES[0], TRAIN_FILE=given).config.data.train_files == files


@pytest.mark.parametrize("script", SCRIPTS)
def test_batches_divide_by_the_gpus_and_rows_fit_into_micro_batches(script, launch):
    config = launch(script).config
    check_batches(config, load_gad_config(config))
    check_longest_row(config, load_gad_config(config))


@pytest.mark.parametrize("script", ENGINES)
def test_recommended_is_the_paper_and_the_tools_of_the_preset(script, launch):
    from hydra import compose, initialize_config_module

    config = launch(script, PRESET="recommended").config
    rates = {"gad.warmup.actor_lr": 5e-6}
    preset = {"algorithm.norm_adv_by_std_in_grpo": False, "gad.reset_optimizer_at_switch": True}
    assert differences(config, paper_of(script) | rates | preset) == {}
    with initialize_config_module("verl.trainer.config", version_base=None):
        recommended = load_gad_config(compose("gad_trainer", overrides=["gad=recommended"]))
    found = load_gad_config(config)
    for section in TOOLS:
        assert getattr(found, section) == getattr(recommended, section), section
    assert found.trust.enabled and found.trust.otherwise == "supervised"


@pytest.mark.parametrize("script", ENGINES)
def test_seqkd_is_the_baseline_of_the_paper(script, launch):
    config = launch(script, METHOD="seqkd").config
    assert differences(config, paper_of(script) | SEQKD) == {}


@pytest.mark.parametrize("script", ENGINES)
def test_soda_has_its_three_parts_and_the_rates_of_seqkd_and_gad(script, launch):
    config = launch(script, METHOD="soda").config
    rates = {"gad.stage": "soda", "gad.warmup.actor_lr": 5e-6}
    assert differences(config, paper_of(script) | rates) == {}
    found = load_gad_config(config)
    phases = found.build_schedule(30, 10).steps_by_phase()
    assert sorted((phase.name, steps) for phase, steps in phases.items()) == [
        ("PREFERENCE", 10),
        ("SEQKD", 10),
        ("SNAPSHOT", 10),
    ]


@pytest.mark.parametrize("script", ENGINES)
def test_persistent_is_the_paper_and_a_memory_of_pairs(script, launch):
    config = launch(script, PRESET="persistent").config
    assert differences(config, paper_of(script) | {"gad.warmup.actor_lr": 1e-6}) == {}
    replay = load_gad_config(config).replay
    assert (replay.mode, replay.capacity_steps, replay.fraction, replay.order) == ("replace", 16, 0.5, "uniform")


@pytest.mark.parametrize("script", SCRIPTS)
def test_methods_and_presets_change_the_same_settings_for_every_student(script, launch):
    paper, recommended, seqkd = (launch(script, **variables).overrides for variables in METHODS.values())
    names = {"trainer.experiment_name", "trainer.default_local_dir"}
    places = ("VERL_FILE_LOGGER_ROOT", "TENSORBOARD_DIR")
    names |= {f"+ray_kwargs.ray_init.runtime_env.env_vars.{place}" for place in places}

    def changed(overrides: list[str]) -> set[str]:
        return {override for override in set(overrides) ^ set(paper) if override.split("=")[0] not in names}

    preset = {"gad=recommended", "algorithm.norm_adv_by_std_in_grpo=False"}
    preset |= {"gad.reset_optimizer_at_switch=True"}
    assert changed(recommended) == preset | {"gad.warmup.actor_lr=1e-6", "gad.warmup.actor_lr=5e-6"}
    stages = {"gad.stage=auto", "gad.warmup_epochs=1.0", "gad.warmup.actor_lr=1e-6", "gad.stage=seqkd"}
    rates = {f"actor_rollout_ref.actor.optim.lr={rate}" for rate in ("1e-6", "5e-6")}
    assert changed(seqkd) == stages | rates | {"actor_rollout_ref.actor.use_kl_loss=False"}


def test_all_runs_keep_their_checkpoints_apart(launch):
    folders = [
        override
        for script in SCRIPTS
        for variables in METHODS.values()
        for override in launch(script, **variables).overrides
        if override.startswith("trainer.default_local_dir=")
    ]
    assert len(set(folders)) == len(folders) == len(METHODS) * len(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_longest_sequences_fit_their_micro_batches(script, launch):
    config = launch(script).config
    longest = config.data.max_prompt_length + config.data.max_response_length
    rows = 1 if script == GPT_OSS else config.actor_rollout_ref.rollout.n + 1
    assert config.discriminator.ppo_max_token_len_per_gpu >= rows * longest
    # Groups that do not fit are read in two passes.
    assert rows > 1 or load_gad_config(config).discriminator_passes == "auto"
    assert config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu >= longest
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    assert gpus % config.actor_rollout_ref.rollout.tensor_model_parallel_size == 0


def test_micro_batch_of_the_discriminator_follows_the_lengths(launch):
    config = launch("run_qwen2_5_7b_fsdp.sh", ROLLOUT_N="4", MAX_PROMPT_LENGTH="100", MAX_RESPONSE_LENGTH="20").config
    assert config.discriminator.ppo_max_token_len_per_gpu == 5 * 120


def test_reference_and_discriminator_have_the_layout_of_the_student_on_megatron(launch):
    config = launch(MEGATRON, TP="2", PP="2", EP="4").config
    sections = (config.actor_rollout_ref.actor, config.actor_rollout_ref.ref, config.discriminator)
    for section in sections:
        layout = section.megatron
        found = [layout.tensor_model_parallel_size, layout.pipeline_model_parallel_size]
        found += [layout.expert_model_parallel_size, layout.expert_tensor_parallel_size]
        assert found == [2, 2, 4, 1]
        assert layout.override_transformer_config.recompute_granularity == "full"
        assert layout.override_transformer_config.moe_router_dtype == "fp32"


def test_variables_and_arguments_win_over_the_script(launch):
    config = launch(
        "run_qwen2_5_14b_fsdp.sh",
        ["trainer.nnodes=3", "gad.keep_checkpoints=null"],
        NNODES="5",
        ROLLOUT_TP="4",
        ACTOR_LR="2e-6",
        FSDP_STRATEGY="fsdp2",
        DISCRIMINATOR_PATH="Qwen/Qwen2.5-7B-Instruct",
    ).config
    wanted = {
        "trainer.nnodes": 3,
        "gad.keep_checkpoints": None,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 4,
        "actor_rollout_ref.actor.optim.lr": 2e-6,
        "actor_rollout_ref.actor.strategy": "fsdp2",
        "actor_rollout_ref.ref.strategy": "fsdp2",
        "discriminator.strategy": "fsdp2",
        "discriminator.model.path": "Qwen/Qwen2.5-7B-Instruct",
        "actor_rollout_ref.model.path": "Qwen/Qwen2.5-14B-Instruct",
    }
    assert differences(config, wanted) == {}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("nodes", "generate"), [(2, 1), (5, 2)])
def test_a_launcher_names_the_nodes_of_the_cluster(script, nodes, generate, launch):
    """``slurm.sbatch`` and ``on_kuberay.sh`` do: all that a script asks for has to be there."""
    job = {"NNODES": str(nodes), "CLUSTER_NNODES": str(nodes), "NGPUS_PER_NODE": "4"}
    config = launch(script, ROLLOUT_NNODES=str(generate), **job).config
    rollout = config.actor_rollout_ref.rollout
    asked = config.trainer.nnodes + (rollout.nnodes if script == ASYNC else 0)
    assert asked == nodes and config.trainer.n_gpus_per_node == 4
    if script == ASYNC:
        assert (rollout.nnodes, rollout.n_gpus_per_node) == (generate, 4)
        assert need_of(config) == Need(nodes - generate, 4, 0, 4 * generate)


def test_a_cluster_in_which_no_node_is_left_to_train(tmp_path):
    fakes = FakeCommands(tmp_path)
    fakes.add("python3")
    variables = {"CLUSTER_NNODES": "1", "NNODES": "1", "ROLLOUT_NNODES": "1"}
    command = ["bash", str(RECIPE / ASYNC)]
    done = subprocess.run(command, env=fakes.environment(variables), capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and "none is left to train" in done.stderr and fakes.calls() == []


@pytest.mark.parametrize(("variable", "value"), [("METHOD", "sft"), ("PRESET", "papers"), ("BACKEND", "deepspeed")])
def test_a_wrong_choice_is_refused_before_anything_starts(variable, value, tmp_path):
    fakes = FakeCommands(tmp_path)
    fakes.add("python3")
    script = RECIPE / "run_qwen2_5_7b_fsdp.sh"
    if variable == "BACKEND":
        script = tmp_path / "run_x.sh"
        script.write_text(f"set -eu\nMODEL_PATH=a\nMODEL_TAG=b\nBACKEND=none\nsource {RECIPE}/common.sh\nlaunch\n")
    done = subprocess.run(
        ["bash", str(script)], env=fakes.environment({variable: value}), capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2 and f"{variable}=" in done.stderr and fakes.calls() == []


# ------------------------------ dry runs ------------------------------


@pytest.mark.parametrize(("script", "method"), DRY_RUNS)
def test_script_dry_runs_on_tiny_files(script, method, launch, tiny, tmp_path, megatron_on_path, capsys):
    arguments = TINY_ARGUMENTS + (TINY_TRUST if method == "recommended" else [])
    arguments = arguments + (TINY_WEIGHTS if script == ASYNC else [])
    started = launch(script, arguments, DRY_RUN="1", **tiny_variables(tiny, script, tmp_path), **METHODS[method])
    assert started.entry == ["gad_verl.cli", "doctor", "--plan"]
    assert started.overrides[-len(arguments) :] == arguments
    assert main([*started.entry[1:], *started.arguments]) == 0
    shown = capsys.readouterr().out
    assert "All checks passed" in shown and "48, 6 steps an epoch" in shown
    stages = ["steps 1-18"] if method == "seqkd" else ["steps 1-2", "steps 3-6", "steps 7-18"]
    assert [line.split("  ")[0] for line in shown.splitlines() if line.startswith("steps")] == stages
    assert ("gad.trust.held_out_fraction" in shown) == (method == "recommended")
    assert ("megatron TP=4" in shown) == (script == MEGATRON)
    assert ("1 x 8, and 1 x 8 of the rollout" in shown) == (script == ASYNC)
    families = {MEGATRON: "qwen3_moe", IMAGES: "qwen2_5_vl"}
    family = families.get(script, FAMILY_OF.get(script, "qwen2"))
    named = [line.split("  ")[-1].strip() for line in shown.splitlines() if line.startswith("family of the")]
    assert len(named) == (1 if method == "seqkd" else 2) and all(text.startswith(f"{family}: ") for text in named)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"EP": "16"}, "expert_model_parallel_size=16 does not divide the experts (8)"),
        ({"NNODES": "1", "NGPUS_PER_NODE": "4"}, "8 x 1 x 1 = 8, which does not divide the 4 GPUs"),
    ],
)
def test_dry_run_of_the_megatron_script_sees_a_layout_that_does_not_fit(
    variables, expected, launch, tiny, tmp_path, megatron_on_path, capsys
):
    started = launch(MEGATRON, TINY_ARGUMENTS, **variables, **tiny_variables(tiny, MEGATRON, tmp_path))
    assert main(["doctor", "--plan", *started.arguments]) == 2
    assert expected in capsys.readouterr().err


def test_gpt_oss_answers_in_its_final_channel(launch):
    config = launch(GPT_OSS).config
    tokenizer = build_tokenizer()
    chat = [
        {"role": "system", "content": "Be 'brief'."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
    ]
    for section in (config.actor_rollout_ref.model, config.discriminator.model):
        tokenizer.chat_template = section.custom_chat_template
        rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert rendered == (
            "<|start|>developer<|message|>Be 'brief'.<|end|><|start|>user<|message|>One?<|end|>"
            f"{FINAL}1<|end|><|start|>user<|message|>Two?<|end|>{FINAL}"
        )


@pytest.mark.parametrize(
    ("variables", "arguments", "expected"),
    [
        ({"METHOD": "seqkd"}, TINY_WEIGHTS, "its steps that learn generate nothing"),
        ({"ROLLOUT_NNODES": "0"}, TINY_WEIGHTS, "machines of its own"),
        ({"SYNC_STEP": "3"}, TINY_WEIGHTS, "parameter_sync_step (3)"),
        ({"WEIGHTS_BY": "naive"}, [], "moves weights within one process"),
        ({"WEIGHTS_BY": "carrier_pigeon"}, [], "carrier_pigeon not registered"),
        ({"MAX_AGE": "0"}, TINY_WEIGHTS, "max_off_policy_threshold=0"),
    ],
)
def test_dry_run_of_the_asynchronous_script_refuses_what_verl_would_assert(
    variables, arguments, expected, launch, tiny, tmp_path, capsys
):
    sizes = tiny_variables(tiny, ASYNC, tmp_path)
    started = launch(ASYNC, [*TINY_ARGUMENTS, *arguments], DRY_RUN="1", **sizes, **variables)
    assert main([*started.entry[1:], *started.arguments]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_dry_run_as_a_user_starts_it(tiny, tmp_path):
    script = "run_qwen2_5_7b_fsdp.sh"
    variables = tiny_variables(tiny, script, tmp_path) | {"DRY_RUN": "1", "PYTHON": sys.executable}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [str(RECIPE / script), *TINY_ARGUMENTS],
        env=os.environ | variables | {"PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "steps 7-18" in done.stdout and "Nothing was started" in done.stdout
    assert not (tmp_path / "checkpoints").exists() and list(tmp_path.iterdir()) == []


# ------------------------------ their form ------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_has_the_form_of_upstream(script):
    text = (RECIPE / script).read_text(encoding="utf-8")
    assert "set -xeuo pipefail" in text
    assert text.rstrip().endswith('"$@"')
    assert "NOT YET RUN ON GPUS" in text
    assert os.access(RECIPE / script, os.X_OK)
    common = (RECIPE / "common.sh").read_text(encoding="utf-8")
    assert "NOT YET RUN ON GPUS" in common
    for name in ("DATA", "MODEL", "ACTOR", "ROLLOUT", "DISCRIMINATOR", "TRAINER"):
        assert f"{name}=(" in common and f'"${{{name}[@]}}"' in common
