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
"""The recipe composes, its run scripts start what they say, and the pages of docs/ match the code."""

import functools
import importlib.util
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from packaging.version import Version

from gad_verl import compat
from gad_verl.config import load_gad_config
from gad_verl.core import score_statistics
from gad_verl.preflight import check_config, run_preflight

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "gad"
CONFIG_DIR = RECIPE / "config"
SCRIPTS = ("run_qwen2_5_7b_fsdp.sh", "run_qwen2_5_7b_seqkd.sh")
PAGES = sorted([ROOT / "README.md", RECIPE / "README.md", *(ROOT / "docs").glob("*.md")])

# Sizes of tests/tools/tiny_model.py; given to a script as "$@", they have to win over its arrays.
TINY = [
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "gad.discriminator_only_steps=2",
    "actor_rollout_ref.rollout.name=hf",
]

# What the reference says (paper, arXiv 2511.10643, and the authors' scripts).
PAPER = {
    "data.train_batch_size": 256,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 256,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.rollout.n": 8,
    "data.max_prompt_length": 2048,
    "data.max_response_length": 1536,
    "actor_rollout_ref.rollout.temperature": 0.8,
    "actor_rollout_ref.rollout.val_kwargs.do_sample": False,
    "actor_rollout_ref.rollout.val_kwargs.temperature": 0,
    "actor_rollout_ref.rollout.val_kwargs.n": 1,
    "actor_rollout_ref.actor.use_kl_loss": True,
    "actor_rollout_ref.actor.kl_loss_coef": 0.001,
    "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.use_kl_in_reward": False,
    "gad.stage": "auto",
    "gad.kl_reference": "warmed_up",
    "gad.warmup_epochs": 1.0,
    "gad.warmup_steps": None,
    "gad.discriminator_only_steps": 10,
    "gad.reset_optimizer_at_switch": True,
    "gad.warmup.actor_lr": None,
    "gad.adversarial.actor_lr": None,
    "trainer.total_epochs": 3,
    "trainer.save_freq": 50,
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "discriminator.fsdp.model_dtype": "fp32",
    "discriminator.fsdp.mixed_precision.param_dtype": "bf16",
    "trainer.v1.trainer_mode": "gad_sync",
}
PAPER_OPTIM = {
    "optimizer": "AdamW",
    "lr": 1e-6,
    "weight_decay": 0.01,
    "clip_grad": 0.2,
    "lr_scheduler_type": "constant",
    "lr_warmup_steps_ratio": 0.0,
}
for _section in ("actor_rollout_ref.actor", "discriminator"):
    PAPER |= {f"{_section}.optim.{_name}": _value for _name, _value in PAPER_OPTIM.items()}

SCRIPT_CHANGES = {
    "run_qwen2_5_7b_fsdp.sh": {"gad.warmup.actor_lr": 1e-6},
    "run_qwen2_5_7b_seqkd.sh": {
        "gad.stage": "seqkd",
        "actor_rollout_ref.actor.optim.lr": 5e-6,
        "actor_rollout_ref.actor.use_kl_loss": False,
    },
}


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        return compose("gad_paper", overrides=list(overrides))


def compose_paper(overrides: list[str]) -> DictConfig:
    """The preset; nobody changes what is returned."""
    return _compose(tuple(overrides))


def differences(config: DictConfig, wanted: dict) -> dict:
    found = {key: OmegaConf.select(config, key, throw_on_missing=True) for key in wanted}
    return {key: (value, wanted[key]) for key, value in found.items() if value != wanted[key]}


@dataclass
class Launch:
    """What a script would have started."""

    module: str
    options: dict[str, str]
    overrides: list[str]


@pytest.fixture
def dry_run(tmp_path):
    """Runs a script with a ``python3`` that writes down its arguments."""
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name in ("python", "python3"):
        fake = fakes / name
        fake.write_text('#!/bin/sh\nprintf "%s\\0" "$@" > "$CAPTURED"\n', encoding="utf-8")
        fake.chmod(0o755)
    captured = tmp_path / "captured"

    def run(script: str, arguments: list[str] = (), **variables: str) -> Launch:
        environment = {
            "PATH": f"{fakes}{os.pathsep}{os.environ['PATH']}",
            "HOME": "/home/user",
            "CAPTURED": str(captured),
            **variables,
        }
        command = ["bash", str(RECIPE / script), *arguments]
        subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=20, capture_output=True)
        words = captured.read_text(encoding="utf-8").split("\0")[:-1]
        assert words[0] == "-m"
        options = {words[i]: words[i + 1] for i in range(2, len(words) - 1) if words[i].startswith("--")}
        rest = [word for word in words[2:] if word not in options and word not in options.values()]
        return Launch(module=words[1], options=options, overrides=rest)

    return run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model, and data with the columns of the published set."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model = load_module(ROOT / "tests" / "tools" / "tiny_model.py")
    tiny_model.build_all(folder)
    for name in ("train", "val"):
        rows = pd.read_parquet(folder / f"{name}.parquet").rename(columns={"prompt": "content"})
        rows[["content", "teacher_response"]].to_parquet(folder / f"{name}.parquet")
    return folder


# ------------------------------ the preset ------------------------------


def test_preset_has_every_setting_of_the_paper():
    assert differences(compose_paper([]), PAPER) == {}


def test_preset_of_the_paper_has_every_tool_off():
    from gad_verl.config import GadConfig, load_gad_config

    found, plain = load_gad_config(compose_paper([])), GadConfig()
    for section in "discriminator_loss discriminator_updates replay trust reward teachers curriculum guardian".split():
        assert getattr(found, section) == getattr(plain, section), section
    assert plain.replay.capacity_steps == 0 and not plain.trust.enabled and plain.reload_data == "never"


def test_preset_passes_the_check_of_the_configuration(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # vLLM need not be installed here
    gad_config = check_config(compose_paper([]))
    # Rows of the published data set.
    assert gad_config.resolve_warmup_steps(192_014 // 256) == 750


def test_gradient_clip_reaches_the_engines(tiny):
    from verl.utils.config import omega_conf_to_dataclass

    from gad_verl.discriminator.group_config import build_worker_config

    config = compose_paper([f"actor_rollout_ref.model.path={tiny / 'model'}"])
    worker_config, options = build_worker_config(config, load_gad_config(config), total_steps=10)
    # verl's FSDP engine clips by optimizer_config.clip_grad.
    assert worker_config.optimizer_config.clip_grad == 0.2
    assert worker_config.optimizer_config.lr == 1e-6
    assert options.fresh_head
    assert omega_conf_to_dataclass(config.actor_rollout_ref.actor).optim.clip_grad == 0.2


@pytest.mark.parametrize("path", sorted(CONFIG_DIR.glob("*.yaml")), ids=lambda path: path.name)
def test_yaml_has_the_form_that_verl_asks_for(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if not re.match(r"^ *(- )?[\w@.]+:( |$)", line) and not re.match(r"^ *- ", line):
            continue
        where = f"{path.name}:{number + 1}"
        assert not re.search(r"\S\s+#", line), f"{where}: inline comment"
        in_list = line.lstrip().startswith("- ") and re.match(r"^ *(- |\w+:$)", lines[number - 1])
        if not in_list:
            assert lines[number - 1].lstrip().startswith("#"), f"{where}: no comment above the field"
            first = number - 1
            while first and lines[first - 1].lstrip().startswith("#"):
                first -= 1
            assert first == 0 or lines[first - 1] == "", f"{where}: no blank line between fields"


# ------------------------------ the run scripts ------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_starts_the_paper_settings(script, dry_run):
    launch = dry_run(script)
    assert launch.module == "verl.trainer.main_ppo"
    assert Path(launch.options["--config-path"]) == CONFIG_DIR
    assert launch.options["--config-name"] == "gad_paper"
    config = compose_paper(launch.overrides)
    assert differences(config, PAPER | SCRIPT_CHANGES[script]) == {}
    assert config.data.prompt_key == "content"
    assert config.gad.teacher_key == config.data.teacher_key == "teacher_response"
    assert config.trainer.nnodes == 1 and config.trainer.n_gpus_per_node == 8
    assert config.data.train_files == "/home/user/data/lmsys_gpt5_chat/train.parquet"


def test_longest_group_fits_a_micro_batch_of_the_discriminator(dry_run, caplog, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # vLLM need not be installed here
    config = compose_paper(dry_run(SCRIPTS[0]).overrides)
    longest = (config.actor_rollout_ref.rollout.n + 1) * (
        config.data.max_prompt_length + config.data.max_response_length
    )
    assert longest <= config.discriminator.ppo_max_token_len_per_gpu
    check_config(config)
    assert "longest possible group" not in caplog.text
    assert config.discriminator.fsdp.param_offload and config.discriminator.fsdp.optimizer_offload


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_passes_the_whole_preflight_on_tiny_files(script, dry_run, tiny, tmp_path):
    from verl.utils.config import validate_config

    launch = dry_run(
        script,
        TINY,
        MODEL_PATH=str(tiny / "model"),
        TRAIN_FILE=str(tiny / "train.parquet"),
        TEST_FILE=str(tiny / "val.parquet"),
        CHECKPOINT_DIR=str(tmp_path / "checkpoints"),
    )
    assert launch.overrides[-len(TINY) :] == TINY
    config = compose_paper(launch.overrides)
    run_preflight(config)
    uses_reference = config.actor_rollout_ref.actor.use_kl_loss
    validate_config(config, use_reference_policy=uses_reference, use_critic=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_has_the_form_of_upstream(script):
    text = (RECIPE / script).read_text(encoding="utf-8")
    assert "set -xeuo pipefail" in text
    assert text.rstrip().endswith('"$@"')
    assert "NOT YET RUN ON GPUS" in text
    assert os.access(RECIPE / script, os.X_OK)
    for name in ("DATA", "MODEL", "ACTOR", "ROLLOUT", "TRAINER"):
        assert f"{name}=(" in text and f'"${{{name}[@]}}"' in text


def test_required_verl():
    lines = (RECIPE / "REQUIRED_VERL.txt").read_text(encoding="utf-8").splitlines()
    keys = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert keys["MODE"] == "pinned_tag"
    assert keys["UPSTREAM"].endswith("verl-project/verl.git")
    assert Version(compat.VERL_AT_LEAST) <= Version(keys["TAG"]) < Version(compat.VERL_BELOW)
    assert keys["PIP_INSTALL"] == f"pip install verl=={keys['TAG'].removeprefix('v')}"
    assert "## Required `verl` version" in (RECIPE / "README.md").read_text(encoding="utf-8")


# ------------------------------ the pages ------------------------------


def test_page_of_the_configuration_is_up_to_date():
    maker = load_module(ROOT / "docs" / "make_configuration.py")
    page = maker.PAGE.read_text(encoding="utf-8")
    fields = maker.read_fields(maker.SOURCE.read_text(encoding="utf-8"))
    assert page == maker.make_page(page, maker.make_table(fields)), "run python docs/make_configuration.py"
    known = OmegaConf.to_container(compose_paper([]).gad)
    keys = {f"gad.{name}" for name in known if name != "_target_"}
    assert keys == {field.key for field in fields if field.key.count(".") == 1}


def test_page_of_the_curves_names_every_metric():
    page = (ROOT / "docs" / "curves.md").read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "gad_verl" / "trainer").glob("*.py")]
    names = {name for text in sources for name in re.findall(r'"((?:gad|disc|val-gad)/\w+)"', text)}
    names |= {f"disc/{name}" for name in score_statistics(torch.zeros(2), torch.zeros(2, 2))}
    names |= {f"disc/{name}" for name in ("loss", "grad_norm", "lr", "skipped_steps", "memory_peak_gb")}
    names |= {f"val-gad/{name}" for name in ("accuracy", "margin_mean", "margin_std")}
    assert len(names) > 30
    assert sorted(name for name in names if f"`{name}`" not in page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert broken == []


def compose_megatron() -> DictConfig:
    """Both models on Megatron: keys that FSDP has not."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("gad_megatron_trainer")


def test_keys_named_by_the_pages_exist():
    configs = [compose_paper([]), compose_megatron()]
    unknown = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for key in re.findall(
            r"(?<![\w./@+-])((?:gad|discriminator|actor_rollout_ref|data|trainer|algorithm|reward)\.[a-z_\d]+(?:\.[a-z_\d]+)*)",
            text,
        ):
            parent, name = key.rsplit(".", 1)
            sections = [OmegaConf.select(config, parent) for config in configs]
            known = any(isinstance(section, DictConfig) and name in section for section in sections)
            if name not in ("yaml", "pt", "sh", "md") and not known:
                unknown.add(f"{page.name}: {key}")
    assert sorted(unknown) == []
