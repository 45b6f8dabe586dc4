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
"""The recipe has the form that upstream asks for, and the pages of docs/ match the code."""

import functools
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from packaging.version import Version

from gad_verl import compat
from gad_verl.core import score_statistics

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "gad"
CONFIG_DIR = RECIPE / "config"
PAGES = sorted([*ROOT.glob("*.md"), RECIPE / "README.md", *(ROOT / "docs").glob("*.md")])


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
    plain = maker.read_fields(maker.SOURCE.read_text(encoding="utf-8"))
    fields = maker.with_recommended(plain, maker.RECOMMENDED.read_text(encoding="utf-8"))
    assert {field.key for field in fields if field.paper is not None} >= {"gad.trust.otherwise", "gad.warmup.actor_lr"}
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
