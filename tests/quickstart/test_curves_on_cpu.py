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
"""The curves: reading logs as verl writes them, and drawing what is there."""

import json
from pathlib import Path

import curves
import numpy as np
import pytest
from curves import Curve, CurvesError


def write_log(path: Path, steps: dict[int, dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in steps.items()))
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    steps: dict[int, dict[str, object]] = {0: {"val-gad/accuracy": 0.5, "val-gad/rouge_l": 0.1}}
    for step in range(1, 61):
        stage = 0 if step <= 5 else 1 if step <= 20 else 2
        steps[step] = {"gad/stage": float(stage), "disc/accuracy": 0.8, "disc/loss": 0.4, "disc/margin_mean": 1.0}
        steps[step] |= {"disc/teacher_score_mean": 1.0, "disc/student_score_mean": 0.0, "gad/length_ratio": 1.2}
        steps[step] |= {"actor/loss": 2.0 if stage else 0.0}
        if stage == 2:
            steps[step]["actor/kl_loss"] = 0.01
    return write_log(tmp_path / "run.jsonl", steps)


def test_a_run_becomes_a_picture(log: Path, tmp_path: Path) -> None:
    output = tmp_path / "plots" / "curves.png"
    assert curves.main(["--log", str(log), "--output", str(output)]) == 0
    assert output.read_bytes().startswith(b"\x89PNG")


def test_panels_without_data_are_left_out(tmp_path: Path) -> None:
    log = write_log(tmp_path / "run.jsonl", {1: {"disc/accuracy": 0.7}, 2: {"disc/accuracy": 0.8}})
    figure = curves.draw(curves.read_log([log]))
    assert [axes.get_title() for axes in figure.axes if axes.axison] == [curves.PANELS[0].title]


def test_every_panel_is_drawn_for_a_whole_run(log: Path) -> None:
    titles = [axes.get_title() for axes in curves.draw(curves.read_log([log])).axes if axes.axison]
    assert titles == [panel.title for panel in curves.PANELS if panel.title != "Finished responses"]


def test_supervised_loss_is_not_mixed_with_the_policy_loss(log: Path) -> None:
    x, y = curves.points(curves.read_log([log]), Curve("actor/loss", "training", "k", curves.SUPERVISED_STAGES))
    assert x.tolist() == list(range(6, 21))
    assert set(y) == {2.0}


def test_stages_begin_where_they_change(log: Path) -> None:
    assert curves.stage_changes(curves.read_log([log])) == [(0.5, "D only"), (5.5, "warmup"), (20.5, "GAD")]


def test_missing_values_and_torn_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"step":1,"data":{"disc/loss":null,"disc/accuracy":0.7,"note":"text"}}\n{"step":2,"da')
    assert curves.read_log([path]) == {1: {"disc/accuracy": 0.7}}


def test_a_resumed_run_replaces_repeated_steps(tmp_path: Path) -> None:
    first = write_log(tmp_path / "1.jsonl", {1: {"disc/loss": 0.7}, 2: {"disc/loss": 0.6}})
    second = write_log(tmp_path / "2.jsonl", {2: {"disc/loss": 0.5}, 3: {"disc/loss": 0.4}})
    steps = curves.read_log([first, second])
    assert [values["disc/loss"] for values in steps.values()] == [0.7, 0.5, 0.4]


def test_moving_mean_keeps_length_and_constants() -> None:
    assert curves.moving_mean(np.full(30, 2.0), 7) == pytest.approx(np.full(30, 2.0))
    assert curves.moving_mean(np.arange(9.0), 3)[1:-1] == pytest.approx(np.arange(1.0, 8.0))


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    log = write_log(tmp_path / "run.jsonl", {1: {"training/epoch": 0}})
    with pytest.raises(CurvesError, match="none of the metrics"):
        curves.write_curves([log], tmp_path / "curves.png")
    assert curves.main(["--log", str(tmp_path / "absent.jsonl"), "--output", str(tmp_path / "curves.png")]) == 1
