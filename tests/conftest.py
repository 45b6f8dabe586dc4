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
"""Fixtures that several folders share: a tiny random student, its tokenizer and rows. Nothing is downloaded."""

import copy
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).parent / "tools"))

# The CPU, also where a driver of a GPU is, which verl would choose. tests/gpu tells its own processes where to compute.
os.environ.setdefault("VERL_PLATFORM", "cpu")

# A wrong path in a test must fail at once instead of asking a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# No test fails because the machine was busy.
settings.register_profile("gad_verl", deadline=None)
settings.load_profile("gad_verl")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The runs of main_ppo come last: whatever fails quickly should fail first.

    In several processes (make test) they come first: the others fill up what time is left beside them.
    """
    several = hasattr(config, "workerinput")
    items.sort(key=lambda item: (item.get_closest_marker("e2e") is not None) != several)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What importing all tests has made stays to the end: no garbage collection needs to look at it again.

    Each whole one took half a second, and whatever drops a model asks for one.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """The interpreter's own last collection is to find everything: modules in C++ report what it leaves."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level tokenizer of the tiny model: every text round-trips."""
    from tiny_model import build_tokenizer

    return build_tokenizer()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``model/``, ``train.parquet`` (48 rows) and ``val.parquet`` (8 rows). Do not change it."""
    from tiny_model import build_all

    return build_all(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def probes(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Real workers (tools/probe_cases.py): the cases of all modules of this session, one process per world size."""
    from probe_cases import Probes

    modules = dict.fromkeys(item.module for item in request.session.items if isinstance(item, pytest.Function))
    cases = [case for module in modules for case in getattr(module, "PROBE_CASES", ())]
    if not hasattr(request.config, "workerinput"):
        return Probes(tmp_path_factory.mktemp("probes"), tiny_folder / "model", cases)
    # All test processes of this session share them.
    root = tmp_path_factory.getbasetemp().parent / "probes"
    root.mkdir(exist_ok=True)
    return Probes(root, tiny_folder / "model", cases)


@pytest.fixture(scope="session")
def compose_config() -> Callable[..., DictConfig]:
    """Composes ``gad_cpu`` or ``gad_trainer`` as ``python -m verl.trainer.main_ppo --config-name ...`` does."""
    from hydra import compose, initialize_config_module

    def composed(name: str, *overrides: str) -> DictConfig:
        # The folder of verl.trainer.main_ppo; gad_verl's own is found by its search-path plug-in.
        with initialize_config_module("verl.trainer.config", version_base=None):
            return compose(name, overrides=list(overrides))

    return composed


@pytest.fixture(scope="session")
def _tiny_base(compose_config: Callable[..., DictConfig], tiny_folder: Path) -> DictConfig:
    return compose_config(
        "gad_cpu",
        "gad=paper",
        f"actor_rollout_ref.model.path={tiny_folder / 'model'}",
        f"data.train_files={tiny_folder / 'train.parquet'}",
        f"data.val_files={tiny_folder / 'val.parquet'}",
    )


@pytest.fixture
def tiny_config(_tiny_base: DictConfig, tmp_path: Path) -> DictConfig:
    """A copy of ``gad_cpu gad=paper`` on the tiny model and its data, with an empty folder for checkpoints."""
    config = copy.deepcopy(_tiny_base)
    config.trainer.default_local_dir = str(tmp_path / "checkpoints")
    return config
