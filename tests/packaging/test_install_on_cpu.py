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

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import gad_verl

REPOSITORY = Path(__file__).parents[2]
COMMAND = ("-m", "verl.trainer.main_ppo", "--config-name", "gad_trainer", "--cfg", "job", "data.train_batch_size=12")


# A PYTHONPATH of the caller would find the sources instead of what was installed.
WITHOUT_PATHS = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def find_python(minor: str) -> str | None:
    """An interpreter of that version: this one, one of the path, or one of pyenv's."""
    if sys.version_info[:2] == (3, int(minor)):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [str(path) for path in sorted(pyenv.glob(f"3.{minor}.*/bin/python"))]
    on_path = shutil.which(f"python3.{minor}")
    for python in [on_path, *found]:
        # pyenv's own commands may stand for a version that is not there.
        if python and subprocess.run([python, "--version"], capture_output=True).returncode == 0:
            return python
    return None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the source distribution of the last commit, and the wheel that was built from that distribution."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    # A copy: building writes into the source tree.
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{REPOSITORY}", str(source)], check=True)
    # Without --sdist and --wheel the wheel comes from the source distribution: what that lacks is missing in both.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("gad_verl-*.whl"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(archive.read(name))


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


def test_source_distribution_holds_what_a_build_reads(built: Path) -> None:
    (archive,) = built.glob("gad_verl-*.tar.gz")
    names = {name.split("/", 1)[1] for name in tarfile.open(archive).getnames() if "/" in name}
    assert not any(name.startswith("tests/") for name in names)
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= names
    assert {f"requirements/{path.name}" for path in (REPOSITORY / "requirements").glob("*.txt")} <= names
    assert archive.name == f"gad_verl-{gad_verl.__version__}.tar.gz"


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    """What git has in the packages, whatever its ending: a template that is forgotten fails where a user is."""
    listed = subprocess.run(
        ["git", "ls-files", "gad_verl", "hydra_plugins"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    missing = set(listed.stdout.split()) - set(zipfile.ZipFile(wheel).namelist())
    assert missing == set()


def test_metadata_says_who_and_for_what(metadata: Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("gad-verl", gad_verl.__version__)
    assert "Apache-2.0" in (metadata["License"] or metadata["License-Expression"])
    assert metadata["Description-Content-Type"] == "text/markdown" and metadata["Author"] == "The gad_verl Authors"
    accepted = SpecifierSet(metadata["Requires-Python"])
    prefix = "Programming Language :: Python :: 3."
    named = {name.removeprefix(prefix) for name in metadata.get_all("Classifier") if name.startswith(prefix)}
    assert named == {minor for minor in ("10", "11", "12", "13", "14") if f"3.{minor}" in accepted}
    # On the page of a registry a link into the repository leads nowhere.
    links = re.findall(r"\]\(([^)]+)\)", metadata.get_payload())
    assert links and all(link.startswith(("https://", "#")) for link in links)


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == gad_verl.__version__ and citation["license"] == "Apache-2.0"
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, flags=re.MULTILINE)[0] == gad_verl.__version__


@pytest.mark.parametrize("minor", ["11", "12"])
def test_wheel_installs_alone_and_its_version_can_be_asked(minor: str, wheel: Path, tmp_path: Path) -> None:
    """Each Python that the metadata names; pip checks the name, the tags and the required version of Python."""
    python = find_python(minor)
    if python is None:
        pytest.skip(f"no Python 3.{minor} here")
    environment = tmp_path / "environment"
    subprocess.run([python, "-m", "venv", environment], check=True, timeout=120)
    python = environment / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True, timeout=120
    )
    code = """
        import compileall, gad_verl, gad_verl.guardian.guardian, gad_verl.record.reading, pathlib
        assert compileall.compile_dir(pathlib.Path(gad_verl.__file__).parent, quiet=2, force=True)
        from importlib.metadata import entry_points
        assert [point.value for point in entry_points(group="verl.plugins")] == ["gad_verl.plugin"]
        print(gad_verl.__version__, gad_verl.__file__)
    """
    done = subprocess.run(
        [python, "-c", textwrap.dedent(code)], cwd=tmp_path, env=WITHOUT_PATHS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    version, file = done.stdout.split()
    assert version == gad_verl.__version__ and Path(file).is_relative_to(environment)
    command = [environment / "bin" / "gad-verl", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=WITHOUT_PATHS, capture_output=True, text=True)
    assert done.stdout.split() == ["gad-verl", gad_verl.__version__], done.stderr[-2000:]


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
    asked = {"cwd": tmp_path, "env": WITHOUT_PATHS, "capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run([python, *COMMAND], **asked)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trainer_mode: gad_sync" in done.stdout and "train_batch_size: 12" in done.stdout
    where = subprocess.run([python, "-c", "import gad_verl; print(gad_verl.__file__)"], **asked)
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
