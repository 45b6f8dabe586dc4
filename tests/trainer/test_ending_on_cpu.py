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
from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.core import Phase
from gad_verl.errors import GadConfigError
from gad_verl.preflight import check_config
from gad_verl.trainer.ending_stage import EndingStageMixin
from gad_verl.trainer.stop_file import StopFile

TOTAL, SAVE_EVERY = 10, 4


class Ending(EndingStageMixin):
    """The mixin on a trainer of which only what it reads is there; ``calls`` says what it does."""

    def __init__(self, folder: Path, step: int, save_freq: int = SAVE_EVERY, stop: Any = None, **settings: Any) -> None:
        self.config = OmegaConf.create({"trainer": {"save_freq": save_freq}})
        self.gad_config = GadConfig(**settings)
        self.global_steps, self.total_training_steps, self.phase = step, TOTAL, Phase.ADVERSARIAL
        self._checkpoint_root = folder
        self.calls: list[str] = []
        self.notes: list[tuple] = []
        self.toolbox = SimpleNamespace(
            judge=lambda *_: None,
            guardian=SimpleNamespace(stop=stop, metrics=dict),
            note=lambda *event: self.notes.append(event),
        )

    def take_data_events(self) -> list:
        return []

    def _save_checkpoint(self) -> None:
        # What is noted afterwards would be missing from the checkpoint.
        self.calls.append(f"saved with {len(self.notes)} notes")


# verl's trainer is abstract; the methods that it lacks are not called here.
Ending.__abstractmethods__ = frozenset()


@pytest.mark.parametrize(("step", "calls"), [(3, ["saved with 1 notes"]), (SAVE_EVERY, [])])
def test_a_run_that_is_asked_to_end_saves_once_and_ends(tmp_path: Path, step: int, calls: list[str]) -> None:
    (tmp_path / "stop").touch()
    run = Ending(tmp_path, step)
    run._decide_by({})
    # verl saves a step that is due, after this.
    assert run.calls == calls and run.total_training_steps == step
    assert [event[:4] for event in run.notes] == [(step, "trainer", "stop_file", "info")]
    assert f"after step {step}" in run._asked_to_end and "the same command goes on" in run._asked_to_end


def test_without_checkpoints_it_ends_and_says_that_nothing_is_saved(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    run = Ending(tmp_path, 3, save_freq=-1)
    run._decide_by({})
    assert run.calls == [] and run.total_training_steps == 3 and "nothing is saved" in run._asked_to_end


def test_the_last_step_ends_anyway(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    run = Ending(tmp_path, TOTAL)
    run._decide_by({})
    assert run.calls == [] and run._asked_to_end is None and run.notes == []


def test_nobody_asked(tmp_path: Path) -> None:
    run = Ending(tmp_path, 3)
    run._decide_by({})
    assert run.calls == [] and run.total_training_steps == TOTAL and run._asked_to_end is None


def test_another_file_by_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    run = Ending(tmp_path, 3, stop_file=str(tmp_path / "elsewhere"))
    run._decide_by({})
    assert run._asked_to_end is None
    (tmp_path / "elsewhere").touch()
    run._decide_by({})
    assert run._asked_to_end is not None and "elsewhere" in run._asked_to_end


@pytest.mark.parametrize(("saves", "calls"), [(True, ["saved with 0 notes"]), (False, [])])
def test_the_guardian_ends_a_run_and_says_whether_the_weights_are_worth_saving(
    tmp_path: Path, saves: bool, calls: list[str]
) -> None:
    (tmp_path / "stop").touch()
    run = Ending(tmp_path, 3, stop=SimpleNamespace(reason="it is sick", save_checkpoint=saves))
    run._decide_by({})
    assert run.calls == calls and run.total_training_steps == 3
    # It ended by itself: whoever starts it again because of the answer would do so for ever.
    assert run._asked_to_end is None


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
