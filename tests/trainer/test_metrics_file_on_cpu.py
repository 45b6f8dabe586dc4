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
"""Curves of a resumed run."""

import io
import json
import os
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from verl.utils.tracking import FileLogger

from gad_verl.record import RunRecord
from gad_verl.trainer.metrics_file import file_logger_path, lines_until, restore, told_to_verl


def _line(step: int) -> bytes:
    return json.dumps({"step": step, "data": {"disc/loss": 0.1 * step}}).encode()


def _config(**changes: Any) -> DictConfig:
    trainer = {"logger": ["console", "file"], "project_name": "project", "experiment_name": "name"}
    return OmegaConf.create({"trainer": trainer | changes})


@pytest.fixture(autouse=True)
def no_place_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT"):
        monkeypatch.delenv(name, raising=False)


def _start(folder: Path, last: int, resumed: int = 0, loss: float = 0.0, **trainer: Any) -> Path:
    """A start of the run in ``folder`` as the trainer makes it; trains to step ``last``. Returns where it logged."""
    config = _config(**trainer)
    file = file_logger_path(config, folder, resumed)
    assert file is not None
    past = lines_until(file, resumed, folder)
    with RunRecord.open(folder, resumed or None) as record:
        record.write_run({}, file)
    with told_to_verl(file):
        logger = FileLogger(config.trainer.project_name, config.trainer.experiment_name)
    restore(SimpleNamespace(logger={"file": logger}), past)
    for step in range(resumed + 1, last + 1):
        logger.log({"disc/loss": loss + step}, step)
    logger.finish()
    assert Path(logger.filepath).absolute() == file.absolute()
    return file


def _losses(file: Path) -> dict[int, float]:
    return {line["step"]: line["data"]["disc/loss"] for line in map(json.loads, file.read_text().splitlines())}


def test_lines_of_lost_steps_and_cut_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([_line(step) for step in (0, 1, 2, 3, 4)]) + b'\n{"step": 2, "da')
    assert lines_until(path, 2, tmp_path) == [_line(0), _line(1), _line(2)]
    assert lines_until(path, 0, tmp_path) == [] and lines_until(None, 3, tmp_path) == []
    assert lines_until(tmp_path / "none", 3, tmp_path) == []


def test_restored_lines_come_first() -> None:
    written = io.BytesIO()
    tracking = SimpleNamespace(logger={"file": SimpleNamespace(fp=written)})
    restore(tracking, [_line(1), _line(2)])
    written.write(_line(3) + b"\n")
    assert [json.loads(line)["step"] for line in written.getvalue().splitlines()] == [1, 2, 3]
    restore(SimpleNamespace(logger={}), [_line(1)])


def test_path_follows_verls_rules_where_the_environment_names_a_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("VERL_FILE_LOGGER_ROOT", str(tmp_path))
    assert file_logger_path(_config(), folder) == tmp_path / "project" / "name.jsonl"
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "here.jsonl"))
    assert file_logger_path(_config(), folder) == tmp_path / "here.jsonl"
    assert file_logger_path(_config(logger="console"), folder) is None
    assert _start(folder, 2) == tmp_path / "here.jsonl"


def test_two_runs_of_one_launch_folder_do_not_meet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = tmp_path / "a", tmp_path / "b"
    cut = random.Random(5).randint(1, 8)
    file = _start(first, 9, loss=100.0)
    assert file.is_relative_to(first) and _start(second, 4, loss=200.0).is_relative_to(second)
    # Nothing is left that would send a later run of this process there.
    assert not {"VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT"} & set(os.environ)
    assert _losses(file) == {step: 100.0 + step for step in range(1, 10)}
    assert _start(first, 12, resumed=cut, loss=300.0) == file
    assert _losses(file) == {step: (100.0 if step <= cut else 300.0) + step for step in range(1, 13)}


def test_an_older_run_goes_on_with_the_file_of_its_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, old = tmp_path / "run", tmp_path / "project" / "name.jsonl"
    monkeypatch.setenv("VERL_FILE_LOGGER_ROOT", str(tmp_path))
    assert _start(folder, 6) == old
    monkeypatch.delenv("VERL_FILE_LOGGER_ROOT")
    assert _start(folder, 8, resumed=4, loss=50.0) == old
    assert _losses(old) == {step: step + (50.0 if step > 4 else 0.0) for step in range(1, 9)}
    # One that starts anew, or has lost that file, does not.
    assert _start(folder, 2).is_relative_to(folder)
    (folder / "project" / "name.jsonl").unlink()
    old.unlink()
    assert _start(folder, 8, resumed=4).is_relative_to(folder)


def test_a_file_that_the_record_does_not_name_is_nobodys_past(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    own = _start(first, 6, loss=10.0)
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "b.jsonl"))
    _start(second, 6, loss=20.0)
    # The first goes on where the second wrote: its own curve comes along.
    assert _losses(_start(first, 7, resumed=3, loss=10.0)) == {step: 10.0 + step for step in (1, 2, 3, 4, 5, 6, 7)}
    assert _losses(own)[3] == 13.0
    # A record that names no file leaves nothing to go on with.
    with RunRecord.open(second, 3) as record:
        record.write_run({}, None)
    assert lines_until(tmp_path / "b.jsonl", 3, second) == []
    # Without a record nothing says whose it is.
    assert len(lines_until(tmp_path / "b.jsonl", 3, tmp_path / "c")) == 3


def test_a_copied_folder_goes_on_with_its_own_copy(tmp_path: Path) -> None:
    original, copy = tmp_path / "run", tmp_path / "copy"
    file = _start(original, 5)
    copy_file = copy / file.relative_to(original)
    copy_file.parent.mkdir(parents=True)
    copy_file.write_bytes(file.read_bytes())
    (copy / "record").mkdir()
    (copy / "record" / "run.json").write_bytes((original / "record" / "run.json").read_bytes())
    assert _start(copy, 6, resumed=3, loss=70.0) == copy_file
    assert _losses(copy_file) == {1: 1.0, 2: 2.0, 3: 3.0, 4: 74.0, 5: 75.0, 6: 76.0}
    assert _losses(file) == {step: float(step) for step in range(1, 6)}
