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
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from gad_verl.trainer.metrics_file import file_logger_path, lines_until, restore


def _line(step: int) -> bytes:
    return json.dumps({"step": step, "data": {"disc/loss": 0.1 * step}}).encode()


def test_lines_of_lost_steps_and_cut_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([_line(step) for step in (0, 1, 2, 3, 4)]) + b'\n{"step": 2, "da')
    assert lines_until(path, 2) == [_line(0), _line(1), _line(2)]
    assert lines_until(path, 0) == [] and lines_until(None, 3) == [] and lines_until(tmp_path / "none", 3) == []


def test_restored_lines_come_first() -> None:
    written = io.BytesIO()
    tracking = SimpleNamespace(logger={"file": SimpleNamespace(fp=written)})
    restore(tracking, [_line(1), _line(2)])
    written.write(_line(3) + b"\n")
    assert [json.loads(line)["step"] for line in written.getvalue().splitlines()] == [1, 2, 3]
    restore(SimpleNamespace(logger={}), [_line(1)])


def test_path_follows_verls_rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = OmegaConf.create(
        {"trainer": {"logger": ["console", "file"], "project_name": "project", "experiment_name": "name"}}
    )
    monkeypatch.delenv("VERL_FILE_LOGGER_PATH", raising=False)
    monkeypatch.setenv("VERL_FILE_LOGGER_ROOT", str(tmp_path))
    assert file_logger_path(config) == tmp_path / "project" / "name.jsonl"
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "here.jsonl"))
    assert file_logger_path(config) == tmp_path / "here.jsonl"
    config.trainer.logger = "console"
    assert file_logger_path(config) is None
