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
"""When the trainer lets the guardian judge a validation."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gad_verl.core import Phase
from gad_verl.trainer.sync import GadTrainerSync


def trainer(tmp_path: Path, resumed: bool, began: bool) -> tuple[Any, list[str]]:
    """What ``_after_validation`` reads of a trainer, and what it does."""
    calls: list[str] = []
    (tmp_path / "global_step_4").mkdir()
    stand_in = SimpleNamespace(
        _resume_folder=tmp_path / "global_step_4" if resumed else None,
        _training_began=began,
        _checkpoint_root=tmp_path,
        global_steps=4,
        phase=Phase.ADVERSARIAL,
        toolbox=SimpleNamespace(judge=lambda step, phase, metrics: calls.append("judged")),
        _save_tools=lambda folder: calls.append(f"saved {folder.name}"),
    )
    return stand_in, calls


@pytest.mark.parametrize(("resumed", "began"), [(False, False), (False, True), (True, True)])
def test_a_validation_is_judged_and_belongs_to_the_checkpoint_of_its_step(
    tmp_path: Path, resumed: bool, began: bool
) -> None:
    stand_in, calls = trainer(tmp_path, resumed, began)
    GadTrainerSync._after_validation(stand_in, {"val-gad/accuracy": 0.5})
    assert calls == ["judged", "saved global_step_4"]


def test_what_verl_validates_again_before_a_resumed_run_goes_on_is_not_judged_twice(tmp_path: Path) -> None:
    stand_in, calls = trainer(tmp_path, resumed=True, began=False)
    GadTrainerSync._after_validation(stand_in, {"val-gad/accuracy": 0.5})
    assert calls == []
