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
"""``--config-name gad_trainer`` resolves from any folder, after a wheel install and after the README's editable one."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COMMAND = ("-m", "verl.trainer.main_ppo", "--config-name", "gad_trainer", "--cfg", "job", "data.train_batch_size=12")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy: building writes into the source tree.
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{REPOSITORY}", str(source)], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source],
        check=True,
        capture_output=True,
        timeout=180,
    )
    return next(folder.glob("gad_verl-*.whl"))


def test_wheel_holds_the_package_the_plugin_and_the_configuration(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "gad_verl/plugin.py",
        "gad_verl/config/gad_trainer.yaml",
        "gad_verl/config/gad_cpu.yaml",
        "gad_verl/config/gad/gad.yaml",
        "gad_verl/tools/report/template/page.html",
        "gad_verl/tools/estimate/known_models.json",
        "hydra_plugins/gad_verl_searchpath/__init__.py",
    } <= names
    # hydra_plugins is a name space shared by all plugins: nobody may own it.
    assert "hydra_plugins/__init__.py" not in names
    assert not any(name.startswith("tests/") for name in names)


def test_config_resolves_after_a_wheel_install(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The other packages, without the editable installation: a .pth file inside a folder added by a .pth is not read.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = subprocess.run([python, *COMMAND], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trainer_mode: gad_sync" in done.stdout and "train_batch_size: 12" in done.stdout
    where = subprocess.run(
        [python, "-c", "import gad_verl; print(gad_verl.__file__)"], cwd=tmp_path, capture_output=True, text=True
    )
    assert str(site) in where.stdout


def test_config_resolves_after_the_editable_install(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, *COMMAND], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trainer_mode: gad_sync" in done.stdout


def test_importing_the_package_is_cheap() -> None:
    """No torch and no verl in a process that only asks for the version."""
    code = (
        "import sys, gad_verl; print(gad_verl.__version__, [m for m in ('torch', 'verl', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1)[1].strip() == "[]"
