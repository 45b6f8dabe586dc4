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
"""What the repository shows on GitHub: a workflow that runs .ci/run, and templates for issues by symptom."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gad_verl.cli import build_parser

REPOSITORY = Path(__file__).parents[2]
GITHUB = REPOSITORY / ".github"
TEMPLATES = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
# What GitHub takes in a form of an issue.
KINDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_workflow_runs_what_ci_runs() -> None:
    workflow = read(GITHUB / "workflows" / "ci.yml")
    # YAML 1.1 reads the key "on" as true.
    assert {"push", "pull_request"} <= set(workflow[True])
    steps = workflow["jobs"]["run"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands == ["bash .ci/run"] and (REPOSITORY / ".ci" / "run").is_file()
    # CONTRIBUTING.md tells the minutes of a machine with two cores.
    assert 60 < workflow["jobs"]["run"]["timeout-minutes"] <= 360
    assert workflow["permissions"] == {"contents": "read"}
    setup = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    versions = workflow["jobs"]["package"]["strategy"]["matrix"]["python-version"]
    assert versions == re.findall(r"Python :: (3\.\d+)", setup)


def test_make_takes_its_programs_from_a_folder_with_a_blank(tmp_path: Path) -> None:
    """lint and quickstart, with stand-ins for programs that are installed."""
    folder = tmp_path / "my projects"
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (folder / "Makefile").write_text(makefile, encoding="utf-8")
    for name in re.search(r"^REQUIREMENTS := ((?:.*\\\n)*.*)", makefile, re.MULTILINE)[1].replace("\\", "").split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        os.utime(folder / name, (1, 1))
    (folder / ".venv" / ".gad_verl_installed").touch()
    script = folder / "examples" / "quickstart" / "run.sh"
    for path, line in ((programs / "ruff", 'echo "ruff $*"'), (programs / "python", "true"), (script, "ruff found")):
        path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        path.chmod(0o755)
    # The tests may be started by make themselves.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "VENV"))}
    made = subprocess.run(
        ["make", "-s", "lint", "quickstart"], cwd=folder, env=environment, capture_output=True, text=True, timeout=20
    )
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.splitlines() == ["ruff check .", "ruff format --check .", "ruff found"]


def test_there_is_a_template_for_each_kind_of_symptom() -> None:
    assert [path.stem[2:] for path in TEMPLATES] == ["stops", "curves", "memory_or_time", "data", "wish"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_is_a_form_that_github_takes(path: Path) -> None:
    form = read(path)
    assert form.keys() <= {"name", "description", "labels", "body"} and {"name", "description", "body"} <= form.keys()
    ids = [part["id"] for part in form["body"] if "id" in part]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w-]+", name) for name in ids)
    assert any(part["type"] != "markdown" for part in form["body"])
    for part in form["body"]:
        assert part["type"] in KINDS
        assert part["attributes"].get("value" if part["type"] == "markdown" else "label")
        if part["type"] in ("dropdown", "checkboxes"):
            assert part["attributes"]["options"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_names_what_there_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    (commands,) = [action.choices for action in build_parser()._actions if isinstance(action.choices, dict)]
    assert set(re.findall(r"gad-verl (\w+)", text)) <= set(commands)
    assert all((REPOSITORY / page).is_file() for page in re.findall(r"docs/\w+\.md", text))
    metrics = (REPOSITORY / "docs" / "curves.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in metrics for name in re.findall(r"`(disc/\w+)`", text))
