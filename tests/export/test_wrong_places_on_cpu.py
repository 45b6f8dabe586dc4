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
"""What a user names in the place of a checkpoint, an evaluation or a file: one line says what it is instead."""

from pathlib import Path

import pytest

from gad_verl import cli


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]):
    """Runs a command that must end with code 2, and gives its one line."""

    def run(*words: str | Path) -> str:
        assert cli.main([str(word) for word in words]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("gad-verl: ") and "\n" not in error and "Errno" not in error
        return error

    return run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    for step in (50, 90, 200):
        (tmp_path / "run" / f"global_step_{step}").mkdir(parents=True)
    (tmp_path / "run" / "global_step_300.partial").mkdir()
    return tmp_path / "run"


@pytest.mark.parametrize("part", ["student", "discriminator", "both"])
def test_export_says_what_it_was_given(line, run_folder: Path, tmp_path: Path, part: str) -> None:
    def export(path: Path) -> str:
        return line("export", path, "--output", tmp_path / "out", "--part", part)

    assert "no such folder" in export(tmp_path / "nowhere")
    assert "no such folder" in export(tmp_path / ("x" * 5000))
    # The newest by number, which is not the last by its letters.
    assert export(run_folder).endswith(f"did you mean {run_folder / 'global_step_200'}?")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text("{}")
    assert "a Hugging Face folder already" in export(tmp_path / "hub")
    assert "a file" in export(tmp_path / "hub" / "config.json")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_evaluate_proposes_the_newest_checkpoint_of_a_run(line, run_folder: Path, tiny_folder: Path) -> None:
    said = line(
        "evaluate", "--model", run_folder, "--data", tiny_folder / "val.parquet", "--output", run_folder / "out"
    )
    assert said.endswith(f"did you mean {run_folder / 'global_step_200'}?")


def test_evaluate_says_that_a_model_is_not_there(line, tiny_folder: Path, tmp_path: Path) -> None:
    for name in ("nowhere", "x" * 5000):
        given = ["--model", tmp_path / name, "--data", tiny_folder / "val.parquet", "--output", tmp_path / "out"]
        assert "no such checkpoint" in line("evaluate", *given)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "{tmp}"], "is a folder: name a file in it"),
        (["--output", "{tiny}/val.parquet"], "is a file: the name of a folder is needed"),
        (["--gpu-memory", "90"], "--gpu-memory 90"),
        (["--against", "base={tmp}"], "--judge-base-url"),
        (["--judge-teacher"], "--judge-base-url"),
    ],
)
def test_evaluate_says_it_before_a_model_is_loaded(
    line, words: list[str], said: str, tiny_folder: Path, tmp_path: Path
) -> None:
    given = ["--model", tiny_folder / "model", "--data", tiny_folder / "val.parquet", "--output", tmp_path / "out"]
    assert said in line("evaluate", *given, *(word.format(tmp=tmp_path, tiny=tiny_folder) for word in words))
    assert not (tmp_path / "out").exists()


def test_compare_says_what_it_was_given(line, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    assert "no such folder" in line("compare", tmp_path / "nowhere")
    assert "name its folder" in line("compare", tmp_path / "results.json")
