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
"""``gad-verl guardian``: the guardian over a file of metrics."""

import json
from pathlib import Path

import pytest
from streams import stream

from gad_verl import cli
from gad_verl.record import RunRecord


def write(path: Path, rows: list[tuple[int, dict]], tail: str = "") -> Path:
    lines = [json.dumps({"step": step, "data": data}) for step, data in rows]
    path.write_text("\n".join(lines) + "\n" + tail, encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["guardian", *map(str, arguments)])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_events_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(tmp_path / "metrics.jsonl", stream("saturated", range(41, 81), 80))
    code, output, _ = run(capsys, path)
    lines = output.splitlines()
    assert code == 0 and len(lines) == 2
    assert lines[0].startswith("step 55  warn  saturated: ")
    assert lines[1] == "steps 1 to 80: 1 events; standing at the end: saturated"
    code, output, _ = run(
        capsys, path, "--json", "--set", "saturated.policy=adapt", "--set", "window=10", "--set", "count=5"
    )
    events = [json.loads(line) for line in output.splitlines()]
    assert code == 0 and [(event["step"], event["action"]) for event in events][:2] == [(45, "warn"), (45, "adapt")]
    for key in ("policy", "gad.guardian.policy"):
        code, output, _ = run(capsys, path, "--set", f"{key}=off")
        assert code == 0 and output == "steps 1 to 80: 0 events; standing at the end: nothing\n"


@pytest.mark.parametrize("setting", ["saturated.accuracy=[1", "saturated.accuracy={", 'window="5'])
def test_a_setting_that_cannot_be_read(setting: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(tmp_path / "metrics.jsonl", stream(None, [], 3))
    code, output, error = run(capsys, path, "--set", setting)
    assert code == 2 and not output and error == f"gad-verl: --set {setting}: no KEY=VALUE that can be read\n"


def test_the_validation_before_the_first_step_counts_as_while_the_run_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """verl logs it at step 0 without a stage; the trainer gives the guardian that of the first step."""
    steps = [(step, {"gad/stage": 3.0, "actor/loss": 1.0, "val-gad/rouge_l": 0.4}) for step in range(1, 6)]
    path = write(tmp_path / "metrics.jsonl", [(0, {"val-gad/rouge_l": 0.5}), *steps])
    code, output, _ = run(
        capsys, path, "--set", "no_improvement.metric=val-gad/rouge_l", "--set", "no_improvement.patience=3"
    )
    assert code == 0 and output.startswith("step 3  warn  no_improvement: val-gad/rouge_l is 0.4; its best, 0.5, is 3 ")


def test_a_run_that_still_writes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = stream("length", range(11, 61), 60)
    path = write(tmp_path / "metrics.jsonl", rows, tail='{"step": 61, "data": {"gad/len')
    code, output, _ = run(capsys, path)
    assert code == 0 and "steps 1 to 60: 1 events; standing at the end: length" in output


@pytest.mark.parametrize("rule", ["nonfinite", "kl"])
def test_a_folder_is_judged_with_the_settings_of_its_run(
    tmp_path: Path, capsys: pytest.CaptureFixture, rule: str
) -> None:
    rows = stream(rule, range(41, 81), 80)
    write(tmp_path / "metrics.jsonl", rows)
    with RunRecord.open(tmp_path, None) as record:
        guardian = {"policy": "off", "nonfinite": {"policy": "off"}, rule: {"policy": "stop"}, "window": 8, "count": 4}
        record.write_run({"gad": {"guardian": guardian}}, tmp_path / "metrics.jsonl")
    first = {"nonfinite": 43, "kl": 44}[rule]
    code, output, _ = run(capsys, tmp_path)
    assert code == 0 and output.startswith(f"step {first}  stop  {rule}: ") and "settings of the run" in output
    # What is set on the command line holds.
    code, output, _ = run(capsys, tmp_path, "--set", f"{rule}.policy=off")
    assert code == 0 and output.startswith("steps 1 to 80: 0 events")


def test_a_run_that_wrote_no_metrics_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with RunRecord.open(tmp_path, None) as record:
        record.write_run({}, None)
        record.event(3, "schedule", "stage", "info", "The warmup begins.")
    code, output, _ = run(capsys, tmp_path)
    assert code == 0 and output.startswith("no metrics: 0 events") and "trainer.logger=[console,file]" in output


def test_damaged_lines_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(tmp_path / "metrics.jsonl", stream("length", range(11, 61), 60), tail="nonsense\n[1]\n")
    code, output, _ = run(capsys, path)
    assert (
        code == 0
        and "steps 1 to 60: 1 events" in output
        and output.endswith("2 lines of metrics.jsonl could not be read and are left out\n")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        ('{"step": 1', "no file of metrics"),
        ("hello\n[1]\n", "no file of metrics"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture, text: str | None, message: str) -> None:
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    code, output, error = run(capsys, path)
    assert code == 2 and output == "" and str(path) in error and message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("setting", ["nonsense=1", "kl.highest=-1", "policy=panic", "window"])
def test_bad_settings(tmp_path: Path, capsys: pytest.CaptureFixture, setting: str) -> None:
    path = write(tmp_path / "m.jsonl", stream(None, [], 3))
    code, output, error = run(capsys, path, "--set", setting)
    assert code == 2 and output == "" and "gad.guardian" in error and len(error.splitlines()) == 1
