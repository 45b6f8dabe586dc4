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
"""Tables of keys that are written by hand: the default that they name is the one that gad_trainer has."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "configuration.md"
HEADERS = {"default", "value in `gad_trainer`"}
# A value at the beginning of a cell; words after it are a remark.
_VALUE = re.compile(r"`([^`]+)`|(-?[\d.]+(?:e-?\d+)?|null|true|false)\b")


@pytest.fixture(scope="module")
def config() -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("gad_trainer")


def rows(page: Path) -> list[tuple[str, str]]:
    """Key and default of each row of a table with the columns key and default."""
    found, header = [], []
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells
        elif header[0] == "key" and header[1] in HEADERS and not set(line) <= set("|- "):
            keys, defaults = re.findall(r"`([\w.]+)`", cells[0]), cells[1].split(", ")
            if len(keys) == len(defaults) or len(defaults) == 1:
                found += list(zip(keys, defaults * (len(keys) if len(defaults) == 1 else 1), strict=True))
    return found


def wrong(pairs: list[tuple[str, str]], config: DictConfig) -> tuple[list[str], int]:
    """Rows whose default is another, and how many rows could be compared."""
    differences, compared = [], 0
    for key, cell in pairs:
        value = _VALUE.match(cell)
        if value is None or OmegaConf.select(config, key.rpartition(".")[0] or key) is None:
            continue
        said, is_so = yaml.safe_load(value[1] or value[2]), _plain(OmegaConf.select(config, key))
        # YAML 1.1 takes 1e-6 for a text.
        said = float(said) if isinstance(said, str) and re.fullmatch(r"[\d.]+e-?\d+", said) else said
        compared += 1
        if said != is_so:
            differences.append(f"{key}: the page says {said!r}, gad_trainer has {is_so!r}")
    return differences, compared


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def test_defaults_of_the_page_are_those_of_the_configuration(config: DictConfig) -> None:
    differences, compared = wrong(rows(PAGE), config)
    assert differences == []
    assert compared > 100


def test_the_most_important_keys_are_compared_too(config: DictConfig) -> None:
    """The table at the top of the page is written by hand."""
    by_hand = rows(PAGE)[:10]
    assert ("discriminator.optim.lr", "1e-6") in rows(PAGE) and by_hand[0][0] == "gad.stage"
    assert wrong(by_hand, config)[1] >= 8


def test_a_wrong_default_is_found(config: DictConfig) -> None:
    differences, compared = wrong([("gad.stage", "`warmup`"), ("gad.discriminator_only_steps", "10")], config)
    assert compared == 2 and [one.partition(":")[0] for one in differences] == ["gad.stage"]
