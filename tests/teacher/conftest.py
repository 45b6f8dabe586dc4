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
"""Prompts and the command line for the tests of ``gad-verl teacher collect``."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from fault_server import FaultServer

from gad_verl.cli import main


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A server without faults; tests set what they need."""
    with FaultServer() as running:
        yield running


@pytest.fixture
def prompts_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as JSONL; a number stands for so many plain prompts."""

    def write(rows: int | list[Any], name: str = "prompts.jsonl") -> Path:
        if isinstance(rows, int):
            rows = [{"prompt": f"question {i}", "id": f"id-{i}"} for i in range(rows)]
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def collect(server: FaultServer, tmp_path: Path) -> Callable[..., int]:
    """Runs ``gad-verl teacher collect`` on the server in this process; returns the exit code."""

    def run(prompts: Path | str, *more: str, output: Path | None = None, teacher: bool = True) -> int:
        arguments = [
            "teacher",
            "collect",
            "--prompts",
            str(prompts),
            "--output",
            str(output or tmp_path / "out.parquet"),
        ]
        if teacher:
            arguments += ["--base-url", server.base_url, "--model", server.model]
        return main([*arguments, *more])

    return run


@pytest.fixture
def rows_of(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """The rows of the output."""

    def read(output: Path | None = None) -> list[dict[str, Any]]:
        return parquet.read_table(output or tmp_path / "out.parquet").to_pylist()

    return read


@pytest.fixture
def card_of(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The card of the output."""
    return lambda: json.loads((tmp_path / "out.parquet.card.json").read_text(encoding="utf-8"))
