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
"""When a run ends before its last step, and what is saved then."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.errors import GadConfigError
from gad_verl.preflight import check_config
from gad_verl.trainer.ending import Ending
from gad_verl.trainer.stop_file import StopFile

TOTAL = 10


def ending(folder: Path, saves: bool = True, stop: Any = None, **settings: Any) -> tuple[Ending, list[tuple]]:
    """With a guardian that has decided already; and the events that are noted."""
    notes: list[tuple] = []
    guardian = SimpleNamespace(stop=stop, observe=lambda *_: [])
    log = SimpleNamespace(event=lambda *event: notes.append(event))
    return Ending(guardian, StopFile.of_run(GadConfig(**settings), folder), saves, log), notes


def test_a_run_that_is_asked_to_end_says_why_and_whether_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    run, notes = ending(tmp_path)
    assert run.ends_after(3, TOTAL) is True
    assert [event[:4] for event in notes] == [(3, "trainer", "stop_file", "info")]
    assert "after step 3" in run.asked and "the same command goes on" in run.asked
    run.confirm()
    assert not (tmp_path / "stop").exists() and run.asked in (tmp_path / "stop.done").read_text()


def test_without_checkpoints_it_ends_and_says_that_nothing_is_saved(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    run, _ = ending(tmp_path, saves=False)
    assert run.ends_after(3, TOTAL) is False and "nothing is saved" in run.asked


def test_the_last_step_ends_anyway(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    run, notes = ending(tmp_path)
    assert run.ends_after(TOTAL, TOTAL) is None and run.asked is None and notes == []


def test_nobody_asked(tmp_path: Path) -> None:
    run, _ = ending(tmp_path)
    assert run.ends_after(3, TOTAL) is None and run.asked is None
    run.confirm()
    assert list(tmp_path.iterdir()) == []


def test_another_file_by_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    run, _ = ending(tmp_path, stop_file=str(tmp_path / "elsewhere"))
    assert run.ends_after(3, TOTAL) is None
    (tmp_path / "elsewhere").touch()
    assert run.ends_after(3, TOTAL) is True and "elsewhere" in run.asked


@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("saves", [True, False])
def test_the_guardian_ends_a_run_and_says_whether_the_weights_are_worth_saving(
    tmp_path: Path, sound: bool, saves: bool
) -> None:
    (tmp_path / "stop").touch()
    run, _ = ending(tmp_path, saves, stop=SimpleNamespace(reason="it is sick", save_checkpoint=sound))
    assert run.ends_after(3, TOTAL) is (sound and saves)
    # It ended by itself: whoever starts it again because of the answer would do so for ever.
    assert run.asked is None


def test_the_file_and_its_answer(tmp_path: Path) -> None:
    file = StopFile(tmp_path / "stop")
    file.clear()
    assert not file.is_there
    file.path.touch()
    assert file.is_there
    file.confirm("after step 3")
    assert not file.is_there and (tmp_path / "stop.done").read_text(encoding="utf-8") == "after step 3\n"
    file.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_no_request_is_neither_removed_nor_run_over(
    tmp_path: Path, compose_config: Callable[..., DictConfig], is_folder: bool
) -> None:
    path = tmp_path / "train.parquet"
    if is_folder:
        path.mkdir()
    else:
        path.write_text("rows", encoding="utf-8")
    with pytest.raises(GadConfigError, match=r"gad\.stop_file: .*train\.parquet is there already"):
        StopFile(path).clear()
    with pytest.raises(GadConfigError, match=r"gad\.stop_file"):
        check_config(compose_config("gad_cpu", f"gad.stop_file='{path}'"))
    assert path.exists()


def test_minutes_between_checkpoints_need_steps_too(compose_config: Callable[..., DictConfig]) -> None:
    """The last step is saved by steps alone."""
    check_config(compose_config("gad_cpu", "gad.save_minutes=30", "trainer.save_freq=100000"))
    with pytest.raises(GadConfigError, match=r"gad.save_minutes=30 with trainer.save_freq=-1.*positive number"):
        check_config(compose_config("gad_cpu", "gad.save_minutes=30", "trainer.save_freq=-1"))
