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
"""The list of what is used of verl: complete on the installed one, one readable error on another."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from gad_verl import compat
from gad_verl.compat import VERL_USES, VerlUse, check, missing_uses, unread_uses
from gad_verl.compat.source import find_source, read_names
from gad_verl.cpu.cpu import CpuDeviceIndex
from gad_verl.errors import GadCompatError


def test_the_installed_verl_has_everything() -> None:
    assert missing_uses() == []
    check()


def test_a_removed_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("verl.workers.utils.losses.sft_loss")
    monkeypatch.delattr("verl.trainer.ppo.v1.trainer_base.PPOTrainer._update_actor")
    with pytest.raises(GadCompatError) as error:
        check()
    found = importlib.metadata.version("verl")
    for part in (
        "verl.workers.utils.losses.sft_loss",
        "verl.trainer.ppo.v1.trainer_base.PPOTrainer._update_actor",
        f"verl {found}",
        "verl>=0.9.1,<0.10",
    ):
        assert part in str(error.value)
    assert "ppo_loss" not in str(error.value)


def test_a_removed_module_is_named() -> None:
    uses = (*VERL_USES, VerlUse("verl.no_such_module", ("a",), "a test"), VerlUse("verl.utils.nor_this", (), "nothing"))
    with pytest.raises(GadCompatError, match="verl.no_such_module .a test.(.|\n)*verl.utils.nor_this"):
        check(uses)


def test_attributes_of_a_removed_class_are_named() -> None:
    uses = (VerlUse("verl.workers.utils.losses", ("NoClass.method", "sft_loss.nothing", "sft_loss"), "a test"),)
    assert missing_uses(uses) == [
        "verl.workers.utils.losses.NoClass.method (a test)",
        "verl.workers.utils.losses.sft_loss.nothing (a test)",
    ]


def test_the_quick_check_imports_nothing() -> None:
    """And finds what the thorough one finds: all that is used stands in verl's source."""
    code = """
import sys
from gad_verl import compat
compat.check(quick=True)
print(sorted(name for name in sys.modules if name.split(".")[0] in ("verl", "torch", "ray", "transformers")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_quick_check_names_what_is_missing() -> None:
    uses = (
        *VERL_USES,
        VerlUse("verl.no_such_module", ("a",), "a test"),
        VerlUse("verl.workers.utils.losses", ("no_such_loss",), "a test"),
    )
    assert unread_uses(uses) == ["verl.no_such_module.a", "verl.workers.utils.losses.no_such_loss"]
    with pytest.raises(GadCompatError, match="verl.no_such_module .a test.(.|\n)*losses.no_such_loss"):
        check(uses, quick=True)


def test_an_inherited_member_is_no_error_of_the_quick_check() -> None:
    uses = (VerlUse("verl.trainer.ppo.v1.trainer_sync", ("PPOTrainerSync._setup",), "a test"),)
    assert unread_uses(uses) != []
    check(uses, quick=True)


def test_a_missing_dependency_of_the_trainer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_UNDECLARED", "no_such_package")
    monkeypatch.setattr(compat, "missing_uses", lambda uses: ["verl.x: No module named 'no_such_package'"])
    with pytest.raises(GadCompatError, match="no_such_package"):
        check(quick=True)


SOURCE = """
import a.b, c as d
from e import f as g, h
try:
    one = two = 1
    (three, four) = 1, 2
except ImportError:
    five: int = 5
else:
    six = 6
if one:
    class K:
        x: int = 1
        if x:
            def m(self):
                hidden = 1
        async def n(self): ...
with open("x") as y:
    def seven(): ...
"""


def test_names_are_read_from_source(tmp_path: Path) -> None:
    path = tmp_path / "source.py"
    path.write_text(SOURCE, encoding="utf-8")
    expected = "a d g h one two three four five six K K.x K.m K.n seven".split()
    assert sorted(read_names(path)) == sorted(expected)


def test_sources_are_found() -> None:
    assert find_source("verl").name == "__init__.py"
    assert find_source("verl.protocol").name == "protocol.py"
    assert find_source("verl.trainer.ppo.v1").parts[-2:] == ("v1", "__init__.py")
    assert find_source("verl.nothing") is None and find_source("no_such_package.x") is None


@pytest.mark.parametrize("version", ["0.8.0", "0.9.0", "0.10.0", "0.10", "1.0"])
def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(compat.importlib.metadata, "version", lambda name: version)
    with pytest.raises(GadCompatError) as error:
        check()
    assert version in str(error.value) and "pip install 'verl>=0.9.1,<0.10'" in str(error.value)


@pytest.mark.parametrize("version", ["0.9.1", "0.9.1.post1", "0.9.7"])
def test_patch_releases_are_accepted(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(compat.importlib.metadata, "version", lambda name: version)
    check()


def test_no_verl_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(compat.importlib.metadata, "version", version)
    with pytest.raises(GadCompatError, match="not installed: pip install"):
        check()


def test_the_package_asks_for_the_same_versions() -> None:
    requirements = map(Requirement, importlib.metadata.requires("gad-verl") or [])
    # The extras "tested-*" name the one version that was run.
    (verl,) = [requirement for requirement in requirements if requirement.name == "verl" and requirement.marker is None]
    assert verl.specifier == SpecifierSet(f">={compat.VERL_AT_LEAST},<{compat.VERL_BELOW}")


def test_device_index() -> None:
    import torch

    index = CpuDeviceIndex()
    assert torch.device(index) == torch.device("cpu")
    assert torch.zeros(2, device=index).device.type == "cpu"
    assert f"{index}" == "0" and f"cuda:{index}" == "cuda:0" and f"{index:>3}" == "  0"
