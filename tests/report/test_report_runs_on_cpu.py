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
"""Reading runs and thinning their series."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_run import write_metrics, write_record, write_run

from gad_verl.errors import GadDataError
from gad_verl.record import RECORD_FOLDER, RunRecord
from gad_verl.tools.report.lines import Series, read_metrics
from gad_verl.tools.report.notes import notes
from gad_verl.tools.report.runs import Run, Span, read_run, read_runs
from gad_verl.tools.report.series import SMOOTHED_FROM, moving_mean, smooth, thin


def _series(values: list[float], first: int = 1) -> Series:
    return Series(np.arange(first, first + len(values)), np.array(values, dtype=float))


# ------------------------------------------------------------------------------------------------------------- reading


def test_half_written_last_line_is_tolerated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_metrics(path, 6)
    content = path.read_bytes()
    whole, _, _ = read_metrics(path)
    first_line = content.index(b"\n") + 1
    for end in range(first_line, len(content), 97):
        path.write_bytes(content[:end])
        metrics, _, damaged = read_metrics(path)
        lines = content[:end].count(b"\n")
        assert damaged == 0 and len(metrics["disc/loss"]) in (lines, lines + 1)
        np.testing.assert_array_equal(
            metrics["disc/loss"].values, whole["disc/loss"].values[: len(metrics["disc/loss"])]
        )


def test_later_line_counts_and_numbers_that_are_none_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 2, "data": {"a": 1, "text": "x"}},
        {"step": 1, "data": {"a": 5.5, "b": None}},
        {"step": 2, "data": {"a": 3, "b": float("nan")}},
    ]
    damaged = '{"step": 3, "data": 7}\nnonsense\n'
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n" + damaged, encoding="utf-8")
    metrics, not_finite, count = read_metrics(path)
    assert metrics["a"].steps.tolist() == [1, 2] and metrics["a"].values.tolist() == [5.5, 3.0]
    assert not_finite == {"b": [1, 2]} and count == 2 and "b" not in metrics and "text" not in metrics


def test_what_a_dead_attempt_logged_behind_its_checkpoint_is_left_out(tmp_path: Path) -> None:
    """A program that appends: dead at 30, resumed from 10, now at 14; the validation of a resume logs step 10 again."""
    path = tmp_path / "metrics.jsonl"
    died = [{"step": step, "data": {"a": 0.9, "val": 0.1}} for step in range(1, 31)]
    resumed = [{"step": 10, "data": {"val": 0.2}}] + [{"step": step, "data": {"a": 0.5}} for step in range(11, 15)]
    path.write_text("".join(json.dumps(line) + "\n" for line in died + resumed), encoding="utf-8")
    run = read_run(path)
    assert run.last_step == 14 and run.get("a").steps.tolist() == list(range(1, 15))
    assert run.get("a").values.tolist() == [0.9] * 10 + [0.5] * 4
    assert run.get("val").values.tolist() == [0.1] * 9 + [0.2]


def test_a_file_that_is_ordered_by_metrics_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "data": {name: step}} for name in ("a", "b") for step in range(1, 9)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    run = read_run(path)
    assert all(run.get(name).values.tolist() == list(range(1, 9)) for name in ("a", "b"))


@pytest.mark.parametrize(
    "content", ["", "\n \n", "hello\n", '{"step": 1}\n', '[1, 2]\n{"data": {}}\n', '{"step": 1, "da']
)
def test_files_without_metrics_are_errors(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(GadDataError, match="some.jsonl is (empty|no file of metrics)"):
        read_run(path)


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(GadDataError, match="neither"):
        read_run(tmp_path)
    with pytest.raises(GadDataError, match="does not exist"):
        read_run(tmp_path / "none")
    (tmp_path / "a.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(GadDataError, match="neither"):
        read_run(tmp_path)


def test_metrics_of_a_run_that_was_moved_are_found(tmp_path: Path) -> None:
    before = tmp_path / "before"
    write_metrics(before / "curves.jsonl", 5)
    write_record(before / "checkpoints", 5, before / "curves.jsonl")
    after = tmp_path / "after"
    os.replace(before, after)
    run = read_run(after / "checkpoints")
    assert run.metrics_file == after / "curves.jsonl" and run.name == "after" and len(run.get("disc/loss")) == 5


def test_metrics_below_a_folder_that_was_copied_are_found(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    file = there / "project" / "name.jsonl"
    file.parent.mkdir(parents=True)
    write_metrics(file, 5)
    write_record(there, 5, file)
    os.replace(there, here)
    assert read_run(here).metrics_file == here / "project" / "name.jsonl"


def write_marked(run: Path, file: Path, accuracy: float, started: str, folder: bool = True) -> None:
    """A run whose metrics and configuration say which one it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"step": 1, "data": {"disc/accuracy": accuracy}}) + "\n", encoding="utf-8")
    with RunRecord.open(run, None) as made:
        made.write_run({"accuracy": accuracy}, file)
    path = run / RECORD_FOLDER / "run.json"
    info = json.loads(path.read_text()) | {"started": [started]}
    if not folder:
        del info["folder"]  # A record of an earlier version.
    path.write_text(json.dumps(info))


def accuracy_of(run: Path) -> float | None:
    found = read_run(run)
    assert found.info is not None
    series = found.get("disc/accuracy")
    return float(series.values[-1]) if len(series) else None


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        *(
            (place, said)
            for place in ("metrics.jsonl", "project/name.jsonl", "../curves.jsonl")
            for said in (True, False)
        ),
        # Of an earlier version nothing tells where such a file went.
        ("../logs/a.jsonl", True),
    ],
)
@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_run_that_was_moved_or_copied_keeps_its_own_metrics(
    tmp_path: Path, how: str, place: str, folder: bool
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    file = Path(os.path.normpath(before / "checkpoints" / place))
    write_marked(before / "checkpoints", file, 0.9, "monday", folder)
    (os.replace if how == "moved" else shutil.copytree)(before, after)
    assert accuracy_of(after / "checkpoints") == 0.9
    # Another run takes the place of the first, or the first one goes on.
    write_marked(before / "checkpoints", file, 0.5, "tuesday", folder)
    assert accuracy_of(after / "checkpoints") == 0.9 and accuracy_of(before / "checkpoints") == 0.5


@pytest.mark.parametrize("folder", [True, False], ids=["", "earlier version"])
def test_metrics_of_another_run_are_not_those_of_one_that_lost_its_own(tmp_path: Path, folder: bool) -> None:
    here, there = tmp_path / "run_a", tmp_path / "checkpoints"
    write_marked(there, there / "project" / "name.jsonl", 0.9, "monday", folder)
    shutil.copytree(there / RECORD_FOLDER, here / RECORD_FOLDER)
    with (here / RECORD_FOLDER / "scores.jsonl").open("a") as file:
        file.write('{"step": 1}\n')
    with (here / RECORD_FOLDER / "events.jsonl").open("a") as file:
        file.write('{"step": 1, "text": "it began"}\n')
    # Of the same run, whose record alone was copied.
    assert accuracy_of(here) == 0.9
    write_marked(there, there / "project" / "name.jsonl", 0.5, "tuesday", folder)
    assert accuracy_of(here) is None and "is not there" in str(read_run(here).why_no_metrics)


def test_an_older_file_in_the_folder_is_not_what_the_record_names(tmp_path: Path) -> None:
    """Metrics of the first start lay in the folder; a later one was told another place (VERL_FILE_LOGGER_ROOT)."""
    run = tmp_path / "run"
    write_marked(run, run / "project" / "name.jsonl", 0.1, "monday")
    write_marked(run, tmp_path / "logs" / "project" / "name.jsonl", 0.9, "monday")
    assert accuracy_of(run) == 0.9


def test_a_record_without_metrics_is_shown(tmp_path: Path) -> None:
    write_record(tmp_path, 4, None)
    (tmp_path / "soda_pairs.jsonl").write_text('{"prompt": [], "chosen": "a", "rejected": "b"}\n', encoding="utf-8")
    run = read_run(tmp_path)
    assert run.metrics == {} and run.unread == {} and run.last_step == 4 and len(run.scores) == 4
    assert run.why_no_metrics is not None and "trainer.logger" in run.why_no_metrics
    gone = tmp_path / "gone.jsonl"
    write_record(tmp_path / "lost", 4, gone)
    assert read_run(tmp_path / "lost").why_no_metrics == f"its file of metrics is not there: {gone}"
    assert read_run(write_run(tmp_path / "whole", 4)).why_no_metrics is None


def test_state_says_what_is_known(tmp_path: Path) -> None:
    running = write_run(tmp_path / "running", 6, total=10, finished=False)
    assert read_run(running).state == "still training, as of step 6 of 10"
    assert read_run(running / "metrics.jsonl").state == "as of step 6; nothing says whether the run is finished"
    for file in (*(running / RECORD_FOLDER).iterdir(), running / "metrics.jsonl"):
        os.utime(file, (time.time() - 7200, time.time() - 7200))
    assert read_run(running).state.endswith("or interrupted: nothing was written for 2.0 hours")
    assert read_run(write_run(tmp_path / "all", 6, finished=False)).state == "finished at step 6 of 6"
    early = write_run(tmp_path / "early", 6, total=10)
    assert read_run(early).state == "ended early, at step 6 of 10"
    assert ("end", "The run ended at step 6, before the 10 steps that it was to make.") in list(notes(read_run(early)))
    with RunRecord.open(running, 6) as record:
        record.event(6, "guardian", "collapse", "stop", "The loss is 0.")
        record.finish()
    assert read_run(running).state == "stopped by the guardian at step 6 of 10"
    # Its policy was changed, and it went on.
    write_metrics(running / "metrics.jsonl", 8, total=10)
    assert read_run(running).state == "ended early, at step 8 of 10"


def test_the_state_is_that_of_the_metrics(tmp_path: Path) -> None:
    run = write_run(tmp_path / "running", 6, total=10, finished=False)
    # The record of a step is written before its metrics.
    with RunRecord.open(run, 6) as record:
        record.event(7, "schedule", "stage", "info", "The adversarial stage begins.")
    found = read_run(run)
    assert found.state == "still training, as of step 6 of 10" and found.reach == 7


def test_a_run_that_was_asked_to_end_is_not_called_training(tmp_path: Path) -> None:
    run = write_run(tmp_path / "asked", 6, total=10, finished=False)
    with RunRecord.open(run, 6) as record:
        record.event(6, "trainer", "stop_file", "info", "the run ends after step 6, as stop asks")
    assert read_run(run).state == "asked to end after step 6 of 10; the same command goes on"
    write_metrics(run / "metrics.jsonl", 7, total=10)
    assert read_run(run).state == "still training, as of step 7 of 10"


def test_names_of_runs_are_unique(tmp_path: Path) -> None:
    for folder in ("a/metrics.jsonl", "b/x/metrics.jsonl", "c/x/metrics.jsonl"):
        write_metrics(tmp_path / folder, 2)
    paths = [str(tmp_path / folder) for folder in ("a/metrics.jsonl", "b/x/metrics.jsonl", "c/x/metrics.jsonl")]
    assert [run.name for run in read_runs(paths)] == ["a", "x (1)", "x (2)"]
    assert [run.name for run in read_runs([f"one={paths[0]}", paths[1]])] == ["one", "x"]


def test_rows_are_what_was_logged(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    logged = {
        step: {f"m{number}": float(generator.normal()) for number in range(6) if generator.random() < 0.7}
        for step in range(1, 40)
    }
    logged[7]["m0"] = float("nan")
    lines = [{"step": step, "data": data} for step, data in logged.items()]
    path = tmp_path / "metrics.jsonl"
    # As verl writes it: null for what is not finite.
    path.write_bytes(b"".join(orjson.dumps(lines[place]) + b"\n" for place in generator.permutation(len(lines))))
    rows = read_run(path).rows()
    assert list(rows) == [step for step, data in logged.items() if data]
    assert all(rows[step] == pytest.approx(logged[step], rel=0, abs=0, nan_ok=True) for step in rows)


def test_spans_and_stages() -> None:
    run = Run("r", Path("r"), {"gad/stage": _series([0, 0, 1, 2, 2]), "x": _series([1, 2, 3, 4, 5])})
    assert run.spans == [Span(0, 1, 2), Span(1, 3, 3), Span(2, 4, 5)]
    assert run.in_stages("x", (0, 2)).values.tolist() == [1, 2, 4, 5] and run.in_stages("x", (3,)).steps.size == 0
    assert Run("r", Path("r"), {"x": _series([1, 2])}).in_stages("x", (3,)).values.tolist() == [1, 2]


# ------------------------------------------------------------------------------------------------------------ thinning


@settings(deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=300), st.integers(4, 60))
def test_thinning_keeps_extremes_and_ends(values: list[float], limit: int) -> None:
    series = _series(values)
    thinned = thin(series, limit)
    assert len(thinned) <= max(limit, 0) or len(values) <= limit
    assert thinned.values.min() == min(values) and thinned.values.max() == max(values)
    assert thinned.steps[0] == 1 and thinned.steps[-1] == len(values)
    assert np.all(np.diff(thinned.steps) > 0) and np.array_equal(thinned.values, series.values[thinned.steps - 1])


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.integers(1, 21))
def test_moving_mean_is_the_mean_around(values: list[float], window: int) -> None:
    reach = window // 2
    expected = [np.mean(values[max(0, place - reach) : place + reach + 1]) for place in range(len(values))]
    np.testing.assert_allclose(moving_mean(np.array(values), window), expected, rtol=1e-9, atol=1e-9)


def test_one_huge_value_is_in_the_means_around_it_alone() -> None:
    values = np.ones(100)
    values[20] = 1e18
    series = Series(np.arange(100), values)
    smoothed = smooth(Run("r", Path("r"), {}), series, 100)
    assert smoothed is not None
    far = np.abs(smoothed.steps - 20) > 2
    np.testing.assert_array_equal(smoothed.values[far], 1.0)
    assert (smoothed.values[~far] > 1e17).all()


def test_smoothing_does_not_cross_stages() -> None:
    count = 2 * SMOOTHED_FROM
    values = [0.0] * SMOOTHED_FROM + [1.0] * SMOOTHED_FROM
    run = Run(
        "r", Path("r"), {"gad/stage": _series([1.0] * SMOOTHED_FROM + [2.0] * SMOOTHED_FROM), "x": _series(values)}
    )
    smoothed = smooth(run, run.get("x"), count)
    assert smoothed is not None
    np.testing.assert_allclose(smoothed.values, values, atol=1e-12)
    assert smooth(run, _series([1.0] * (SMOOTHED_FROM - 1)), 10) is None
