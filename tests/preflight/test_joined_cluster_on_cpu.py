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
"""Launches that join a Ray cluster: what they must not say, and what other nodes are told."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
from omegaconf import DictConfig, OmegaConf, open_dict

from gad_verl import preflight
from gad_verl.errors import GadConfigError
from gad_verl.preflight.file_logger import pass_on_file_logger
from gad_verl.workers import surroundings

SIZES = ("num_cpus", "num_gpus", "object_store_memory")


def without_sizes(config: DictConfig) -> DictConfig:
    with open_dict(config):
        for key in SIZES:
            config.ray_kwargs.ray_init.pop(key, None)
    return config


def refused(config: DictConfig) -> str:
    with pytest.raises(GadConfigError) as error:
        preflight.check_config(config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def joining(tiny_config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    return without_sizes(tiny_config)


def test_the_sizes_of_a_ray_of_its_own_are_one_message(
    tiny_config: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    preflight.check_config(tiny_config)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    message = refused(tiny_config)
    assert all(f"~ray_kwargs.ray_init.{key}" in message for key in SIZES) and "10.0.0.1:6379" in message
    preflight.check_config(without_sizes(tiny_config))


def test_an_address_in_the_configuration_counts_too(tiny_config: DictConfig) -> None:
    with open_dict(tiny_config):
        tiny_config.ray_kwargs.ray_init.address = "auto"
    assert "cluster at auto" in refused(tiny_config)
    tiny_config.ray_kwargs.ray_init.address = "local"
    preflight.check_config(tiny_config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.default_local_dir", "checkpoints/run"),
        ("trainer.rollout_data_dir", "dumps"),
        ("gad.stop_file", "stop"),
        ("data.train_files", "train.parquet"),
        ("data.val_files", ["/data/val.parquet", "other.parquet"]),
    ],
)
def test_relative_paths_are_refused_where_nodes_have_folders_of_their_own(
    joining: DictConfig, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    with open_dict(joining):
        OmegaConf.update(joining, key, value)
    message = refused(joining)
    relative = value if isinstance(value, str) else value[-1]
    assert f"{key}={relative} is relative" in message and str(Path(relative).absolute()) in message
    monkeypatch.delenv("RAY_ADDRESS")
    try:
        preflight.check_config(joining)
    except GadConfigError as error:
        assert "relative" not in str(error)


def test_a_relative_model_is_a_folder_or_a_name_of_the_hub(
    joining: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path(joining.actor_rollout_ref.model.path)
    monkeypatch.chdir(model.parent)
    joining.actor_rollout_ref.model.path = model.name
    assert f"actor_rollout_ref.model.path={model.name} is relative" in refused(joining)
    monkeypatch.chdir(model)
    preflight.check_config(joining)


# ------------------------------ what other nodes are told ------------------------------


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, set[str]], None]:
    """This process as a worker of Ray: address of its node, and what its name resolves to."""
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)

    def of(address: str, names: set[str]) -> None:
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: address)
        monkeypatch.setattr(surroundings, "resolved", lambda host: names)
        found = {"lo": ["127.0.0.1", "::1"], "eth0": ["02:fc:00:00:00:01", "10.0.0.2", "fe80::1%eth0"]}
        monkeypatch.setattr(
            psutil,
            "net_if_addrs",
            lambda: {name: [SimpleNamespace(address=one) for one in all_of] for name, all_of in found.items()},
        )

    return of


@pytest.mark.parametrize(
    ("address", "names", "chosen"),
    [
        ("10.0.0.2", {"127.0.1.1"}, "eth0"),
        ("10.0.0.2", set(), "eth0"),
        ("10.0.0.2", {"10.0.0.2"}, None),
        ("127.0.0.1", {"127.0.1.1"}, None),
        ("10.0.0.9", {"127.0.1.1"}, None),
    ],
)
def test_gloo_takes_the_interface_that_ray_knows(
    node: Callable[..., None], address: str, names: set[str], chosen: str | None
) -> None:
    import os

    node(address, names)
    surroundings.choose_interface()
    assert os.environ.get("GLOO_SOCKET_IFNAME") == chosen


def test_what_somebody_has_chosen_stays(node: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    node("10.0.0.2", {"127.0.1.1"})
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    surroundings.choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"


def test_names_that_resolve_and_one_that_does_not() -> None:
    assert "127.0.0.1" in surroundings.resolved("localhost")
    assert surroundings.resolved("no-such-host.invalid") == set()
    assert surroundings.interface_of("192.0.2.77") is None
    (lo,) = [surroundings.interface_of("127.0.0.1")]
    assert lo is not None and socket.gethostname()


def test_the_file_logger_writes_where_the_shell_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    key = "ray_kwargs.ray_init.runtime_env.env_vars"

    def passed_on(**given: str) -> dict[str, str] | None:
        config = OmegaConf.create({"ray_kwargs": {"ray_init": {"runtime_env": {"env_vars": given} if given else {}}}})
        OmegaConf.set_struct(config, True)
        pass_on_file_logger(config)
        return OmegaConf.select(config, key)

    assert passed_on() is None and passed_on(A="1") == {"A": "1"}
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", "curves/one.jsonl")
    assert passed_on(A="1") == {"A": "1", "VERL_FILE_LOGGER_PATH": str(tmp_path / "curves" / "one.jsonl")}
    assert passed_on(VERL_FILE_LOGGER_PATH="/mine") == {"VERL_FILE_LOGGER_PATH": "/mine"}
    monkeypatch.delenv("VERL_FILE_LOGGER_PATH")
    # Without a place of the shell's, it is below the folder of the run: the trainer sees to that.
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert passed_on() is None


_APP = """
import hydra
from omegaconf import OmegaConf
from gad_verl.preflight import PreflightCallback

class OfARunThatIsNotChecked(PreflightCallback):
    def on_job_start(self, **_):
        pass

@hydra.main(config_path=".", config_name="run", version_base=None)
def main(config):
    print(OmegaConf.select(config, "ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH"))

if __name__ == "__main__":
    main()
"""
_RUN = """
hydra:
  callbacks:
    gad:
      _target_: app.OfARunThatIsNotChecked
trainer:
  v1:
    trainer_mode: {mode}
ray_kwargs:
  ray_init:
    num_cpus: 1
"""


@pytest.mark.parametrize(("mode", "reaches"), [("gad_sync", True), ("sync", False)])
def test_what_the_shell_said_reaches_the_job_that_hydra_starts(tmp_path: Path, mode: str, reaches: bool) -> None:
    (tmp_path / "app.py").write_text(_APP)
    (tmp_path / "run.yaml").write_text(_RUN.format(mode=mode))
    environment = os.environ | {"VERL_FILE_LOGGER_PATH": "curves.jsonl"}
    command = [sys.executable, "app.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (str(tmp_path / "curves.jsonl") if reaches else "None")
