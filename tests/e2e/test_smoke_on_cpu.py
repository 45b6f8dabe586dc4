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
"""The run of make test: it is asked to end, saves the step that it is in, and the same command makes the rest of it.

Its numbers are those of ``pinned_trajectory.json``, which a run without interruption wrote (tools/pinned_run.py).
"""

import json
from pathlib import Path

import pytest
from main_ppo import Run, end_after, run_main_ppo
from pinned_run import NAMES, PINNED, SETTINGS, TOTAL_STEPS, trajectory
from tiny_model import build_all

pytestmark = [pytest.mark.e2e, pytest.mark.smoke]

# Rounding of other instruction sets was at most 7e-7 of losses, and 7e-6 of gradient norms of about 5.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, Run]:
    folder = tmp_path_factory.mktemp("stop_file")
    build_all(folder)
    (folder / "checkpoints").mkdir()
    # Asked before the start: it was meant for another run.
    (folder / "checkpoints" / "stop").touch()

    ask = end_after(1, folder / "curves.jsonl")
    first = run_main_ppo(folder, "first", *SETTINGS, metrics_name="curves", while_running=ask, timeout_s=540)
    assert first.returncode == 0, first.output[-4000:]
    (folder / "stop.done").write_bytes((folder / "checkpoints" / "stop.done").read_bytes())
    (folder / "first_run.json").write_bytes((folder / "checkpoints" / "record" / "run.json").read_bytes())
    second = run_main_ppo(folder, "second", *SETTINGS, metrics_name="curves", timeout_s=540)
    assert second.returncode == 0, second.output[-4000:]
    return folder, first, second


def test_the_run_ends_early_with_a_checkpoint_of_its_last_step(runs: tuple[Path, Run, Run]) -> None:
    folder, first, _ = runs
    last = max(first.metrics)
    assert 1 <= last < TOTAL_STEPS
    assert f"after step {last}" in (folder / "stop.done").read_text(encoding="utf-8")
    assert (folder / "checkpoints" / f"global_step_{last}").is_dir()
    # A run that was cut short has not come to its end.
    assert not json.loads((folder / "first_run.json").read_text(encoding="utf-8")).get("finished")


def test_the_same_command_goes_on_where_it_ended(runs: tuple[Path, Run, Run]) -> None:
    folder, first, second = runs
    assert sorted(second.metrics) == list(range(1, TOTAL_STEPS + 1))
    # What was logged before the end is in the whole curve as it was.
    for step, metrics in first.metrics.items():
        assert metrics["disc/loss"] == second.metrics[step]["disc/loss"]
    run = json.loads((folder / "checkpoints" / "record" / "run.json").read_text(encoding="utf-8"))
    assert run.get("finished")
    assert not (folder / "checkpoints" / "stop.done").exists()
    events = (folder / "checkpoints" / "record" / "events.jsonl").read_text(encoding="utf-8")
    assert events.count('"rule": "stop_file"') == 1


def test_the_numbers_are_the_pinned_ones(runs: tuple[Path, Run, Run]) -> None:
    """If they have to change: ``make pin``, and the commit says which change moved them."""
    pinned = json.loads(PINNED.read_text(encoding="utf-8"))
    assert {name for metrics in pinned.values() for name in metrics} == set(NAMES)
    found = trajectory(runs[2].metrics)
    assert found.keys() == pinned.keys()
    for step, expected in pinned.items():
        assert found[step] == pytest.approx(expected, abs=TOLERANCE, rel=TOLERANCE), f"step {step}"
