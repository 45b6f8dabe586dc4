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
"""Whatever is wrong: one line, exit code 2, no traceback, nothing written, and no key anywhere."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from fault_server import Faults, FaultServer

from gad_verl.cli import main
from gad_verl.tools.api.store import AnswerStore

SECRET = "sk-test-5ecret0123456789"
GOOD = b'{"prompt": "one"}\n{"prompt": "two"}\n'


def parquet_of(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, schema), sink)
    return sink.getvalue().to_pybytes()


BAD_FILES: dict[str, tuple[str, bytes | None, str]] = {
    "missing": ("p.jsonl", None, "no such file"),
    "empty": ("p.jsonl", b"", "empty"),
    "no rows": ("p.jsonl", b"\n\n", "no rows"),
    "no rows in parquet": ("p.parquet", parquet_of([], pa.schema([("prompt", pa.string())])), "no rows"),
    "unknown kind": ("p.xlsx", b"x", "must end in one of"),
    "broken JSON": ("p.jsonl", GOOD + b'{"prompt": "thr\n', r"row 2 \(line 3\): broken JSON"),
    "JSON that is no list": ("p.json", b'{"prompt": "x"}', "expected a JSON list"),
    "no objects": ("p.jsonl", b"[1]\n", "object"),
    "latin-1": ("p.jsonl", '{"prompt": "Müller"}\n'.encode("latin-1"), "not UTF-8"),
    "latin-1 further down": ("p.jsonl", GOOD + '{"prompt": "ü"}\n'.encode("latin-1"), "line 3: not UTF-8"),
    "latin-1 in CSV": ("p.csv", "prompt\nMüller\n".encode("latin-1"), "not UTF-8"),
    "UTF-16": ("p.csv", "prompt\nx\n".encode("utf-16"), "UTF-16"),
    "torn CSV": ("p.csv", b'prompt\n"never closed\n', "broken CSV"),
    "torn parquet": ("p.parquet", parquet_of([{"prompt": "x" * 99}])[:150], "no readable parquet file"),
    "no parquet": ("p.parquet", GOOD, "no readable parquet file"),
    "chats": (
        "p.jsonl",
        b'{"messages": [{"role": "user", "content": "one"}]}\n',
        "Set --prompt-key, or make rows with prompts out of the chats: `gad-verl data import`",
    ),
    "wrong column": ("p.jsonl", b'{"question": "one"}\n', "no column 'prompt'; it has question. Set --prompt-key"),
    "a number": ("p.jsonl", GOOD + b'{"prompt": 5}\n', "row 2, column 'prompt'"),
    "an empty prompt": ("p.jsonl", GOOD + b'{"prompt": "  "}\n', "row 2, column 'prompt': the prompt is empty"),
    "an absent prompt": ("p.jsonl", GOOD + b'{"id": 1}\n', "row 2, column 'prompt'"),
    "a chat that is answered": (
        "p.jsonl",
        b'{"prompt": [{"role": "assistant", "content": "x"}]}\n',
        "row 0, .* must end before the answer",
    ),
    "half a character": ("p.jsonl", b'{"prompt": "\\ud800"}\n', "row 0, .* broken Unicode"),
    "half a character in an id": (
        "p.jsonl",
        GOOD + b'{"prompt": "x", "id": "\\ud800"}\n',
        "row 2, column 'id': broken",
    ),
    "half a character in a source": (
        "p.jsonl",
        GOOD + b'{"prompt": "x", "data_source": "\\ud800"}\n',
        "row 2, column 'data_source': broken Unicode",
    ),
}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a user sees."""
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.strip() and not line.startswith("\rteacher:")]
    assert len(lines) == 1 and lines[0].startswith("gad-verl: "), said.err
    assert "Traceback" not in said.err and not said.out and SECRET not in said.err
    return lines[0]


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_of_prompts(
    name: str, server: FaultServer, collect: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, content, message = BAD_FILES[name]
    if content is not None:
        (tmp_path / file).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    assert collect(tmp_path / file) == 2
    assert re.search(message, one_line(capsys))
    assert sorted(tmp_path.iterdir()) == before and not server.received


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--output", "{}/out.json"], "must end in .parquet"),
        (["--output", "{}/folder.parquet"], "is a folder"),
        (["--output", "{}/there.parquet"], "exists and was not collected here"),
        (["--output", "{}/p.jsonl/x.parquet"], "cannot be opened"),
        (["--ask-again-times", "-1"], "--ask-again-times must not be negative"),
        (["--template", "nonsense"], "neither one of none, alpaca nor a readable file"),
        (["--extra-body", "[1]"], "must be a JSON object"),
        (["--extra-body", '{"n": 4}'], "must not hold 'n'; it is set by --samples"),
        (["--extra-body", '{"model": "x"}'], "must not hold 'model'"),
        (["--extra-body", '{"temperature": "0.7"}'], "temperature must be a number"),
        (["--extra-body", '{"temperature": true}'], "temperature must be a number"),
        (["--extra-body", '{"top_k": [NaN]}'], "sampling: 'top_k' cannot be sent as JSON"),
        (["--extra-body", '{"top_k": 1e999}'], "sampling: 'top_k' cannot be sent as JSON"),
        (["--temperature", "nan"], "sampling: 'temperature' cannot be sent as JSON"),
        (["--top-p", "inf"], "sampling: 'top_p' cannot be sent as JSON"),
        (["--price", "-1", "2"], "price"),
        (["--api-key-env", SECRET], "NAME of an environment variable"),
        (["--base-url", f"http://user:{SECRET}@127.0.0.1/v1"], "must not hold a user"),
        (["--base-url", "127.0.0.1:80"], "must look like"),
        (["--settings", "{}/nowhere.yaml"], "give one of the two"),
        (["--context-key", "input"], "no column 'input'"),
    ],
)
def test_bad_options(
    more: list[str],
    message: str,
    server: FaultServer,
    collect: Any,
    prompts_file: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "there.parquet").write_bytes(b"mine")
    path = prompts_file(3, "p.jsonl")
    before = sorted(tmp_path.rglob("*"))
    assert collect(path, *(one.replace("{}", str(tmp_path)) for one in more)) == 2
    assert message in one_line(capsys)
    assert sorted(tmp_path.rglob("*")) == before and not server.received
    assert (tmp_path / "there.parquet").read_bytes() == b"mine"


@pytest.mark.parametrize("option", ["--limit", "--samples", "--concurrency", "--attempts"])
def test_a_count_is_a_whole_number_from_1(option: str, collect: Any, prompts_file: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        collect(prompts_file(3), option, "0")
    assert f"argument {option}: 0 is below 1" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--timeout", "--requests-per-minute", "--tokens-per-minute"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_a_limit_is_a_number_above_0(option: str, value: str, collect: Any, prompts_file: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        collect(prompts_file(3), option, value)
    assert f"argument {option}: {value!r} is no number above 0" in capsys.readouterr().err


class TestEndpoints:
    """Nothing can be asked: the output stays as it was."""

    @pytest.fixture
    def refused(
        self, prompts_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., str]:
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)

        def run(base_url: str, model: str = "loopback") -> str:
            arguments = ["--prompts", str(prompts_file(5)), "--output", str(tmp_path / "o.parquet")]
            assert main(["teacher", "collect", *arguments, "--base-url", base_url, "--model", model]) == 2
            assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]
            return one_line(capsys)

        return run

    def test_unreachable(self, refused: Callable[..., str]) -> None:
        with FaultServer() as server:
            pass
        assert "cannot be reached" in refused(server.base_url)

    def test_unauthorised(self, server: FaultServer, refused: Callable[..., str]) -> None:
        server.key = "another"
        assert "refuses the key in OPENAI_API_KEY (401): Incorrect API key provided: ***" in refused(server.base_url)

    def test_unknown_model(self, server: FaultServer, refused: Callable[..., str]) -> None:
        assert "has no model 'gpt-99'; it has loopback" in refused(server.base_url, "gpt-99")

    def test_something_else(self, server: FaultServer, refused: Callable[..., str]) -> None:
        server.faults, server.models_listed = Faults(content_type=1.0), False
        assert "no OpenAI-compatible API" in refused(server.base_url)

    def test_no_key(self, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_API_KEY")
        assert "set the environment variable OPENAI_API_KEY" in refused("https://api.invalid/v1")


def test_no_secret_in_any_file_or_output(
    server: FaultServer,
    collect: Any,
    prompts_file: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A complete run under faults, with everything logged that anybody logs."""
    monkeypatch.setenv("TEACHER_KEY", SECRET)
    server.key = SECRET
    server.faults = Faults(rate_limited=0.1, server_error=0.1, cut_body=0.1)
    server.answer = lambda body: 400 if body["messages"][-1]["content"].endswith("7") else ("fine", "stop")
    with caplog.at_level(0):
        assert collect(prompts_file(60), "--api-key-env", "TEACHER_KEY") == 0
    server.key = "another"
    assert collect(prompts_file(70), "--api-key-env", "TEACHER_KEY") == 2
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err + caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 4
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
    card = json.loads((tmp_path / "out.parquet.card.json").read_text())
    assert card["settings"]["teachers"][0]["endpoint"]["api_key_env"] == "TEACHER_KEY"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("teachers: [{base_url: 'http://localhost/v1', model: m, api_key: %s}]" % SECRET, "api_key does not belong"),  # noqa: UP031
        ("teachers: [{base_url: 'http://localhost/v1', model: %s}]" % SECRET, "looks like an API key"),  # noqa: UP031
        ("teachers: [{base_url: 'http://localhost/v1', model: m, api_key_env: %s}]" % SECRET, "API key"),  # noqa: UP031
        (f"teachers: [{SECRET}: [", "is no YAML"),
        ("- a", "must be a mapping"),
        ("teachers: []", "must be a list of mappings"),
        ("teachers: [{model: m}]", "teacher 0: base_url is missing"),
        ("teachers: [{base_url: 'http://localhost/v1', model: m, wieght: 2}]", "did you mean weight?"),
        ("teachers: [{base_url: 'http://localhost/v1', model: m, weight: 0}]", "weight must be a positive number"),
        ("teachers: [{base_url: 'http://localhost/v1', model: m, price: {prompt: 1}}]", "price"),
        ("teachers: [{base_url: 'http://localhost/v1', model: m, sampling: 3}]", "sampling must be a mapping"),
        ("teachers: [{base_url: 'http://localhost/v1', model: m}]\nassign: some", "assign: 'some' is not one of"),
        ("teachers: [{base_url: 'http://localhost/v1', model: m}]\nexamples: [x]", "examples must be a list"),
        ("teachers: [{base_url: 'http://localhost/v1', model: m}]\nexamples: 5", "examples must be a list"),
        (
            "teachers: [{base_url: 'http://localhost/v1', model: m, sampling: {temperature: '0.7'}}]",
            "teacher m: temperature must be a number",
        ),
        ("teachers: [{base_url: 'ftp://localhost/v1', model: m}]", "must look like https://host/v1"),
        (
            "teachers: [{base_url: 'http://localhost/v1', model: m}, {base_url: 'http://localhost/v1', model: m}]",
            "two teachers have one name",
        ),
    ],
)
def test_a_bad_settings_file(
    content: str, message: str, collect: Any, prompts_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.yaml").write_text(content)
    path = prompts_file(3)
    before = sorted(tmp_path.iterdir())
    assert collect(path, "--settings", str(tmp_path / "settings.yaml"), teacher=False) == 2
    line = one_line(capsys)
    assert message in line and SECRET not in line
    assert sorted(tmp_path.iterdir()) == before


def test_a_second_collection_into_the_same_file(
    collect: Any, prompts_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with AnswerStore(tmp_path / "out.parquet.answers.sqlite") as store:
        assert collect(prompts_file(3)) == 2
        assert "another process is writing its answers there" in one_line(capsys)
        assert not len(store)


def test_names_that_are_no_text(collect: Any, prompts_file: Any, rows_of: Any, card_of: Any, tmp_path: Path) -> None:
    """The name of a file may be any bytes: what is written has a question mark there."""
    path = prompts_file(2).rename(tmp_path / os.fsdecode(b"caf\xe9.jsonl"))
    assert collect(path) == 0
    assert {row["data_source"] for row in rows_of()} == {"caf?"} and card_of()["prompts"]["file"] == "caf?.jsonl"


def test_a_path_of_the_home_folder(
    collect: Any, prompts_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell leaves the ~ of --output=~/x as it is."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert collect(prompts_file(2), output=Path("~/out.parquet")) == 0
    names = ["out.parquet", "out.parquet.answers.sqlite", "out.parquet.card.json"]
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == names and not Path("~").exists()


def test_no_teacher_at_all(collect: Any, prompts_file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect(prompts_file(1), teacher=False) == 2
    assert "--base-url and --model, or --settings" in one_line(capsys)


def test_the_command_line_loads_nothing_heavy() -> None:
    """``gad-verl --help`` answers at once."""
    code = (
        "import sys, gad_verl.cli; gad_verl.cli.build_parser(); "
        "print([name for name in ('openai', 'pyarrow', 'torch', 'yaml', 'tenacity') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("output", ["p.parquet", "q.parquet"])
def test_what_is_asked_is_not_replaced(output: str, collect: Any, tmp_path: Path, capsys: Any) -> None:
    """By the answers, or by the card or the store beside them."""
    prompts = tmp_path / {"p.parquet": "p.parquet", "q.parquet": "q.parquet.card.json"}[output]
    prompts.write_bytes(parquet_of([{"prompt": "one"}]) if prompts.suffix == ".parquet" else b'[{"prompt": "one"}]')
    (tmp_path / "link").symlink_to(tmp_path)
    before = prompts.read_bytes()
    assert collect(prompts, "--overwrite", output=tmp_path / "link" / output) == 2
    assert "would replace --prompts" in capsys.readouterr().err
    assert prompts.read_bytes() == before and {one.name for one in tmp_path.iterdir()} == {"link", prompts.name}
