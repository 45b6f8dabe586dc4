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
"""Whatever stands in the files of a run, the page is made, and it says what was left out."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_run import write_run

from gad_verl.cli import main
from gad_verl.errors import GadDataError
from gad_verl.record import RECORD_FOLDER, RunRecord
from gad_verl.record.reading import EVENTS_FILE, LINE_FILES, RUN_FILE, SAMPLES_FILE, SCORES_FILE
from gad_verl.tools.report.charts import draw_scores
from gad_verl.tools.report.lines import read_metrics
from gad_verl.tools.report.notes import notes
from gad_verl.tools.report.page import render
from gad_verl.tools.report.runs import read_run
from gad_verl.tools.report.verdict import judge
from gad_verl.trainer.metrics_file import lines_until

DEEP = "[" * 100_000 + "]" * 100_000
NUMBERS = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 1e308, 2**31, 2**63, -1, 0, 1, 2, 3, True, math.inf, math.nan]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
METRICS = st.sampled_from(
    "gad/stage disc/accuracy disc/loss disc/saturated_fraction gad/prompts gad/length_ratio actor/loss actor/kl_loss "
    "actor/entropy val-gad/accuracy val-gad/num_pairs timing_s/step timing_s/gen disc/skipped_steps gad/self_bleu "
    "gad/distinct_2 gad/repetition gad/teacher_repetition gad/trust_factor gad/trust_accuracy".split()
)


def objects(*keys: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of the keys, and a step that may be one."""
    fields = st.dictionaries(st.sampled_from(keys), VALUES, max_size=len(keys))
    return st.builds(lambda step, rest: {"step": step, **rest}, st.integers(0, 30) | NUMBERS | VALUES, fields)


METRIC_LINES = st.builds(
    lambda step, data: {"step": step, "data": data},
    st.integers(0, 30) | NUMBERS,
    st.dictionaries(METRICS, NUMBERS | VALUES, max_size=8) | VALUES,
)
EVENTS = objects("source", "rule", "action", "text", "figures") | st.builds(
    lambda step, action: {"step": step, "action": action},
    st.integers(0, 30),
    st.sampled_from(["warn", "stop", "adapt"]),
)
SCORES = objects("levels", "teacher", "student") | st.builds(
    lambda step, side: {
        "step": step,
        "levels": [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0],
        "teacher": side,
        "student": side[::-1],
    },
    st.integers(0, 30),
    st.lists(NUMBERS | st.none(), min_size=6, max_size=8),
)
SAMPLES = objects("split", "index", "prompt", "teacher", "students", "teacher_score", "student_scores")
RUNS = st.dictionaries(
    st.sampled_from(["gad_verl", "versions", "config", "started", "finished", "metrics_file"]), VALUES, max_size=6
)


def lines(of_kind: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    piece = st.one_of(
        of_kind.map(lambda value: json.dumps(value).encode()),
        VALUES.map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=8).map(lambda value: value.replace(b"\n", b"")),
        st.sampled_from([DEEP.encode(), b'{"step": 3, "data": ' + DEEP.encode() + b"}", b"{", b"9" * 5000]),
    )
    return st.lists(piece | of_kind.map(lambda value: json.dumps(value).encode()), max_size=12).map(b"\n".join)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    (folder / RECORD_FOLDER).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


FILES = st.fixed_dictionaries(
    {
        "metrics.jsonl": lines(METRIC_LINES),
        f"{RECORD_FOLDER}/{EVENTS_FILE}": lines(EVENTS),
        f"{RECORD_FOLDER}/{SCORES_FILE}": lines(SCORES),
        f"{RECORD_FOLDER}/{SAMPLES_FILE}": lines(SAMPLES),
        f"{RECORD_FOLDER}/{RUN_FILE}": RUNS.map(lambda value: json.dumps(value).encode()) | st.just(DEEP.encode()),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(files=FILES)
def test_the_page_of_anything(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = write(tmp_path_factory.mktemp("damaged"), files)
    try:
        run = read_run(folder)
    except GadDataError as error:
        # There was not one line that means anything, so there is nothing to show.
        assert "\n" not in str(error)
        return
    judge(run)
    page = render([run])
    for name in run.unread:
        assert f"{name} ({run.unread[name]})" in page


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=lines(METRIC_LINES))
def test_metrics_are_numbers_and_lines_are_counted(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    path.write_bytes(content + b"\n")
    lines_until(path, 3, path.parent)
    pieces = [piece for piece in content.split(b"\n") if piece.strip()]
    try:
        metrics, not_finite, damaged = read_metrics(path)
    except GadDataError:
        return
    assert 0 <= damaged < len(pieces)
    for series in metrics.values():
        assert all(map(math.isfinite, series.values)) and (series.steps[1:] > series.steps[:-1]).all()
    assert all(steps == sorted(set(steps)) for steps in not_finite.values())


@pytest.mark.parametrize(
    "line",
    [
        '{"step": Infinity, "data": {"disc/loss": 1}}',
        '{"step": -1, "data": {"disc/loss": 1}}',
        '{"step": 99999999999, "data": {"disc/loss": 1}}',
        '{"step": true, "data": {"disc/loss": 1}}',
        '{"step": 3, "data": {"disc/loss": ' + DEEP + "}}",
        '{"step": 3, "data": [1]}',
    ],
)
def test_a_line_that_means_nothing_is_counted(tmp_path: Path, line: str, capsys: pytest.CaptureFixture) -> None:
    run = write_run(tmp_path / "run", 5)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    found = read_run(run)
    assert found.unread == {"metrics.jsonl": 1} and found.last_step == 5
    assert ("files", "Lines that could not be read and are left out, by file: metrics.jsonl (1).") in list(notes(found))
    assert main(["guardian", str(run)]) == 0
    assert "1 lines of metrics.jsonl could not be read" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["metrics_file", "folder"])
@pytest.mark.parametrize("place", ["\0bad", "/tmp/\0/metrics.jsonl", "x" * 5000, "\ud800"])
def test_a_place_that_no_file_can_have_is_passed_over(tmp_path: Path, name: str, place: str) -> None:
    run = write_run(tmp_path / "run", 5)
    file = run / RECORD_FOLDER / RUN_FILE
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {name: place}), encoding="utf-8")
    assert main(["report", str(run), "--output", str(tmp_path / "page.html")]) == 0
    assert read_run(run).last_step == 5


def test_a_number_beyond_all_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "data": {{"a": {10**400}, "b": 1e39, "c": 3}}}}\n', encoding="utf-8")
    metrics, not_finite, damaged = read_metrics(path)
    assert not_finite == {"a": [1], "b": [1]} and list(metrics) == ["c"] and damaged == 0


def test_an_event_without_a_source_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 5)
    with (run / RECORD_FOLDER / EVENTS_FILE).open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "action": ["warn"], "text": "something"}\n{"step": 5, "text": 7}\n')
    page = render([read_run(run)])
    assert "unknown source" in page and "something" in page


@pytest.mark.parametrize("name", [*LINE_FILES, RUN_FILE])
def test_damage_in_the_record_is_counted(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", 5)
    before = len(read_run(run).scores)
    path = run / RECORD_FOLDER / name
    path.write_bytes(b"nonsense\n" if name == RUN_FILE else path.read_bytes() + b'nonsense\n{"step": 1e9}\n')
    found = read_run(run)
    assert found.unread == {name: 1 if name == RUN_FILE else 2} and len(found.scores) == before
    assert f"{name} ({found.unread[name]})" in render([found])


def test_scores_of_another_form_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 5)
    path = run / RECORD_FOLDER / SCORES_FILE
    wrong = json.loads(path.read_text().splitlines()[0])
    for step, changes in ((7, {"teacher": "high"}), (8, {"student": [1.0]}), (9, {"teacher": [10**400] * 7})):
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**wrong, "step": step, **changes}) + "\n")
    found = read_run(run)
    assert found.unread == {SCORES_FILE: 3} and [line["step"] for line in found.scores] == [1, 2, 3, 4, 5]
    assert draw_scores("scores", found, False) is not None


def test_a_record_is_shown_where_the_metrics_hold_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 5, finished=False)
    (run / "metrics.jsonl").write_text("nonsense\n[]\n", encoding="utf-8")
    found = read_run(run)
    assert found.metrics == {} and found.unread == {"metrics.jsonl": 2} and found.samples
    (run / "metrics.jsonl").write_text("", encoding="utf-8")
    assert read_run(run).unread == {} and read_run(run).last_step == 5


@settings(max_examples=40, deadline=None)
@given(noise=st.floats(0.001, 0.05), fall=st.sampled_from([0.0, 0.5]), seed=st.integers(0, 10**6))
def test_a_cross_entropy_that_does_not_fall_is_not_passed_over(
    tmp_path_factory: pytest.TempPathFactory, noise: float, fall: float, seed: int
) -> None:
    import numpy as np

    generator, count = np.random.default_rng(seed), 20
    values = 1.0 - fall * np.arange(count) / count + noise * generator.normal(size=count)
    # Without a fall both halves have the same mean: what is left is no more than scatter.
    values -= 0.0 if fall else np.repeat([values[:10].mean(), values[10:].mean()], 10) - 0.994
    folder = tmp_path_factory.mktemp("loss")
    path = folder / "metrics.jsonl"
    content = [{"step": n + 1, "data": {"gad/stage": 1.0, "actor/loss": float(one)}} for n, one in enumerate(values)]
    path.write_text("".join(json.dumps(line) + "\n" for line in content), encoding="utf-8")
    with RunRecord.open(folder, None) as record:
        record.write_run({}, path)
    (text,) = [text for topic, text in notes(read_run(folder)) if topic == "imitation"]
    assert ("no fall" in text) == (fall == 0)
