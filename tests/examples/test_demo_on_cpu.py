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
"""The demo: a short form of it from start to end, its table, and what it refuses."""

import logging
from pathlib import Path

import demo
import pytest
from oracle_language import BEGIN, END, LETTERS

from gad_verl.record import read_run, read_scores


def test_a_short_demo_shows_all_four_students_and_leaves_a_run_for_the_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    plan = demo.Plan(seqkd=20, look=10, alone=2, adversarial=2)
    with caplog.at_level(logging.INFO):
        assert demo.main(["--output", str(folder)], plan) == 0
    for name in ("SeqKD, where all start", "GAD, recommended", demo.MORE, demo.LONGER):
        assert caplog.text.count(f"{name} ") >= 1, name
    assert "points against SeqKD of as many updates" in caplog.text
    assert [line["phase"] for line in read_scores(folder)] == ["discriminator_only"] * 2 + ["adversarial"] * 2
    assert read_run(folder)["finished"]


def test_a_folder_that_exists_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--output", str(tmp_path)]) == 2
    assert f"--output {tmp_path} exists" in capsys.readouterr().err


@pytest.mark.parametrize(("longer", "says"), [(0.7, True), (0.4, False)])
def test_the_table_says_where_seqkd_is_better(longer: float, says: bool) -> None:
    names = ("SeqKD, where all start", "GAD, recommended", demo.MORE, demo.LONGER)
    figures = [
        (name, {"valid": valid, "greedy": 0.5}) for name, valid in zip(names, (0.2, 0.5, 0.3, longer), strict=True)
    ]
    lines = demo.table(figures)
    assert f"+20 points against SeqKD of as many updates, {100 * (0.5 - longer):+.0f} against" in "\n".join(lines)
    assert ("Try SeqKD longer first" in lines[-1]) == says


def test_tokens_are_shown_as_letters() -> None:
    assert demo.letters([0, 2, LETTERS, BEGIN, 1, END]) == "ac1:b"
