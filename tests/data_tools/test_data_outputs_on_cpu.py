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
"""``gad-verl data``: no output takes the place of what is read, or of another output, however its path is spelled."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gad_verl import cli

ROWS = [{"prompt": [{"role": "user", "content": f"Q{n}?"}], "teacher_response": f"A{n}."} for n in range(30)]
SPELLED: dict[str, Callable[[Path], str]] = {
    "as it is": str,
    "by a link": lambda path: str(path.parent.parent / "link" / path.name),
    "by the folder above": lambda path: str(path.parent / ".." / path.parent.name / path.name),
    "relative": lambda path: path.name,
    "from home": lambda path: f"~/{path.name}",
}


@pytest.fixture(params=SPELLED)
def spelled(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    return SPELLED[request.param]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "data"
    found.mkdir()
    (tmp_path / "link").symlink_to(found)
    for name in ("in.jsonl", "student.jsonl", "train.parquet.card.json", "requests.jsonl", "template.txt"):
        lines = "".join(json.dumps(row) + "\n" for row in ROWS)
        (found / name).write_text(lines if name.endswith("l") else json.dumps(ROWS), encoding="utf-8")
    (found / "template.txt").write_text("{instruction}", encoding="utf-8")
    return found


# A command, of which {} is the one path, and the other name of the same file.
@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("import in.jsonl --output new.parquet --rejected {}", "in.jsonl"),
        ("import in.jsonl --output new.parquet --requests requests.jsonl --rejected {}", "requests.jsonl"),
        ("import in.jsonl --output new.parquet --template template.txt --rejected {}", "template.txt"),
        ("import in.jsonl --output new.parquet --rejected {}", "new.parquet"),
        ("import in.jsonl --output new.parquet --rejected {}", "new.parquet.card.json"),
        ("import {} --output train.parquet", "train.parquet.card.json"),
        ("normalize in.jsonl --output new.parquet --rejected {}", "in.jsonl"),
        ("normalize in.jsonl --output new.parquet --rejected {}", "new.parquet"),
        ("normalize {} --output train.parquet", "train.parquet.card.json"),
        ("stats in.jsonl --tokenizer nowhere --json {}", "in.jsonl"),
        ("leaks in.jsonl --json {}", "in.jsonl"),
        ("leaks in.jsonl --student student.jsonl --student-key teacher_response --json {}", "student.jsonl"),
    ],
)
def test_no_output_replaces_what_is_read_or_written(
    command: str, name: str, spelled: Callable[[Path], str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spelled(folder / name)
    before = {file: file.read_bytes() for file in folder.rglob("*")}
    assert cli.main(["data", *command.format(path).split(), "--overwrite"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line and ("would replace" in line or "two outputs" in line), line
    assert {file: file.read_bytes() for file in folder.rglob("*")} == before


def test_a_split_replaces_no_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder / "train.parquet"
    assert cli.main(["data", "import", str(folder / "in.jsonl"), "--output", str(source), "--overwrite"]) == 0
    content = source.read_bytes()
    command = ["data", "split", str(folder.parent / "link" / "train.parquet"), "--output", str(folder)]
    assert cli.main([*command, "--val", "5", "--overwrite"]) == 2
    assert "the train side" in capsys.readouterr().err
    assert source.read_bytes() == content


def test_a_file_is_still_normalised_in_its_place(folder: Path) -> None:
    source = folder / "new.parquet"
    for command in (["import", str(folder / "in.jsonl")], ["normalize", str(source)], ["import", str(source)]):
        assert cli.main(["data", *command, "--output", str(source), "--overwrite"]) == 0
    assert len(json.loads((folder / "new.parquet.card.json").read_text(encoding="utf-8"))["inputs"]) == 1


def test_a_report_that_may_not_be_written_costs_no_counting(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = folder / "report.json"
    report.write_text("kept", encoding="utf-8")
    # The tokenizer, which is loaded next, is not there.
    command = ["data", "stats", str(folder / "in.jsonl"), "--tokenizer", str(folder / "no"), "--json", str(report)]
    assert cli.main(command) == 2
    assert "--overwrite" in capsys.readouterr().err and report.read_text(encoding="utf-8") == "kept"
