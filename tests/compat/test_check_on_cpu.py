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

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from gad_verl.compat import REPLACED, VERL_AT_LEAST, VERL_BELOW, VERL_USES, VerlUse, check, tree, unread_uses
from gad_verl.compat.source import Sources
from gad_verl.cpu.cpu import CpuDeviceIndex
from gad_verl.errors import GadCompatError


def test_the_installed_verl_has_everything() -> None:
    assert unread_uses() == []
    check()


def test_what_is_missing_is_named() -> None:
    uses = (
        *VERL_USES,
        VerlUse("verl.no_such_module", "a", "a test"),
        VerlUse("verl.workers.utils.losses", "no_such_loss sft_loss.nothing", "another test"),
    )
    expected = [
        "verl.no_such_module is gone (a test)",
        "verl.workers.utils.losses.no_such_loss is gone (another test)",
        "verl.workers.utils.losses.sft_loss.nothing is gone (another test)",
    ]
    assert unread_uses(uses) == expected
    for quick in (True, False):
        with pytest.raises(GadCompatError) as error:
            check(uses, quick=quick)
        found = importlib.metadata.version("verl")
        assert f"verl {found} is not as gad_verl uses it" in str(error.value) and "verl>=0.9.1,<0.10" in str(
            error.value
        )
        assert all(f"\n  {line}" in str(error.value) for line in expected)
        assert "ppo_loss" not in str(error.value)


def test_a_changed_signature_is_named() -> None:
    uses = (VerlUse("verl.utils.py_functional", "rename_dict(data, *, suffix)", "a test"),)
    with pytest.raises(
        GadCompatError, match=r"rename_dict takes \(data, prefix\), and is called as \(data, \*, suffix\)"
    ):
        check(uses, quick=True)


def test_a_replacement_that_nobody_reads_is_named() -> None:
    uses = (VerlUse("verl.utils.metric", "reduce_metrics", "a test", REPLACED, read_in="verl.utils.py_functional"),)
    with pytest.raises(GadCompatError, match="reduce_metrics is no longer read in verl.utils.py_functional .a test"):
        check(uses, quick=True)


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


def test_what_no_source_shows_is_looked_for_by_import() -> None:
    """Names that a module makes while it is imported: here an alias of a class from elsewhere, and its member."""
    uses = (VerlUse("verl.protocol", "DataProto.__class__", "a test"),)
    assert unread_uses(uses) == ["verl.protocol.DataProto.__class__ is gone (a test)"]
    check(uses, quick=True)


def test_a_missing_dependency_of_the_trainer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    without = Sources({"verl": tree.installed_sources().folders["verl"]})
    monkeypatch.setattr("gad_verl.compat.installed.installed_sources", lambda: without)
    with pytest.raises(GadCompatError, match="the package transfer_queue is not installed"):
        check(quick=True)


def test_what_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verl.utils.metric", None)
    uses = (VerlUse("verl.utils.metric", "reduce_metrics", "a test"),)
    check(uses, quick=True)
    with pytest.raises(GadCompatError, match="verl.utils.metric cannot be imported: .*(.|\n)*a test"):
        check(uses)


@pytest.mark.parametrize("version", ["0.8.0", "0.9.0", "0.10.0", "0.10", "1.0"])
def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(GadCompatError) as error:
        check()
    assert version in str(error.value) and "pip install 'verl>=0.9.1,<0.10'" in str(error.value)


@pytest.mark.parametrize("version", ["0.9.1", "0.9.1.post1", "0.9.7"])
def test_patch_releases_are_accepted(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    check(quick=True)


def test_no_verl_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(GadCompatError, match="not installed: pip install"):
        check()


def test_the_package_asks_for_the_same_versions() -> None:
    requirements = map(Requirement, importlib.metadata.requires("gad-verl") or [])
    # The extras "tested-*" name the one version that was run.
    (verl,) = [requirement for requirement in requirements if requirement.name == "verl" and requirement.marker is None]
    assert verl.specifier == SpecifierSet(f">={VERL_AT_LEAST},<{VERL_BELOW}")


def test_device_index() -> None:
    import torch

    index = CpuDeviceIndex()
    assert torch.device(index) == torch.device("cpu")
    assert torch.zeros(2, device=index).device.type == "cpu"
    assert f"{index}" == "0" and f"cuda:{index}" == "cuda:0" and f"{index:>3}" == "  0"
