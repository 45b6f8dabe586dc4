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
"""Which device verl computes on: a driver alone is no GPU, no nvidia-smi is no CPU, and gad_cpu means the CPU."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from gad_verl.cpu import register
from gad_verl.errors import GadConfigError
from gad_verl.preflight.platform_check import choose_platform


class Platform:
    """Of verl: what its own look at the machine found."""

    def __init__(self, device_name: str, available: bool = False, found: bool = False) -> None:
        self.device_name, self._available, self._found = device_name, available, found

    def is_available(self) -> bool:
        return self._available

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return self._found


class Registry:
    """Of verl, with NVIDIA and the CPU."""

    def __init__(self, nvidia: Platform) -> None:
        self._platforms = {"nvidia": lambda: nvidia, "cpu": lambda: Platform("cpu", True)}

    def registered_names(self) -> tuple[str, ...]:
        return tuple(self._platforms)

    def get(self, name: str) -> Any:
        return self._platforms[name]


def chosen(monkeypatch: Any, current: Platform | None, nvidia: Platform, cuda: bool, driver: Path, wanted: str) -> str:
    monkeypatch.setattr(register, "_torch_knows_nvidia", lambda: cuda)
    monkeypatch.setattr(register, "_NVIDIA_DRIVER", (driver,))
    monkeypatch.setenv("VERL_PLATFORM", wanted)
    manager: Any = SimpleNamespace(_current_platform=current)
    register._choose_cpu(manager, Registry(nvidia))
    return "verl's" if manager._current_platform is current else manager._current_platform.device_name


@pytest.mark.parametrize("resolved", [True, False], ids=["resolved", "not resolved"])
def test_a_driver_is_no_gpu_for_a_torch_without_cuda(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, resolved: bool
) -> None:
    nvidia = Platform("cuda", found=True)
    current = nvidia if resolved else None
    assert chosen(monkeypatch, current, nvidia, False, tmp_path, "") == "cpu"
    assert chosen(monkeypatch, current, nvidia, False, tmp_path, "nvidia") == "verl's"


def test_a_node_of_gpus_without_nvidia_smi_stays_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a process that sees no GPU, as the driver of a run, verl finds nothing but the files of the NVIDIA driver."""
    nvidia = Platform("cuda")
    assert chosen(monkeypatch, nvidia, nvidia, True, tmp_path, "") == "verl's"
    assert chosen(monkeypatch, nvidia, nvidia, True, tmp_path / "none", "") == "cpu"
    assert chosen(monkeypatch, nvidia, nvidia, True, tmp_path, "cpu") == "cpu"


def test_what_is_available_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvidia = Platform("cuda", available=True, found=True)
    assert chosen(monkeypatch, nvidia, nvidia, True, tmp_path, "") == "verl's"
    assert chosen(monkeypatch, None, nvidia, True, tmp_path, "") == "verl's"


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch can use the driver")
def test_verl_itself_takes_the_cpu_beside_a_driver(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    program.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VERL_")}
    environment["PATH"] = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    code = "from verl.plugin.platform import get_platform; print(get_platform().device_name)"
    for plugins, device in (("none", "cuda"), ("auto", "cpu")):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", f"import verl; {code}"],
            env=environment | {"VERL_USE_EXTERNAL_PLUGINS": plugins},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.stdout.split()[-1:] == [device], done.stderr


def configuration(device: str, gpus: int = 2) -> DictConfig:
    return OmegaConf.create({"trainer": {"device": device}, "ray_kwargs": {"ray_init": {"num_gpus": gpus}}})


def test_a_configuration_for_the_cpu_computes_there_beside_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.plugin.platform import get_platform, platform_manager
    from verl.plugin.platform.platform_cuda import PlatformCUDA
    from verl.utils.device import auto_set_device

    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(platform_manager, "_current_platform", PlatformCUDA())
    config = configuration("cpu")
    choose_platform(config)
    assert (os.environ["VERL_PLATFORM"], get_platform().device_name) == ("cpu", "cpu")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    # verl's next word on the matter.
    auto_set_device(config)
    assert config.trainer.device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    choose_platform(config)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1,-1"


def test_an_environment_that_says_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "nvidia")
    with pytest.raises(GadConfigError, match="VERL_PLATFORM=nvidia .*unset it"):
        choose_platform(configuration("cpu"))
    choose_platform(configuration("cuda"))


def test_the_processes_of_gad_cpu_are_told_too(tiny_config: DictConfig) -> None:
    assert tiny_config.ray_kwargs.ray_init.runtime_env.env_vars == {"VERL_PLATFORM": "cpu"}
