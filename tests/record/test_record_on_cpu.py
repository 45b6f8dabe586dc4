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
"""The record of a run: what a kill, a resume and a reader in between may find."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from gad_verl.record import (
    LINE_FILES,
    QUANTILE_LEVELS,
    RECORD_FOLDER,
    RunRecord,
    Sample,
    read_events,
    read_run,
    read_samples,
    read_scores,
)
from gad_verl.record.reading import EVENTS_FILE, SAMPLES_FILE, read_lines
from gad_verl.record.redaction import REMOVED, is_secret_name, without_secrets
from gad_verl.record.writing import quantiles

TEXTS = st.text(st.characters(exclude_categories=()), max_size=12)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


def _write_steps(run: Path, steps: range, resume_step: int | None) -> None:
    with RunRecord.open(run, resume_step) as record:
        for step in steps:
            record.event(
                step, "guardian", "saturated", "warn", f"line one\nzwei\u2028drei \u0085 {step}", {"a": step / 7}
            )
            record.scores(step, "adversarial", [step, step + 1.0], [0.0])
            record.samples(step, "val", [Sample(0, "p", "t", ["s"]), Sample(1, "p", "t", ["s"], 1.0, [2.0])])


def _contents(run: Path) -> dict[str, bytes]:
    return {name: (run / RECORD_FOLDER / name).read_bytes() for name in LINE_FILES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    _write_steps(run, range(1, 6), None)
    return run


@settings(max_examples=60, deadline=None)
@given(step=st.integers(0, 6), cuts=st.tuples(*[st.floats(0, 1)] * 3))
def test_cut_anywhere_and_resumed_is_as_if_never_interrupted(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, step: int, cuts: tuple[float, ...]
) -> None:
    run = tmp_path_factory.mktemp("cut")
    (run / RECORD_FOLDER).mkdir()
    kept = {}
    for name, share in zip(LINE_FILES, cuts, strict=True):
        content = (whole / RECORD_FOLDER / name).read_bytes()
        content = content[: round(share * len(content))]
        (run / RECORD_FOLDER / name).write_bytes(content)
        lines = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].split(b"\n") if line]
        kept[name] = [line for line in lines if line["step"] <= step]
    with RunRecord.open(run, step):
        pass
    for name in LINE_FILES:
        found = read_lines(run / RECORD_FOLDER / name)
        # A line of which only the end-of-line was lost is whole.
        assert found[: len(kept[name])] == kept[name] and len(found) - len(kept[name]) <= 1
        assert all(line["step"] <= step for line in found)
    if all(share == 1 for share in cuts):
        _write_steps(run, range(step + 1, 6), step)
        assert _contents(run) == _contents(whole)


@pytest.mark.parametrize("step", [0, 2, 5, 9])
def test_resume_from_a_checkpoint_gives_the_same_files(whole: Path, tmp_path: Path, step: int) -> None:
    _write_steps(tmp_path, range(1, 6), None)
    with (tmp_path / RECORD_FOLDER / EVENTS_FILE).open("ab") as file:
        file.write(b'{"step": 1, "source": "gua')
    _write_steps(tmp_path, range(step + 1, 6), step)
    assert _contents(tmp_path) == _contents(whole)


def test_reader_tolerates_a_line_that_is_being_written(whole: Path, tmp_path: Path) -> None:
    (tmp_path / RECORD_FOLDER).mkdir()
    content = (whole / RECORD_FOLDER / SAMPLES_FILE).read_bytes()
    all_lines = read_samples(whole)
    for end in range(0, len(content), 7):
        (tmp_path / RECORD_FOLDER / SAMPLES_FILE).write_bytes(content[:end])
        read = read_samples(tmp_path)
        assert read == all_lines[: len(read)] and len(read) >= content[:end].count(b"\n")


def test_killed_writer_leaves_whole_lines(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing: only the last line may be cut, and the next start goes on."""
    code = (
        "import itertools, sys\n"
        "from gad_verl.record import RunRecord\n"
        "record = RunRecord.open(sys.argv[1], None)\n"
        "for step in itertools.count(1):\n"
        "    record.event(step, 'guardian', 'rule', 'info', 'x' * 5000)\n"
        "    print(step, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        reported = 0
        while reported < 50:
            reported = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    steps = [event["step"] for event in read_events(tmp_path)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= reported
    with RunRecord.open(tmp_path, 30) as record:
        record.event(31, "guardian", "rule", "info", "on")
    assert [event["step"] for event in read_events(tmp_path)] == list(range(1, 32))


@settings(max_examples=50, deadline=None)
@given(text=TEXTS, score=NUMBERS, scores=st.lists(NUMBERS, max_size=3))
def test_any_text_and_number_comes_back(
    tmp_path_factory: pytest.TempPathFactory, text: str, score: float, scores: list[float]
) -> None:
    run = tmp_path_factory.mktemp("texts")
    with RunRecord.open(run, None) as record:
        record.samples(3, "train", [Sample(7, text, text, [text, "b"], np.float64(score), scores)])
        record.event(3, "guardian", "r", "info", text, {"x": score})
    raw = (run / RECORD_FOLDER / SAMPLES_FILE).read_bytes()
    assert raw.count(b"\n") == 1
    json.loads(raw.decode("utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (line,) = read_samples(run)
    expected = text.encode("utf-8", errors="replace").decode("utf-8")
    assert line["prompt"] == line["teacher"] == line["students"][0] == expected
    assert line["student_scores"] == [number if math.isfinite(number) else None for number in scores]
    (event,) = read_events(run)
    assert event["figures"]["x"] == (score if math.isfinite(score) else None)


def test_damaged_lines_in_the_middle_lose_no_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write_steps(tmp_path, range(1, 4), None)
    path = tmp_path / RECORD_FOLDER / EVENTS_FILE
    first, second, third, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first, second[:9], b"[1]", b'{"step": "x"}', b"\xff\xfe", third, b""]))
    assert [event["step"] for event in read_events(tmp_path)] == [1, 3]
    assert "4 damaged lines" in caplog.text


def test_new_run_sets_the_older_record_aside(tmp_path: Path) -> None:
    for text in ("first", "second", "third"):
        with RunRecord.open(tmp_path, None) as record:
            record.event(1, "guardian", "r", "info", text)
            record.write_run({})
    found = {
        folder.name: read_lines(folder / EVENTS_FILE)[0]["text"] for folder in tmp_path.iterdir() if folder.is_dir()
    }
    assert found == {"record.1": "first", "record.2": "second", "record": "third"}
    run = read_run(tmp_path)
    assert run is not None and len(run["started"]) == 1


def test_starts_and_the_end_are_noted(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Settings:
        seed: int = 3
        rate: float = float("inf")

    record = RunRecord.open(tmp_path, None)
    record.write_run(Settings(), metrics_file=tmp_path / "m.jsonl")
    run = read_run(tmp_path)
    assert run is not None and run["finished"] is None and len(run["started"]) == 1
    assert run["config"] == {"seed": 3, "rate": None} and run["metrics_file"] == str(tmp_path / "m.jsonl")
    record.finish()
    assert read_run(tmp_path)["finished"] is not None
    again = RunRecord.open(tmp_path, 4)
    again.write_run({"seed": 4}, versions={"verl": "0.9.1"})
    run = read_run(tmp_path)
    assert run["finished"] is None and len(run["started"]) == 2
    assert run["versions"] == {"verl": "0.9.1"} and run["metrics_file"] is None


def test_later_line_of_a_step_counts(tmp_path: Path) -> None:
    with RunRecord.open(tmp_path, None) as record:
        for score in (1.0, 2.0):
            record.scores(5, "adversarial", [score], [score])
            record.samples(5, "val", [Sample(0, "p", f"{score}", [])])
    assert [line["teacher"] for line in read_scores(tmp_path)] == [[2.0] * 7]
    assert [line["teacher"] for line in read_samples(tmp_path)] == ["2.0"]
    with pytest.raises(ValueError, match="adapt, stop"):
        record.event(1, "guardian", "r", "shout", "")


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_quantiles_are_numpys(values: list[float]) -> None:
    np.testing.assert_allclose(quantiles(values), np.quantile(values, QUANTILE_LEVELS), rtol=1e-9, atol=1e-6)
    assert quantiles([*values, math.nan, math.inf]) == quantiles(values)


def test_quantiles_of_nothing() -> None:
    assert quantiles([]) == quantiles([math.nan]) == [None] * 7


SECRET = "abcdefgh-0123456789"


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "OPENAI_API_KEY", "hf_token", "HF_TOKEN", "token", "secret", "password", "access-key"]
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)
    cleaned = without_secrets({"a": [{name: SECRET}], "b": {name: {"deep": SECRET}}})
    assert SECRET not in json.dumps(cleaned) and cleaned["a"][0][name] == REMOVED


@pytest.mark.parametrize(
    "name",
    ["prompt_key", "teacher_key", "ppo_max_token_len_per_gpu", "tokenizer", "pad_token", "max_tokens", "api_key_env"],
)
def test_names_that_are_no_secrets(name: str) -> None:
    assert without_secrets({name: "content"}) == {name: "content"} and not is_secret_name(name)


def test_secrets_by_form_and_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "a-rather-odd-value")
    config = OmegaConf.create(
        {
            "innocent": "x a-rather-odd-value y",
            "resolved": "${oc.env:MY_API_KEY}",
            "text": f"use sk-{'a1' * 12} or hf_{'Z9' * 12}",
            "header": "Bearer tiny",
            "proxy": "http://me:pass@proxy.example:80/x",
            "address": "http://127.0.0.1:80/v1",
            "api_key": None,
            "token": 5,
            "rate": 1e-6,
        }
    )
    record = RunRecord.open(tmp_path, None)
    record.write_run(config)
    written = (tmp_path / RECORD_FOLDER / "run.json").read_text(encoding="utf-8")
    for secret in ("odd-value", "a1a1", "Z9Z9", "tiny", "me:pass"):
        assert secret not in written
    found = read_run(tmp_path)["config"]
    assert found["address"] == "http://127.0.0.1:80/v1" and found["proxy"].endswith("@proxy.example:80/x")
    assert found["api_key"] is None and found["token"] == 5 and found["rate"] == 1e-6


def test_imports_neither_torch_nor_verl() -> None:
    code = (
        "import sys, gad_verl.record; print(sorted({'torch', 'verl', 'ray', 'omegaconf', 'numpy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.strip() == "[]"
