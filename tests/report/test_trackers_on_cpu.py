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
"""Every documented metric reaches verl's loggers under its name."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from made_up_run import metrics_of_step
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from verl.utils.tracking import Tracking

from gad_verl.tools.report.runs import read_run

CURVES = Path(__file__).resolve().parents[2] / "docs" / "curves.md"


def test_metrics_reach_tensorboard_and_the_file_under_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented = re.findall(r"^\| `((?:disc|gad|val-gad)/\w+)` \|", CURVES.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(documented) > 40
    generator = np.random.default_rng(0)
    steps = {
        step: {name: float(generator.normal()) for name in documented} | metrics_of_step(step, 10, generator)
        for step in (1, 5, 10)
    }
    steps[5]["disc/loss"] = math.nan
    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path / "tensorboard"))
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics.jsonl"))
    tracking = Tracking("project", "experiment", ["tensorboard", "file"])
    for step, data in steps.items():
        tracking.log(data, step)
    tracking.finish()

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set().union(*steps.values())
    for name in documented:
        found = {point.step: point.value for point in events.Scalars(name)}
        expected = {step: data[name] for step, data in steps.items()}
        assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)

    run = read_run(tmp_path / "metrics.jsonl")
    for name in documented:
        expected = [data[name] for data in steps.values() if math.isfinite(data[name])]
        assert run.get(name).values.tolist() == expected
    assert run.not_finite == {"disc/loss": [5]}
    assert json.loads((tmp_path / "metrics.jsonl").read_bytes().splitlines()[1])["data"]["disc/loss"] is None
